from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.udp.cookie import SECRET_BYTES, CookieJar
from bridge.udp.wire import (
    COOKIE_BYTES,
)

ADDRESS = ("192.0.2.1", 4000)
BOX = b"a box"
SECRET = bytes(range(SECRET_BYTES))


def jar() -> CookieJar:
    return CookieJar(SECRET, lifetime=10.0)


def test_a_cookie_is_its_time_and_an_authenticator_of_time_address_and_box() -> None:
    message = (1000).to_bytes(4, "big") + b"\x0e192.0.2.1|4000" + hashlib.sha256(BOX).digest()
    expected = (1000).to_bytes(4, "big") + hmac.digest(SECRET, message, "sha256")[:16]
    assert jar().bake(BOX, ADDRESS, unix_seconds=1000) == expected
    assert len(expected) == COOKIE_BYTES


@given(st.binary(max_size=64), st.sampled_from(["::1", "fe80::1%eth0", "192.0.2.9"]), st.integers(1, 65535))
def test_a_cookie_is_accepted_from_where_it_was_sent(box: bytes, host: str, port: int) -> None:
    cookie = jar().bake(box, (host, port), unix_seconds=7)
    assert jar().accepts(cookie, box, (host, port), unix_seconds=7)


@pytest.mark.parametrize(
    ("box", "address"),
    [(b"another", ADDRESS), (BOX, ("192.0.2.1", 4001)), (BOX, ("192.0.2.2", 4000)), (BOX, ("192.0.2.14", 0))],
)
def test_it_is_good_for_no_other_init_and_no_other_address(box: bytes, address: tuple[str, int]) -> None:
    cookie = jar().bake(BOX, ADDRESS, unix_seconds=1000)
    assert not jar().accepts(cookie, box, address, unix_seconds=1000)


@pytest.mark.parametrize(("age", "is_good"), [(-1, False), (0, True), (10, True), (11, False)])
def test_it_is_good_for_its_lifetime(age: int, is_good: bool) -> None:
    cookie = jar().bake(BOX, ADDRESS, unix_seconds=1000)
    assert jar().accepts(cookie, BOX, ADDRESS, unix_seconds=1000 + age) is is_good


def test_its_time_may_wrap() -> None:
    cookie = jar().bake(BOX, ADDRESS, unix_seconds=(1 << 32) - 1)
    assert jar().accepts(cookie, BOX, ADDRESS, unix_seconds=(1 << 32) + 3)


@given(st.integers(0, COOKIE_BYTES - 1), st.integers(1, 255))
def test_an_altered_cookie_is_refused(position: int, change: int) -> None:
    cookie = bytearray(jar().bake(BOX, ADDRESS, unix_seconds=1000))
    cookie[position] ^= change
    assert not jar().accepts(bytes(cookie), BOX, ADDRESS, unix_seconds=1000)


@pytest.mark.parametrize("size", [0, 4, COOKIE_BYTES - 1, COOKIE_BYTES + 1])
def test_a_cookie_of_another_size_is_refused(size: int) -> None:
    cookie = (jar().bake(BOX, ADDRESS, unix_seconds=1000) + b"x")[:size]
    assert not jar().accepts(cookie, BOX, ADDRESS, unix_seconds=1000)


def test_another_secret_accepts_nothing() -> None:
    cookie = jar().bake(BOX, ADDRESS, unix_seconds=1000)
    assert not CookieJar(bytes(SECRET_BYTES), lifetime=10.0).accepts(cookie, BOX, ADDRESS, unix_seconds=1000)
