from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import DecodeError
from bridge.etf import Atom
from bridge.registry import (
    Ask,
    AskEnded,
    Awaiting,
    Away,
    Closed,
    EntityRecord,
    Failover,
    Grant,
    Outcome,
    PlayerRecord,
    Recall,
    Returned,
    Rule,
    ServerRecord,
    Step,
    inbox_message,
)
from bridge.registry.records import outcome_of
from tests.support.terms import terms

SESSION = b"s" * 16
OTHER = b"o" * 16
TRACE = b"t" * 16
UNDEFINED = Atom("undefined")


def term(**members: Any) -> dict[Atom, Any]:
    return {Atom(name): value for name, value in members.items()}


ENTITY = term(
    entity=b"ball",
    owner=b"Player1",
    master=b"Player2",
    rule=Atom("ask"),
    session=SESSION,
    server=b"sim1",
    epoch=(1 << 48) + 7,
    awaiting=UNDEFINED,
    home=b"local",
    version=3,
)
SERVER = term(server=b"sim1", session=SESSION, key=b"{}", thumbprint=b"x" * 43, address=(b"127.0.0.1", 4000))
GRANT = {
    Atom("type"): Atom("grant"),
    Atom("from"): b"sim1",
    **term(entity=b"ball", epoch=8, previous=7, owner=b"Player2", box=b"a.b", trace=TRACE, hop=1),
}
FAILOVER = {
    Atom("type"): Atom("failover"),
    Atom("from"): b"sim1",
    **term(entity=b"ball", epoch=9, previous=7, owner=b"Player2", awaiting=UNDEFINED, trace=TRACE, hop=1),
}
RECALL = {
    Atom("type"): Atom("recall"),
    **term(entity=b"ball", epoch=7, granted=8, to=b"sim2", owner=b"P", trace=TRACE, hop=1, unread=UNDEFINED),
}

ASK = {
    Atom("type"): Atom("ask"),
    **term(entity=b"gun", player=b"P", server=b"sim2", owner=b"O", master=b"M", authority=True),
    **term(expires=1_800_000_000_000, trace=TRACE, hop=1),
}
ENDED = {
    Atom("type"): Atom("outcome"),
    **term(entity=b"ball", player=b"P", outcome=Atom("conflict"), record=ENTITY, asked=TRACE),
    **term(trace=TRACE, hop=3),
}

CLOSED = {
    Atom("type"): Atom("closed"),
    **term(entity=b"ball", epoch=9, instance=b"ruby", to=b"sim2", transfer=8, trace=TRACE, hop=3),
}
RETURNED = {
    Atom("type"): Atom("returned"),
    **term(entity=b"ball", epoch=9, reason=Atom("no_server"), trace=TRACE, hop=3),
}

DECODERS: list[tuple[Callable[[Any], object], dict[Atom, Any]]] = [
    (EntityRecord.from_term, ENTITY),
    (ServerRecord.from_term, SERVER),
    (inbox_message, GRANT),
    (inbox_message, FAILOVER),
    (inbox_message, RECALL),
    (inbox_message, ASK),
    (inbox_message, ENDED),
    (inbox_message, {k: v for k, v in CLOSED.items() if k != Atom("transfer")}),
    (inbox_message, RETURNED),
    (Step.from_term, term(trace=TRACE, hop=1)),
]


def test_an_entity_record_names_owner_master_and_authority() -> None:
    """R0-9."""
    record = EntityRecord.from_term(ENTITY)
    assert (record.owner, record.master, record.server) == ("Player1", "Player2", "sim1")
    assert (record.rule, record.epoch, record.version) == (Rule.ASK, (1 << 48) + 7, 3)
    assert (record.session, record.awaiting, record.home) == (SESSION, None, "local")


def test_a_dormant_entity_has_no_session_and_no_server() -> None:
    record = EntityRecord.from_term(ENTITY | term(session=UNDEFINED, server=UNDEFINED))
    assert (record.session, record.server) == (None, None)


def test_what_an_entity_awaits_is_decoded() -> None:
    older = term(session=OTHER, server=b"sim3", epoch=5)
    awaited = term(session=SESSION, server=b"sim2", epoch=6, awaiting=older)
    record = EntityRecord.from_term(ENTITY | term(awaiting=awaited))
    oldest = Awaiting(session=OTHER, server="sim3", epoch=5)
    assert record.awaiting == Awaiting(session=SESSION, server="sim2", epoch=6, awaiting=oldest)


def test_a_deleted_entity_is_told_from_one_that_is_only_dormant() -> None:
    assert not EntityRecord.from_term(ENTITY).is_deleted
    assert EntityRecord.from_term(ENTITY | term(deleted=True)).is_deleted


def test_records_of_one_name_are_ordered_over_the_lives_of_all_that_had_it() -> None:
    record = EntityRecord.from_term(ENTITY)
    later = replace(record, version=record.version + 1)
    again = replace(record, epoch=record.epoch + 1, version=1)
    assert record.age < later.age < again.age


def test_a_recall_of_a_deleted_entity_is_for_nobody() -> None:
    message = inbox_message(RECALL | term(to=UNDEFINED))
    assert isinstance(message, Recall)
    assert message.taker is None


def test_what_is_due_to_a_grant_is_read_from_the_whole_chain_of_waits() -> None:
    """docs/authority-model.md, MIDDLE_WAITS: the record is no longer its own."""
    oldest = Awaiting(session=b"a" * 16, server="sim1", epoch=5)
    middle = Awaiting(session=b"b" * 16, server="sim2", epoch=6, awaiting=oldest)
    record = replace(EntityRecord.from_term(ENTITY), session=b"c" * 16, epoch=7, awaiting=middle)
    assert record.due_to(b"c" * 16, 7) == middle
    assert record.due_to(b"b" * 16, 6) == oldest
    assert record.due_to(b"a" * 16, 5) is None
    for session, epoch in ((b"b" * 16, 7), (b"d" * 16, 6)):
        with pytest.raises(LookupError, match="names no grant"):
            record.due_to(session, epoch)


@pytest.mark.parametrize(
    ("awaiting", "due"),
    [
        (UNDEFINED, None),
        (term(session=OTHER, server=b"sim3", epoch=5), Awaiting(session=OTHER, server="sim3", epoch=5)),
    ],
)
def test_a_failover_carries_no_release_but_what_is_due(awaiting: Any, due: Awaiting | None) -> None:
    assert inbox_message(FAILOVER | term(awaiting=awaiting)) == Failover(
        entity="ball",
        epoch=9,
        previous=7,
        giver="sim1",
        owner="Player2",
        awaiting=due,
        step=Step(trace=TRACE, hop=1),
    )


def test_a_player_record_says_where_the_player_is() -> None:
    record = PlayerRecord.from_term(term(player=b"Ann", session=SESSION, server=b"sim1"))
    assert record == PlayerRecord(player="Ann", session=SESSION, server="sim1")


def test_a_server_record_says_where_to_reach_it() -> None:
    record = ServerRecord.from_term(SERVER)
    assert (record.server, record.host, record.port) == ("sim1", "127.0.0.1", 4000)
    assert ServerRecord.from_term(SERVER | term(session=UNDEFINED)).session is None


def test_a_grant_carries_the_givers_release() -> None:
    assert inbox_message(GRANT) == Grant(
        entity="ball",
        epoch=8,
        previous=7,
        giver="sim1",
        owner="Player2",
        box="a.b",
        step=Step(trace=TRACE, hop=1),
    )


def test_a_grant_from_another_instance_brings_the_givers_key() -> None:
    giver = SERVER | term(instance=b"ruby", epoch=7)
    grant = inbox_message(GRANT | term(abroad=giver))
    assert isinstance(grant, Grant)
    assert grant.abroad is not None
    assert grant.giver == grant.abroad.server == "sim1@ruby"
    assert (grant.abroad.thumbprint, grant.abroad.session, grant.abroad.port) == ("x" * 43, SESSION, 4000)
    with pytest.raises(DecodeError, match="without key"):
        inbox_message(GRANT | term(abroad={k: v for k, v in giver.items() if k != Atom("key")}))


def test_an_entity_may_be_at_another_instance_or_on_its_way() -> None:
    for state, in_escrow in (("escrow", True), ("gone", False)):
        away = term(instance=b"ruby", transfer=8, state=Atom(state))
        record = EntityRecord.from_term(ENTITY | term(away=away, session=UNDEFINED, server=UNDEFINED))
        assert record.away == Away(instance="ruby", in_escrow=in_escrow)
        known = EntityRecord.from_term(ENTITY | term(away=away | term(server=b"sim2")))
        assert known.away == Away(instance="ruby", in_escrow=in_escrow, holder="sim2@ruby")
    assert EntityRecord.from_term(ENTITY).away is None


def test_who_gave_an_entity_away_hears_what_became_of_it() -> None:
    step = Step(trace=TRACE, hop=3)
    assert inbox_message(CLOSED) == Closed(entity="ball", epoch=9, holder="sim2@ruby", step=step)
    assert inbox_message(RETURNED) == Returned(entity="ball", epoch=9, reason="no_server", step=step)
    named = inbox_message(RETURNED | term(reason="Grün".encode()))
    assert isinstance(named, Returned)
    assert named.reason == "Grün"


@pytest.mark.parametrize("news", [GRANT, FAILOVER], ids=["grant", "failover"])
def test_a_recall_keeps_the_grant_that_it_replaced(news: dict[Atom, Any]) -> None:
    plain = inbox_message(RECALL)
    assert isinstance(plain, Recall)
    assert (plain.epoch, plain.granted, plain.taker, plain.unread) == (7, 8, "sim2", None)
    kept = inbox_message(RECALL | term(unread=news))
    assert isinstance(kept, Recall)
    assert kept.unread == inbox_message(news)


def test_an_ask_says_who_asks_for_what() -> None:
    assert inbox_message(ASK) == Ask(
        entity="gun",
        player="P",
        server="sim2",
        owner="O",
        master="M",
        authority=True,
        expires_ms=1_800_000_000_000,
        step=Step(trace=TRACE, hop=1),
    )


def test_the_end_of_an_ask_says_what_became_of_it() -> None:
    assert inbox_message(ENDED) == AskEnded(
        entity="ball",
        player="P",
        outcome=Outcome.CONFLICT,
        record=EntityRecord.from_term(ENTITY),
        asked=TRACE,
        step=Step(trace=TRACE, hop=3),
    )


@pytest.mark.parametrize("bad", [Atom("whim"), b"granted", 7])
def test_an_outcome_is_one_of_those_there_are(bad: object) -> None:
    assert outcome_of(term(outcome=Atom("granted"))) is Outcome.GRANTED
    with pytest.raises(DecodeError, match="no outcome"):
        outcome_of(term(outcome=bad))


@pytest.mark.parametrize("bad", [Atom("yes"), 1, b"true"])
def test_a_flag_is_true_or_false(bad: object) -> None:
    with pytest.raises(DecodeError, match="authority is no boolean"):
        inbox_message(ASK | term(authority=bad))


def test_ownership_falls_to_the_master_where_nobody_is_named() -> None:
    """R0-7."""
    assert EntityRecord.from_term(ENTITY | term(default_owner=UNDEFINED)).default_owner is None
    assert EntityRecord.from_term(ENTITY | term(default_owner=b"Player3")).default_owner == "Player3"


def test_the_step_of_a_message_that_another_one_causes_is_one_hop_further() -> None:
    assert Step(trace=TRACE, hop=1).next() == Step(trace=TRACE, hop=2)


@pytest.mark.parametrize(
    "bad",
    [
        term(epoch=-1),
        term(epoch=b"7"),
        term(epoch=Atom("true")),
        term(rule=Atom("whim")),
        term(rule=b"allow"),
        term(owner=UNDEFINED),
        term(session=7),
        term(server=[b"sim1"]),
        term(awaiting=b"sim1"),
        term(awaiting=term(epoch=1)),
    ],
)
def test_a_member_of_another_type_is_refused(bad: dict[Atom, Any]) -> None:
    with pytest.raises(DecodeError):
        EntityRecord.from_term(ENTITY | bad)


@pytest.mark.parametrize("address", [(b"h", 0), (b"h", 65_536), (b"h",), b"h:1", ("h", 1), (b"h", b"1")])
def test_an_address_is_a_host_and_a_port(address: object) -> None:
    with pytest.raises(DecodeError, match="no address"):
        ServerRecord.from_term(SERVER | term(address=address))


def test_an_inbox_message_is_a_grant_or_a_recall() -> None:
    with pytest.raises(DecodeError, match="no inbox message"):
        inbox_message(GRANT | term(type=Atom("gift")))


@pytest.mark.parametrize(("decode", "whole"), DECODERS)
def test_every_member_is_needed_and_its_absence_named(
    decode: Callable[[Any], object], whole: dict[Atom, Any]
) -> None:
    may_be_absent = {Atom("awaiting"), Atom("unread")}
    used = {Atom("trace"), Atom("hop")} | set(whole) - may_be_absent
    for name in used & set(whole):
        less = {key: value for key, value in whole.items() if key != name}
        if name in (Atom("session"), Atom("server")) and whole is ENTITY:
            continue  # an absent holder is a dormant entity
        if name == Atom("session") and whole is SERVER:
            continue
        with pytest.raises(DecodeError, match=f"without {name}"):
            decode(less)


@given(terms, st.sampled_from(DECODERS), st.data())
def test_any_term_is_a_record_or_a_decode_error(
    odd: object, example: tuple[Callable[[Any], object], dict[Atom, Any]], data: st.DataObject
) -> None:
    decode, whole = example
    member = data.draw(st.sampled_from(sorted(whole, key=str)))
    for candidate in (odd, {**whole, member: odd}):
        try:
            decode(candidate)
        except DecodeError:
            continue
