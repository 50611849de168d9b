from __future__ import annotations

from typing import Any

import pytest

from bridge.jose import SignedBoxClaims
from bridge.udp.admission import Admission
from bridge.udp.config import UdpConfig

HERE = ("192.0.2.1", 1)
NOW_MS = 1_800_000_000_000
SENDER = "A" * 43
OTHER = "E" * 43


def admission(**settings: float) -> Admission:
    return Admission(UdpConfig(**settings), cookie_secret=bytes(32))  # type: ignore[arg-type]


def may_check(
    tried: Admission,
    *,
    proven: str | None = None,
    pending: int = 0,
    of_peer: int = 0,
    sender: str = SENDER,
    later_ms: int = 0,
) -> bool:
    return tried.may_check(
        sender=sender,
        proven=None if proven is None else (proven, 1),
        pending=pending,
        pending_of_peer=of_peer,
        unix_ms=NOW_MS + later_ms,
        now=100.0,
    )


def claims(number: int, *, sender: str = SENDER) -> SignedBoxClaims:
    return SignedBoxClaims(
        sender=sender,
        recipient="A" * 43,
        session=number.to_bytes(16, "big"),
        sequence=0,
        issued_at_ms=NOW_MS,
        lifetime_ms=10_000,
        purpose="init",
        direction="i",
    )


def test_strangers_have_so_many_checks_and_those_with_a_cookie_others() -> None:
    tried = admission(handshakes_per_second=0.001, handshake_burst=16)
    assert [may_check(tried) for _ in range(17)] == [True] * 16 + [False]
    assert [may_check(tried, proven="192.0.2.7") for _ in range(3)] == [True, True, False]
    assert may_check(tried, proven="192.0.2.8")
    assert tried.may_check_reply(now=100.0)
    assert tried.checked == 20


@pytest.mark.parametrize(("pending", "of_peer"), [(256, 0), (0, UdpConfig().max_pending_per_peer)])
def test_handshakes_under_way_are_bounded(pending: int, of_peer: int) -> None:
    assert not may_check(admission(), pending=pending, of_peer=of_peer)


def test_load_is_half_of_a_limit() -> None:
    tried = admission(handshakes_per_second=0.001, handshake_burst=4)
    assert not tried.is_loaded(pending=128, now=100.0)
    assert tried.is_loaded(pending=129, now=100.0)
    for _ in range(3):
        may_check(tried)
    assert tried.is_loaded(pending=0, now=100.0)


def test_a_cookie_is_for_one_box_from_one_address() -> None:
    tried = admission()
    cookie = tried.bake(b"box", HERE, unix_ms=NOW_MS)
    assert tried.is_proven(cookie, b"box", HERE, unix_ms=NOW_MS)
    assert not tried.is_proven(cookie, b"other", HERE, unix_ms=NOW_MS)
    assert not tried.is_proven(cookie, b"box", ("192.0.2.1", 2), unix_ms=NOW_MS)
    assert not tried.is_proven(b"", b"box", HERE, unix_ms=NOW_MS)
    assert tried.retries == 1


def test_what_was_let_through_is_not_let_through_again() -> None:
    tried = admission()
    assert not tried.is_replayed(claims(1))
    tried.remember(claims(1))
    assert tried.is_replayed(claims(1))
    assert not tried.is_replayed(claims(2))


def test_a_peer_that_begins_again_and_again_uses_up_nothing_but_its_own() -> None:
    """A box may live for a minute, and be of half a minute from now: thousands at 200 a second."""
    tried = admission(handshakes_per_second=1e6, handshake_burst=100_000)
    let_through = 0
    while may_check(tried):
        tried.remember(claims(let_through))
        let_through += 1
    assert let_through < 1000
    assert may_check(tried, sender=OTHER)
    tried.remember(claims(0, sender=OTHER))
    assert tried.is_replayed(claims(0))
    assert tried.is_replayed(claims(0, sender=OTHER))
    assert not may_check(tried, later_ms=40_000)
    assert may_check(tried, later_ms=41_001)
    assert not tried.is_replayed(claims(0))


def test_to_ask_when_all_is_full_costs_a_look_at_all_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.udp.admission._MAX_REMEMBERED", 2)
    tried = admission()
    for number in range(2):
        tried.remember(claims(number))
        tried.remember(claims(number))
    looks: list[int] = []

    class Watched(dict[str, dict[tuple[bytes, int], int]]):
        def items(self) -> Any:
            looks.append(1)
            return super().items()

    for later_ms in (0, 1, 999, 1000, -5):
        tried._remembered = Watched(tried._remembered)
        assert not may_check(tried, later_ms=later_ms)
    assert len(looks) == 3
