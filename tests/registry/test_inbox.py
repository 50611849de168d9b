"""What a session is told by its inbox."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import DecodeError
from bridge.etf import Atom
from bridge.registry import (
    Ask,
    AskEnded,
    Awaiting,
    Closed,
    EntityRecord,
    Failover,
    Grant,
    Outcome,
    Recall,
    Returned,
    Step,
    inbox_message,
)
from tests.support.records import (
    ASK,
    CLOSED,
    ENDED,
    ENTITY,
    FAILOVER,
    GRANT,
    OTHER,
    RECALL,
    RETURNED,
    SERVER,
    SESSION,
    TRACE,
    UNDEFINED,
    term,
)


def test_a_recall_of_a_deleted_entity_is_for_nobody() -> None:
    message = inbox_message(RECALL | term(to=UNDEFINED))
    assert isinstance(message, Recall)
    assert message.taker is None


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


def test_an_inbox_message_is_a_grant_or_a_recall() -> None:
    with pytest.raises(DecodeError, match="no inbox message"):
        inbox_message(GRANT | term(type=Atom("gift")))
