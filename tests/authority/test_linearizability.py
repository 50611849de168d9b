"""The checker of histories: random valid ones pass, each broken promise is found."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.authority.linearizability import begun, check_entity, in_one_life
from bridge.authority.record_model import Known, Operation, RecordView, clears_due
from tests.support.exhaustive import Exhaustive

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16
SERVERS = {"a": A, "b": B, "c": C}
OPEN = frozenset(SERVERS.values())
PLAYERS = ("Ann", "Bob", "Cem")


def view(version: int, epoch: int, session: bytes | None = A, *, owner: str = "Ann") -> RecordView:
    return RecordView(owner=owner, master="Ann", rule="allow", session=session, epoch=epoch, version=version)


def op(
    function: str, at: int, record: RecordView | None = None, *, lasts: int = 10, **members: Any
) -> Operation:
    """An operation that was answered, called ``at`` nanoseconds."""
    values: dict[str, Any] = {
        "client": "client",
        "known": Known.OK,
        "answered_ns": at + lasts,
        "called_ns": at,
        "entity": "ball",
        "function": function,
        "record": record,
    }
    return Operation(**(values | members))


def replace_view(record: RecordView, **members: object) -> RecordView:
    values = {name: getattr(record, name) for name in record.__struct_fields__}
    return RecordView(**(values | members))


def created(at: int = 0) -> Operation:
    return op("create_entity", at, view(1, 1), session=A, owner="Ann", master="Ann", value="allow")


def pulled(at: int, version: int, epoch: int, by: bytes = B, known: int = 1, lasts: int = 10) -> Operation:
    shown = view(version, epoch, by, owner="Bob")
    return op("pull", at, shown, session=by, owner="Bob", epoch=known, lasts=lasts)


def unknown(operation: Operation) -> Operation:
    return replace(operation, known=Known.UNKNOWN, record=None, detail="")


def refused(function: str, at: int, detail: str, **members: Any) -> Operation:
    return op(function, at, known=Known.REFUSED, detail=detail, **members)


def test_one_after_the_other_is_linearizable() -> None:
    """R0-41, B-4."""
    assert check_entity([created(), pulled(20, 2, 2), pulled(40, 3, 3, C, known=2)]) is None


def test_nothing_asked_is_linearizable() -> None:
    assert check_entity([]) is None


def test_of_two_who_pull_at_once_one_may_win() -> None:
    lost = refused("pull", 20, "conflict", session=C, owner="Cem", epoch=1, told_epoch=2)
    assert check_entity([created(), pulled(20, 2, 2), lost]) is None


def test_two_winners_of_one_epoch_are_found() -> None:
    found = check_entity([created(), pulled(20, 2, 2), pulled(22, 2, 3, C)])
    assert found is not None
    assert found.text == "ball: two operations made version 2"
    assert len(found.operations) == 2


def test_two_pulls_of_one_known_epoch_cannot_both_be_granted() -> None:
    assert check_entity([created(), pulled(20, 2, 2), pulled(22, 3, 3, C, known=1)]) is not None


def test_a_grant_before_the_one_it_follows_is_found() -> None:
    """Non-linearizable order: version 3 was answered before version 2 was asked for."""
    assert check_entity([created(), pulled(40, 2, 2), pulled(20, 3, 3, C, known=2)]) is not None
    assert check_entity([created(), pulled(20, 2, 2, lasts=40), pulled(30, 3, 3, C, known=2)]) is None


def test_an_answer_that_shows_an_older_record_is_found() -> None:
    """A stale read taken for a write."""
    stale = op("read", 60, view(1, 1))
    found = check_entity([created(), pulled(20, 2, 2), stale])
    assert found is not None
    assert found.operations[-1] == stale
    assert check_entity([created(), pulled(20, 2, 2), op("read", 60, view(2, 2, B, owner="Bob"))]) is None
    assert check_entity([created(), pulled(20, 2, 2, lasts=90), stale]) is None


def test_an_acknowledged_grant_that_the_end_does_not_show_is_found() -> None:
    end = op("read", 100, view(2, 1, A, owner="Ann"))
    assert check_entity([created(), pulled(20, 2, 2), end]) is not None


def test_an_entity_that_is_gone_in_the_end_is_found() -> None:
    assert check_entity([created(), op("read", 100, None)]) is not None
    assert check_entity([unknown(created()), op("read", 100, None)]) is None


@pytest.mark.parametrize(
    "wrong",
    [
        refused("pull", 20, "conflict", session=B, owner="Bob", epoch=1),
        refused("pull", 20, "conflict", session=B, owner="Bob", epoch=7, told_epoch=8),
        refused("pull", 20, "denied", session=B, owner="Bob", epoch=1),
        refused("pull", 20, "already_held", session=B, owner="Bob", epoch=1),
        refused("give", 20, "not_holder", session=A, owner="Bob", epoch=1),
        refused("transfer", 20, "not_owner", by="Ann", to="Bob"),
        refused("set_rule", 20, "not_master", by="Ann", value="deny"),
        refused("request", 20, "already_owner", player="Bob", owner="Ann", epoch=1),
        refused("request", 20, "conflict", player="Bob", owner="Ann", epoch=9),
        refused("create_entity", 20, "no_entity", session=A),
    ],
    ids=lambda operation: f"{operation.function}-{operation.detail}",
)
def test_a_refusal_without_a_reason_is_found(wrong: Operation) -> None:
    assert check_entity([created(), wrong], open_sessions=OPEN) is not None


@pytest.mark.parametrize(
    "right",
    [
        refused("pull", 20, "conflict", session=B, owner="Bob", epoch=7, told_epoch=1),
        refused("pull", 20, "already_held", session=A, owner="Bob", epoch=1),
        refused("give", 20, "not_holder", session=B, owner="Bob", epoch=1),
        refused("release", 20, "not_holder", session=A, epoch=2),
        refused("push", 20, "no_server", session=A, epoch=1, to="nobody"),
        refused("transfer", 20, "not_owner", by="Bob", to="Bob"),
        refused("set_rule", 20, "not_master", by="Bob", value="deny"),
        refused("request", 20, "already_owner", player="Ann", owner="Ann", epoch=1),
        refused("request", 20, "conflict", player="Bob", owner="Cem", epoch=1),
        refused("request", 20, "conflict", player="Bob", owner="Ann", epoch=9, authority=True),
        refused("create_entity", 20, "entity_exists", session=A),
    ],
    ids=lambda operation: f"{operation.function}-{operation.detail}",
)
def test_a_rightful_refusal_is_fine(right: Operation) -> None:
    assert check_entity([created(), right]) is None


def test_what_was_not_answered_may_have_happened() -> None:
    lost = unknown(pulled(20, 2, 2))
    after = op("give", 60, view(3, 2, B, owner="Cem"), session=B, owner="Cem", epoch=2)
    assert check_entity([created(), lost, after]) is None
    assert check_entity([created(), after], open_sessions=OPEN) is not None, "nobody gave it to B"
    assert check_entity([created(), lost]) is None
    assert check_entity([created(), lost, op("read", 90, view(1, 1))]) is None


def test_what_was_not_answered_happened_at_most_once() -> None:
    lost = unknown(op("transfer", 20, by="Ann", to="Bob"))
    back = op("transfer", 40, view(3, 1), by="operator", to="Ann")
    again = op("transfer", 60, view(5, 1), by="operator", to="Ann")
    assert check_entity([created(), lost, back]) is None
    assert check_entity([created(), lost, back, again]) is not None


def test_a_session_may_end_unless_it_is_known_to_be_open() -> None:
    freed = op("pull", 60, view(3, 2, B, owner="Bob"), session=B, owner="Bob", epoch=1)
    assert check_entity([created(), freed]) is None
    assert check_entity([created(), freed], open_sessions=frozenset({A, B})) is not None


def test_an_ended_session_is_granted_nothing_more() -> None:
    dormant = op("read", 20, view(2, 1, None))
    again = op("pull", 60, view(3, 2, A, owner="Ann"), session=A, owner="Ann", epoch=1)
    assert check_entity([created(), dormant, again]) is not None


def test_the_entities_of_an_ended_session_may_go_to_another() -> None:
    after = op("give", 60, view(3, 5, B, owner="Cem"), session=B, owner="Cem", epoch=5)
    assert check_entity([created(), after]) is None
    assert check_entity([created(), after], open_sessions=frozenset({A})) is not None


def test_a_session_that_acts_later_has_not_ended() -> None:
    """Also where what it did then was about another entity."""
    freed = op("pull", 60, view(3, 2, B, owner="Bob"), session=B, owner="Bob", epoch=1)
    assert check_entity([created(), freed], alive_ns={A: 50}) is None
    assert check_entity([created(), freed], alive_ns={A: 100}) is not None


def test_a_session_that_a_refusal_names_may_have_been_the_heir() -> None:
    """A ends, B follows, A's release is refused, B's pull too, B ends: nobody shows that B had it."""
    late = refused("release", 20, "not_holder", session=A, epoch=1)
    holds = refused("pull", 40, "already_held", session=B, owner="Bob", epoch=1)
    end = op("read", 60, view(3, 2, None))
    assert check_entity([created(), late, holds, end]) is None
    assert check_entity([created(), late, holds, end], open_sessions=frozenset({B})) is not None


def test_what_a_leaving_player_passed_on_was_passed_on_by_then() -> None:
    made = op(
        "create_entity", 0, view(1, 1, owner="Bob"), session=A, owner="Bob", master="Ann", value="allow"
    )
    left = Operation(client="Bob", function="leave", entity="ball", called_ns=20, until_ns=30, player="Bob")
    end = op("read", 60, view(2, 1))
    assert check_entity([made, left, end], open_sessions=OPEN) is None
    still = op("read", 40, view(1, 1, owner="Bob"))
    assert check_entity([made, left, still, end], open_sessions=OPEN) is not None


def test_an_answer_that_grants_nothing_changes_nothing() -> None:
    refusing = unknown(op("answer", 20, by="Ann", player="Bob", value="False"))
    end = op("read", 60, view(2, 1, owner="Bob"))
    assert check_entity([created(), refusing, end], open_sessions=OPEN) is not None
    assert check_entity([created(), replace(refusing, value="True"), end], open_sessions=OPEN) is None


def test_changes_that_change_nothing_have_no_version_of_their_own() -> None:
    same = op("set_rule", 20, view(1, 1), by="Ann", value="allow")
    assert check_entity([created(), same, replace(same, called_ns=40, answered_ns=50)]) is None


def test_a_counter_example_is_the_end_of_a_long_history() -> None:
    good = [pulled(n * 20, n, n, (B, C)[n % 2], known=n - 1) for n in range(2, 400)]
    bad = [pulled(400 * 20, 400, 400, A, known=398), pulled(401 * 20, 401, 401, B, known=400)]
    found = check_entity([created(), *good, *bad], open_sessions=OPEN)
    assert found is not None
    assert len(found.operations) == 2
    assert found.operations[-1].epoch == 398


def test_an_entity_that_nobody_here_made_is_followed_from_where_it_is_first_shown() -> None:
    first = pulled(20, 7, 9, known=8)
    before = refused("pull", 5, "conflict", session=C, owner="Cem", epoch=3, told_epoch=4)
    exists = refused("create_entity", 1, "entity_exists", session=C)
    assert check_entity([before, exists, first, pulled(60, 8, 11, C, known=9)], open_sessions=OPEN) is None
    assert check_entity([before, first, pulled(60, 8, 11, C, known=8)], open_sessions=OPEN) is not None


FUNCTIONS = (
    *("create_entity", "give", "push", "pull", "pull", "claim", "release", "transfer", "revoke"),
    *("set_rule", "set_master", "request", "request", "leave", "delete_entity"),
)


def deleted(at: int, version: int, epoch: int, by: str = "Ann") -> Operation:
    gone = replace_view(view(version, epoch, None), deleted=True)
    return op("delete_entity", at, gone, by=by)


def made_again(at: int, epoch: int, session: bytes = B) -> Operation:
    shown = view(1, epoch, session)
    return op("create_entity", at, shown, session=session, owner="Ann", master="Ann", value="allow")


def test_a_name_is_followed_through_deletion_into_its_next_life() -> None:
    lives = [created(), pulled(20, 2, 2), deleted(40, 3, 5), made_again(100, 6)]
    again = pulled(120, 2, 7, C, known=6)
    gone = refused("pull", 60, "no_entity", session=C, owner="Cem", epoch=2)
    # A release is read before the record is: of whom it is, and whose signature it has.
    unread = refused("claim", 70, "bad_release", session=C, owner="Cem")
    assert check_entity([*lives, again, gone, unread], open_sessions=OPEN) is None
    assert check_entity([*lives, deleted(120, 2, 8), made_again(140, 9)], open_sessions=OPEN) is None


@pytest.mark.parametrize(
    "wrong",
    [
        refused("pull", 120, "no_entity", session=C, owner="Cem", epoch=2),
        refused("pull", 60, "conflict", session=C, owner="Cem", epoch=1, told_epoch=2),
        pulled(120, 2, 7, C, known=2),
        pulled(120, 4, 4, C, known=2),
        made_again(120, 9, C),
        deleted(120, 2, 8, by="Bob"),
        refused("create_entity", 60, "entity_exists", session=C),
    ],
    ids=[
        "no entity",
        "conflict",
        "epoch of the life before",
        "after its end",
        "twice",
        "not master",
        "exists",
    ],
)
def test_what_is_wrong_about_a_name_that_was_deleted_is_found(wrong: Operation) -> None:
    lives = [created(), pulled(20, 2, 2), deleted(40, 3, 5), made_again(100, 6)]
    assert check_entity([*lives, wrong], open_sessions=OPEN) is not None


def test_a_life_that_nobody_was_told_the_beginning_of_is_followed() -> None:
    lives = [created(), deleted(40, 2, 5), unknown(made_again(60, 6)), pulled(80, 2, 7, C, known=6)]
    assert check_entity(lives, open_sessions=OPEN) is None
    assert check_entity([*lives[:2], lives[3]], open_sessions=OPEN) is not None


def test_that_a_holder_has_stopped_changes_nothing_of_what_was_deleted() -> None:
    stopped = op("release", 45, replace_view(view(3, 5, None), deleted=True), session=A, epoch=1)
    lives = [created(), deleted(40, 2, 5), stopped, made_again(60, 6)]
    assert check_entity(lives, open_sessions=OPEN) is None


class Reference:
    """A record as the homeserver keeps it, written down plainly; every change makes a version."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.record: RecordView | None = None
        self.counter = 0
        self.ended: set[bytes] = set()
        self.due: set[bytes] = set()

    def changed(self, **members: object) -> RecordView:
        assert self.record is not None
        values = {name: getattr(self.record, name) for name in self.record.__struct_fields__}
        values |= {"version": self.record.version + 1} | members
        self.record = RecordView(**values)
        return self.record

    def next_epoch(self) -> int:
        self.counter += self.rng.randint(1, 3)
        return self.counter

    def live(self) -> list[bytes]:
        return [session for session in SERVERS.values() if session not in self.ended]

    def granted(self, session: bytes | None, **members: object) -> RecordView:
        """Taken from its holder, whose release is due from now on."""
        assert self.record is not None
        self.due |= {self.record.session} if self.record.session else set()
        self.due.discard(session or b"")
        return self.changed(session=session, epoch=self.next_epoch(), **members)

    def apply(self, asked: Operation) -> Operation:
        before = self.record
        known, detail, shown = self.decide(asked)
        if clears_due(asked) and self.record is not before:
            self.due.clear()
        told = self.record.epoch if detail == "conflict" and self.record is not None else None
        return replace(asked, known=known, detail=detail, record=shown, told_epoch=told)

    def decide(self, asked: Operation) -> tuple[Known, str, RecordView | None]:
        record = self.record
        if asked.function == "create_entity":
            if asked.session in self.ended:
                return Known.REFUSED, "no_session", None
            if record is not None:
                return Known.REFUSED, "entity_exists", None
            self.record = RecordView(
                owner=asked.owner or "",
                master=asked.master or "",
                rule=asked.value or "",
                session=asked.session,
                epoch=self.next_epoch(),
                version=1,
            )
            return Known.OK, "", self.record
        if record is None:
            return Known.REFUSED, "no_entity", None
        holder = record.session == asked.session and record.epoch == asked.epoch
        may = asked.by in (record.owner, record.master, "operator")
        match asked.function:
            case "give" | "push" | "release" if not holder:
                return Known.REFUSED, "not_holder", None
            case "give":
                return Known.OK, "", self.changed(owner=asked.owner)
            case "release":
                return Known.OK, "", self.changed(session=None)
            case "push":
                target = SERVERS[asked.to or ""]
                if target == asked.session or target in self.ended:
                    return Known.REFUSED, "no_server", None
                return Known.OK, "", self.changed(session=target, epoch=self.next_epoch(), owner=asked.owner)
            case "pull":
                if asked.session in self.ended:
                    return Known.REFUSED, "no_session", None
                if record.session == asked.session:
                    return Known.REFUSED, "already_held", None
                if record.epoch != asked.epoch:
                    return Known.REFUSED, "conflict", None
                if record.rule != "allow" and asked.owner not in (record.owner, record.master):
                    return Known.REFUSED, "denied", None
                return Known.OK, "", self.granted(asked.session, owner=asked.owner)
            case "claim":
                if asked.session in self.ended:
                    return Known.REFUSED, "no_session", None
                if record.session in (None, asked.session):
                    return Known.REFUSED, "not_holder", None
                return Known.OK, "", self.granted(asked.session, owner=asked.owner)
            case "request":
                return self.requested(asked, record)
            case "leave":
                if record.owner == asked.player != record.master:
                    self.changed(owner=record.master)
                return Known.UNKNOWN, "", None
            case "transfer" | "revoke" if not may:
                return Known.REFUSED, "not_owner", None
            case "transfer" | "revoke":
                to = asked.to if asked.function == "transfer" else record.master
                return Known.OK, "", record if record.owner == to else self.changed(owner=to)
            case _ if asked.by not in (record.master, "operator"):
                return Known.REFUSED, "not_master", None
            case "delete_entity":
                gone = self.changed(session=None, epoch=self.next_epoch(), deleted=True)
                self.record = None
                return Known.OK, "", gone
            case "set_master":
                same = record.master == asked.value
                return Known.OK, "", record if same else self.changed(master=asked.value)
            case _:
                return Known.OK, "", record if record.rule == asked.value else self.changed(rule=asked.value)

    def requested(self, asked: Operation, record: RecordView) -> tuple[Known, str, RecordView | None]:
        if asked.session in self.ended:
            return Known.REFUSED, "no_player", None
        if record.owner == asked.player and (not asked.authority or record.session == asked.session):
            return Known.REFUSED, "already_owner", None
        if record.owner != asked.owner or (asked.authority and record.epoch != asked.epoch):
            return Known.REFUSED, "conflict", None
        if record.rule == "ask" and asked.player != record.master:
            return Known.OK, "pending", record
        if record.rule == "deny" and asked.player not in (record.owner, record.master):
            return Known.REFUSED, "denied", None
        if asked.authority and record.session != asked.session:
            return Known.OK, "granted", self.granted(asked.session, owner=asked.player)
        return Known.OK, "granted", self.changed(owner=asked.player)

    def end_one(self) -> None:
        """A session ends; what it holds passes on, or is dormant."""
        live = self.live()
        if len(live) < 2:
            return
        session = self.rng.choice(live)
        self.ended.add(session)
        if self.record is not None and self.record.session == session:
            if self.rng.random() < 0.5:
                self.changed(session=None)
            else:
                self.changed(session=self.rng.choice(self.live()), epoch=self.next_epoch())
                self.due.discard(self.record.session or b"")
        elif session in self.due:
            self.changed()
        self.due.discard(session)


def ask(rng: random.Random, reference: Reference) -> Operation:
    function = rng.choice(FUNCTIONS)
    record = reference.record
    epoch = 0 if record is None else record.epoch - (rng.random() < 0.2)
    server = rng.choice(sorted(SERVERS))
    holds = record is not None and record.session is not None and rng.random() < 0.7
    session = record.session if holds and record is not None and function != "pull" else SERVERS[server]
    return Operation(
        client=server,
        function=function,
        entity="ball",
        called_ns=0,
        session=session,
        epoch=epoch,
        owner=rng.choice(PLAYERS) if record is None or rng.random() < 0.5 else record.owner,
        player=rng.choice(PLAYERS),
        authority=rng.random() < 0.5,
        master=rng.choice(PLAYERS),
        to=rng.choice(sorted(SERVERS)) if function == "push" else rng.choice(PLAYERS),
        by=rng.choice((*PLAYERS, "operator")),
        value=rng.choice(PLAYERS if function == "set_master" else ("allow", "allow", "deny", "ask")),
    )


def random_history(
    seed: int, length: int, *, unanswered: float = 0.08
) -> tuple[list[Operation], frozenset[bytes]]:
    """A valid history with overlapping operations, unanswered ones and sessions that end, and who is left."""
    rng = random.Random(seed)
    reference = Reference(rng)
    history = []
    for turn in range(1, length):
        if rng.random() < 0.03:
            reference.end_one()
        at = turn * 100
        asked = replace(ask(rng, reference), called_ns=at - rng.randint(0, 350))
        if asked.function != "delete_entity" and (rng.random() < unanswered or asked.function == "leave"):
            if rng.random() < 0.5:
                reference.apply(asked)
                if asked.function == "leave":
                    asked = replace(asked, until_ns=at + rng.randint(0, 350))
            history.append(asked)
            continue
        history.append(replace(reference.apply(asked), answered_ns=at + rng.randint(0, 350)))
    end = Operation(
        client="end",
        function="read",
        entity="ball",
        called_ns=length * 1000,
        answered_ns=length * 1000,
        known=Known.OK,
        record=reference.record,
    )
    rng.shuffle(history)
    return [*history, end], frozenset(reference.live())


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 60))
def test_every_valid_history_passes(seed: int, length: int) -> None:
    history, live = random_history(seed, length)
    assert check_entity(history, open_sessions=live) is None


def test_a_long_valid_history_passes() -> None:
    history, live = random_history(5, 1_500)
    assert check_entity(history, open_sessions=live) is None


def test_a_long_history_in_which_a_sixth_was_not_answered_is_decided() -> None:
    """Whoever might have ended, and with every tenth version of nobody's known making."""
    history, _ = random_history(7, 1_500, unanswered=0.16)
    assert check_entity(history) is None


def test_what_does_not_fit_is_found_among_many_that_were_not_answered() -> None:
    history, live = random_history(7, 800, unanswered=0.16)
    granted = [
        number for number, one in enumerate(history) if one.known is Known.OK and one.function == "pull"
    ]
    number = granted[len(granted) // 2]
    history[number] = _epoch_again(history[number])
    found = check_entity(history, open_sessions=live)
    assert found is not None
    assert not found.undecided


def test_a_search_that_becomes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.authority.linearizability.MAX_STATES", -1_000)
    found = check_entity([created(), pulled(20, 2, 2)])
    assert found is not None
    assert found.undecided


def spoilt(history: list[Operation], rng: random.Random) -> list[Operation]:
    """The history with up to three operations that are missing, or were answered otherwise."""
    spoilt = [replace(operation, until_ns=None) for operation in history]
    for _ in range(rng.randrange(4)):
        number = rng.randrange(len(spoilt))
        operation = spoilt[number]
        told, view = operation.told_epoch, operation.record
        match rng.randrange(8):
            case 0 if len(spoilt) > 1:
                del spoilt[number]
            case 1:
                spoilt[number] = unknown(operation)
            case 2:
                called, answered = operation.called_ns + 200, operation.answered_ns + 200
                spoilt[number] = replace(operation, called_ns=called, answered_ns=answered)
            case 3 if told is not None:
                spoilt[number] = replace(operation, told_epoch=told + rng.choice((-1, 1)))
            case 4 if view is not None:
                shown = replace_view(view, version=max(1, view.version + rng.choice((-1, 1))))
                spoilt[number] = replace(operation, record=shown)
            case 5 if view is not None:
                shown = replace_view(view, epoch=view.epoch + rng.choice((-1, 1, 2)))
                spoilt[number] = replace(operation, record=shown)
            case 6 if view is not None:
                shown = replace_view(view, session=rng.choice((None, A, B, C)))
                spoilt[number] = replace(operation, record=shown)
            case 7 if view is not None:
                spoilt[number] = replace(operation, record=replace_view(view, owner=rng.choice(PLAYERS)))
    return spoilt


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(2, 8))
def test_the_search_says_what_trying_all_orders_says(seed: int, length: int) -> None:
    """R0-41: what is left out makes no difference, in good histories and in broken ones."""
    rng = random.Random(seed)
    history, live = random_history(seed, length)
    history = spoilt(history if rng.random() < 0.6 else history[:-1], rng)
    open_sessions = rng.choice((live, live, OPEN, None))
    searched, start = begun(in_one_life(history))
    orders = Exhaustive(searched, open_sessions, start.version, start.record, due=start.due)
    assert (check_entity(history, open_sessions=open_sessions) is None) == orders.succeeds()


def _epoch_again(operation: Operation) -> Operation:
    assert operation.record is not None
    return replace(operation, record=replace_view(operation.record, epoch=operation.record.epoch + 1000))


def _another_owner(operation: Operation) -> Operation:
    assert operation.record is not None
    return replace(operation, record=replace_view(operation.record, owner="Mallory"))


def _version_again(operation: Operation) -> Operation:
    assert operation.record is not None
    return replace(operation, record=replace_view(operation.record, version=operation.record.version + 50))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), data=st.data())
@pytest.mark.parametrize("spoil", [_epoch_again, _another_owner, _version_again])
def test_a_granted_answer_that_is_changed_is_found(
    spoil: Callable[[Operation], Operation], seed: int, data: st.DataObject
) -> None:
    """Nobody else can have made what was answered, whatever the history.

    But for deletions: who had it, and at which epoch it went, shows nowhere again.
    """
    history, live = random_history(seed, 40)
    granted = [
        number
        for number, one in enumerate(history)
        if one.known is Known.OK and one.record is not None and one.function not in ("read", "delete_entity")
    ]
    if not granted:
        return
    number = data.draw(st.sampled_from(granted))
    history[number] = spoil(history[number])
    found = check_entity(history, open_sessions=live)
    assert found is not None
    assert not found.undecided
