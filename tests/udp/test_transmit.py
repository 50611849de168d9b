from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.udp.transmit import Transmit

ADDRESS = ("127.0.0.1", 4000)


@given(payload=st.binary(min_size=1, max_size=300), segment=st.integers(1, 400), is_view=st.booleans())
def test_datagrams_are_the_payload_cut_into_segments(payload: bytes, segment: int, is_view: bool) -> None:
    transmit = Transmit(memoryview(payload) if is_view else payload, segment, ADDRESS)
    datagrams = [bytes(datagram) for datagram in transmit.datagrams()]
    assert b"".join(datagrams) == payload
    assert all(len(datagram) == segment for datagram in datagrams[:-1])
    assert 1 <= len(datagrams[-1]) <= segment
    assert transmit.datagram_count == len(datagrams)


def test_one_datagram_is_a_run_of_its_own_length() -> None:
    assert Transmit.of_one(b"abc", ADDRESS) == (b"abc", 3, ADDRESS)


def test_views_are_cut_without_copying() -> None:
    buffer = bytearray(b"aabbc")
    datagrams = list(Transmit(memoryview(buffer), 2, ADDRESS).datagrams())
    buffer[:] = b"ddeef"
    assert datagrams == [b"dd", b"ee", b"f"]
