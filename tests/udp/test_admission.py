from __future__ import annotations

import pytest

from bridge.jose import SignedBoxClaims
from bridge.udp.admission import Admission
from bridge.udp.config import UdpConfig

HERE = ("192.0.2.1", 1)
NOW_MS = 1_800_000_000_000


def admission(**settings: float) -> Admission:
    return Admission(UdpConfig(**settings), cookie_secret=bytes(32))  # type: ignore[arg-type]


def may_check(tried: Admission, *, proven: str | None = None, pending: int = 0, of_peer: int = 0) -> bool:
    address = None if proven is None else (proven, 1)
    return tried.may_check(
        proven=address, pending=pending, pending_of_peer=of_peer, unix_ms=NOW_MS, now=100.0
    )


def claims(number: int) -> SignedBoxClaims:
    return SignedBoxClaims(
        sender="A" * 43,
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
