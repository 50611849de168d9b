"""What is asked of the homeservers, as the checker of histories reads it."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.authority import Called, Entry, Known, RecordView, Replied
from bridge.etf import Atom
from bridge.registry import ConflictError, Journal

SESSION = bytes(range(16))


def record(**members: Any) -> dict[Atom, Any]:
    """An entity's record as the homeserver answers it."""
    values = {
        "entity": b"ball",
        "owner": b"Ann",
        "master": b"Bob",
        "default_owner": Atom("undefined"),
        "rule": Atom("ask"),
        "session": SESSION,
        "server": b"a",
        "epoch": 7,
        "awaiting": Atom("undefined"),
        "home": b"local",
        "version": 3,
    }
    return {Atom(name): value for name, value in (values | members).items()}


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 1
        return self.now


@pytest.fixture
def written() -> list[Entry]:
    return []


@pytest.fixture
def journal(written: list[Entry]) -> Journal:
    return Journal("a-1", written.append, Clock())


def test_a_request_and_its_answer_are_recorded(journal: Journal, written: list[Entry]) -> None:
    request = {"entity": b"ball", "owner": b"Ann", "epoch": 4, "session": SESSION, "trace": b"x"}
    journal.granted(journal.called("pull", request), record())
    assert written == [
        Called(
            client="a-1",
            number=1,
            function="pull",
            at_ns=1,
            entity="ball",
            session=SESSION,
            epoch=4,
            owner="Ann",
        ),
        Replied(
            client="a-1",
            number=1,
            at_ns=2,
            known=Known.OK,
            record=RecordView(owner="Ann", master="Bob", rule="ask", session=SESSION, epoch=7, version=3),
        ),
    ]


@pytest.mark.parametrize(
    ("function", "request_", "value", "master", "by"),
    [
        ("create_entity", {"rule": Atom("deny"), "master": b"Bob"}, "deny", "Bob", None),
        ("set_rule", {"rule": Atom("deny"), "by": Atom("operator")}, "deny", None, "operator"),
        ("set_master", {"master": b"Bob", "by": b"Ann"}, "Bob", None, "Ann"),
        ("set_default_owner", {"default_owner": Atom("undefined"), "by": b"Ann"}, None, None, "Ann"),
        ("answer", {"grant": False, "by": b"Ann"}, "False", None, "Ann"),
    ],
)
def test_what_is_set_is_recorded_as_the_checker_wants_it(
    journal: Journal,
    written: list[Entry],
    function: str,
    request_: dict[str, Any],
    value: str | None,
    master: str | None,
    by: str | None,
) -> None:
    journal.called(function, request_)
    (called,) = written
    assert isinstance(called, Called)
    assert (called.value, called.master, called.by) == (value, master, by)


def test_an_answer_without_a_record_is_recorded(journal: Journal, written: list[Entry]) -> None:
    journal.granted(journal.called("close_session", {"session": SESSION}), {Atom("released"): []})
    assert isinstance(written[1], Replied)
    assert written[1].record is None


def test_what_a_leaving_player_passed_on_is_recorded(journal: Journal, written: list[Entry]) -> None:
    answer = {Atom("passed"): [b"ball", b"cup"], Atom("next"): Atom("undefined")}
    journal.granted(journal.called("leave", {"player": b"Ann", "session": SESSION, "bucket": 0}), answer)
    journal.granted(
        journal.called("close_session", {"session": SESSION}), {Atom("passed"): [(b"ball", b"b")]}
    )
    assert [entry.passed for entry in written if isinstance(entry, Replied)] == [["ball", "cup"], []]


def test_a_pending_request_is_recorded_as_one(journal: Journal, written: list[Entry]) -> None:
    answer = record() | {Atom("outcome"): Atom("pending"), Atom("expires"): 1}
    journal.granted(journal.called("request", {"entity": b"ball"}), answer)
    assert isinstance(written[1], Replied)
    assert written[1].detail == "pending"


def test_a_refusal_is_recorded_with_what_it_told(journal: Journal, written: list[Entry]) -> None:
    number = journal.called("pull", {"entity": b"ball"})
    error = ConflictError("no", reason=Atom("conflict"), props={"epoch": 9, "winner": b"b"})
    journal.refused(number, error)
    refused = written[1]
    assert isinstance(refused, Replied)
    assert (refused.known, refused.detail, refused.told_epoch) == (Known.REFUSED, "conflict", 9)
