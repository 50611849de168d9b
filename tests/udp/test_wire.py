from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import DecodeError
from bridge.udp.wire import (
    COOKIE_BYTES,
    DATA,
    DATA_HEADER,
    DATA_HEADER_BYTES,
    MAX_DATAGRAM_BYTES,
    MAX_INIT_BOX_BYTES,
    RETRY,
    RETRY_BYTES,
    Data,
    Init,
    Parameters,
    Reply,
    Retry,
    encode_init,
    encode_parameters,
    encode_reply,
    encode_retry,
    init_digest,
    parse_datagram_untrusted,
    parse_parameters_untrusted,
)

u64 = st.integers(0, (1 << 64) - 1)
cookies = st.one_of(st.just(b""), st.binary(min_size=COOKIE_BYTES, max_size=COOKIE_BYTES))


@given(st.binary(max_size=1300))
def test_nothing_but_decode_errors_comes_out_of_any_bytes(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        parse_datagram_untrusted(data)
    with contextlib.suppress(DecodeError):
        parse_parameters_untrusted(data[:16])


@given(st.binary(max_size=MAX_INIT_BOX_BYTES), cookies)
def test_an_init_is_padded_and_reads_back(box: bytes, cookie: bytes) -> None:
    datagram = encode_init(box, cookie)
    assert len(datagram) == MAX_DATAGRAM_BYTES
    assert parse_datagram_untrusted(datagram) == Init(box, cookie)


@given(st.binary(max_size=1100), st.binary(min_size=COOKIE_BYTES, max_size=COOKIE_BYTES))
def test_a_retry_names_the_init_it_answers_in_38_bytes(box: bytes, cookie: bytes) -> None:
    datagram = encode_retry(box, cookie)
    assert len(datagram) == RETRY_BYTES == 38
    assert parse_datagram_untrusted(datagram) == Retry(init_digest(box), cookie)


@given(st.integers(0, 0xFFFFFFFF), st.binary(min_size=5, max_size=1192))
def test_a_reply_reads_back(connection_id: int, box: bytes) -> None:
    assert parse_datagram_untrusted(encode_reply(connection_id, box)) == Reply(connection_id, box)


@given(st.integers(0, 0xFFFFFFFF), u64, st.integers(0, 1))
def test_a_sealed_datagrams_header_reads_back(connection_id: int, sequence: int, phase: int) -> None:
    datagram = DATA_HEADER.pack(DATA | phase, connection_id, sequence) + bytes(26)
    assert parse_datagram_untrusted(datagram) == Data(phase, connection_id, sequence)


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF), st.booleans())
def test_parameters_read_back(connection_id: int, window: int, wants_signed: bool) -> None:
    parameters = Parameters(connection_id, window, wants_signed)
    assert parse_parameters_untrusted(encode_parameters(parameters)) == parameters


def test_the_header_is_within_16_bytes() -> None:
    assert DATA_HEADER_BYTES == 13


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        bytes(12),
        bytes([DATA]) + bytes(37),
        bytes([DATA]) + bytes(MAX_DATAGRAM_BYTES),
        bytes([DATA | 2]) + bytes(60),
        bytes([RETRY, 2]) + bytes(35),
        bytes([RETRY, 2]) + bytes(37),
        bytes([RETRY, 1]) + bytes(36),
        encode_init(b"box")[:-1],
        encode_init(b"box")[:-1] + b"x",
        b"\x10\x01" + encode_init(b"box")[2:],
        b"\x10\x02\x00\xff\xff" + bytes(1195),
        b"\x10\x02\x00" + (MAX_INIT_BOX_BYTES + 1).to_bytes(2, "big") + bytes(1195),
        b"\x10\x02\x13" + bytes(1197),
        b"\x10\x02\xff" + bytes(1197),
        encode_reply(1, b"a box") + b"x",
    ],
)
def test_a_datagram_that_is_not_exact_is_refused(datagram: bytes) -> None:
    with pytest.raises(DecodeError):
        parse_datagram_untrusted(datagram)


def test_a_box_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="1175"):
        encode_init(bytes(MAX_INIT_BOX_BYTES + 1))
    with pytest.raises(ValueError, match="1200"):
        encode_reply(0, bytes(1193))


@pytest.mark.parametrize(
    "payload",
    [
        bytes(10),
        b"\1\0" + bytes(8),
        b"\2\2" + bytes(8),
        b"\2\x80" + bytes(8),
        b"\2\0" + bytes(7),
        b"\2\0" + bytes(9),
    ],
)
def test_parameters_of_another_version_size_or_with_unknown_flags_are_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        parse_parameters_untrusted(payload)
