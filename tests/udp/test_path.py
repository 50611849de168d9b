from __future__ import annotations

from bridge.udp.path import CHALLENGE_DATAGRAM_BYTES, PathValidation

OLD, NEW = ("192.0.2.1", 1), ("192.0.2.2", 2)


def should(path: PathValidation, *, size: int = CHALLENGE_DATAGRAM_BYTES, now: float = 0.0) -> bool:
    return path.should_challenge(NEW, size=size, now=now, interval=1.0)


def test_a_datagram_shorter_than_a_challenge_is_not_answered_by_one() -> None:
    assert not should(PathValidation(), size=CHALLENGE_DATAGRAM_BYTES - 1)
    assert should(PathValidation())


def test_one_address_is_challenged_once_in_a_round_trip() -> None:
    path = PathValidation()
    path.challenge(NEW, b"12345678", now=0.0)
    assert not should(path, now=0.9)
    assert should(path, now=1.0)


def test_only_the_right_token_from_the_challenged_address_proves_it_and_only_once() -> None:
    path = PathValidation()
    assert not path.respond(NEW, b"")
    path.challenge(NEW, b"12345678", now=0.0)
    assert not path.respond(NEW, b"87654321")
    assert not path.respond(OLD, b"12345678")
    assert path.respond(NEW, b"12345678")
    assert not path.respond(NEW, b"12345678")
