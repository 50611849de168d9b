"""Records of the tree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bridge.errors import DecodeError
from bridge.etf import Atom
from bridge.registry import Awaiting, Away, EntityRecord, Outcome, PlayerRecord, Rule, ServerRecord, Step
from bridge.registry.records import outcome_of
from tests.support.records import ENTITY, OTHER, SERVER, SESSION, TRACE, UNDEFINED, term


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


def test_a_player_record_says_where_the_player_is() -> None:
    record = PlayerRecord.from_term(term(player=b"Ann", session=SESSION, server=b"sim1"))
    assert record == PlayerRecord(player="Ann", session=SESSION, server="sim1")


def test_a_server_record_says_where_to_reach_it() -> None:
    record = ServerRecord.from_term(SERVER)
    assert (record.server, record.host, record.port) == ("sim1", "127.0.0.1", 4000)
    assert ServerRecord.from_term(SERVER | term(session=UNDEFINED)).session is None


def test_an_entity_may_be_at_another_instance_or_on_its_way() -> None:
    for state, in_escrow in (("escrow", True), ("gone", False)):
        away = term(instance=b"ruby", transfer=8, state=Atom(state))
        record = EntityRecord.from_term(ENTITY | term(away=away, session=UNDEFINED, server=UNDEFINED))
        assert record.away == Away(instance="ruby", in_escrow=in_escrow)
        known = EntityRecord.from_term(ENTITY | term(away=away | term(server=b"sim2")))
        assert known.away == Away(instance="ruby", in_escrow=in_escrow, holder="sim2@ruby")
    assert EntityRecord.from_term(ENTITY).away is None


@pytest.mark.parametrize("bad", [Atom("whim"), b"granted", 7])
def test_an_outcome_is_one_of_those_there_are(bad: object) -> None:
    assert outcome_of(term(outcome=Atom("granted"))) is Outcome.GRANTED
    with pytest.raises(DecodeError, match="no outcome"):
        outcome_of(term(outcome=bad))


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
