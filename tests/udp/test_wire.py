from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import DecodeError
from bridge.udp import wire
from bridge.udp.wire import (
    ACK_BITS,
    COOKIE_BYTES,
    DATA,
    DATA_HEADER,
    DATA_HEADER_BYTES,
    MAX_CHUNK_BYTES,
    MAX_DATAGRAM_BYTES,
    MAX_INIT_BOX_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_PROOF_DEPTH,
    MAX_STATE_BYTES,
    MAX_STREAM_OFFSET,
    RETRY,
    RETRY_BYTES,
    Ack,
    Close,
    Credit,
    Data,
    Frame,
    Init,
    Message,
    MessageCredit,
    Parameters,
    PathChallenge,
    PathResponse,
    Ping,
    Proof,
    Reliable,
    Reply,
    Retry,
    State,
    encode_frame,
    encode_init,
    encode_parameters,
    encode_reply,
    encode_retry,
    init_digest,
    parse_datagram_untrusted,
    parse_frames_untrusted,
    parse_parameters_untrusted,
)

u64 = st.integers(0, (1 << 64) - 1)
offsets = st.integers(0, MAX_STREAM_OFFSET)
acks = u64.flatmap(
    lambda largest: st.builds(Ack, st.just(largest), st.integers(0, (1 << min(largest, ACK_BITS)) - 1))
)
credits_ = st.tuples(offsets, offsets).map(lambda pair: Credit(min(pair), max(pair)))
messages = st.tuples(
    offsets, st.binary(min_size=1, max_size=200), st.integers(0, 1000), st.integers(0, 1000)
).map(lambda drawn: Message(drawn[0], drawn[2] + len(drawn[1]) + drawn[3], drawn[2], drawn[1]))
proofs = st.integers(0, MAX_PROOF_DEPTH).flatmap(
    lambda depth: st.binary(min_size=92, max_size=92).map(
        lambda fixed: Proof(fixed + bytes((depth,)) + bytes(depth * 32))
    )
)
frames: st.SearchStrategy[Frame] = st.one_of(
    acks,
    credits_,
    st.builds(State, st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), st.binary(max_size=200)),
    st.builds(Reliable, offsets, st.binary(min_size=1, max_size=200)),
    messages,
    st.builds(Message, offsets, st.just(0), st.just(0), st.just(b"")),
    st.builds(MessageCredit, offsets, offsets),
    st.builds(Ping),
    st.builds(Close, st.integers(0, 255), st.text(max_size=16)),
    st.builds(PathChallenge, st.binary(min_size=8, max_size=8)),
    st.builds(PathResponse, st.binary(min_size=8, max_size=8)),
)


@given(st.lists(frames, max_size=8))
def test_frames_read_back_as_they_were_written(sent: list[Frame]) -> None:
    assert parse_frames_untrusted(b"".join(map(encode_frame, sent))) == sent


@given(st.binary(max_size=1300))
def test_nothing_but_decode_errors_comes_out_of_any_bytes(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        parse_datagram_untrusted(data)
    with contextlib.suppress(DecodeError):
        parse_frames_untrusted(data)
    with contextlib.suppress(DecodeError):
        parse_parameters_untrusted(data[:16])


@given(st.lists(frames, min_size=1, max_size=4), st.data())
def test_altered_frames_raise_decode_errors_only(sent: list[Frame], data: st.DataObject) -> None:
    encoded = bytearray(b"".join(map(encode_frame, sent)))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(DecodeError):
        parse_frames_untrusted(bytes(encoded))


@given(st.lists(frames, min_size=1, max_size=3))
def test_frames_cut_short_are_refused_or_end_on_a_frame(sent: list[Frame]) -> None:
    encoded = b"".join(map(encode_frame, sent))
    boundaries = [len(b"".join(map(encode_frame, sent[:n]))) for n in range(len(sent) + 1)]
    for cut in range(len(encoded)):
        if cut in boundaries:
            assert parse_frames_untrusted(encoded[:cut]) == sent[: boundaries.index(cut)]
        else:
            with pytest.raises(DecodeError):
                parse_frames_untrusted(encoded[:cut])


@given(st.lists(frames, max_size=3), proofs)
def test_a_proof_reads_back_behind_everything_else(sent: list[Frame], proof: Proof) -> None:
    encoded = b"".join(map(encode_frame, [*sent, proof]))
    assert parse_frames_untrusted(encoded) == [*sent, proof]
    with pytest.raises(DecodeError):
        parse_frames_untrusted(encoded + encode_frame(Ping()))


cookies = st.one_of(st.just(b""), st.binary(min_size=COOKIE_BYTES, max_size=COOKIE_BYTES))


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


@pytest.mark.parametrize(
    "frame",
    [
        b"\x01" + (2000).to_bytes(8, "big") + b"\x81" + b"\x01" * 129,
        b"\x01" + (500).to_bytes(8, "big") + b"\x02\x00\x01",
        b"\x01" + (3).to_bytes(8, "big") + b"\x01\x08",
        b"\x02" + (5).to_bytes(8, "big") + (4).to_bytes(8, "big"),
        b"\x02" + (5).to_bytes(8, "big") + (MAX_STREAM_OFFSET + 1).to_bytes(8, "big"),
        b"\x04" + bytes(8) + b"\0\0",
        b"\x04" + (MAX_STREAM_OFFSET + 1).to_bytes(8, "big") + b"\0\1x",
        b"\x06\x00\x41" + b"x" * 65,
        b"\x06\x00\x01\xff",
        b"\x09" + bytes(8) + (MAX_MESSAGE_BYTES + 1).to_bytes(4, "big") + bytes(4) + b"\0\1x",
        b"\x09" + (MAX_STREAM_OFFSET + 1).to_bytes(8, "big") + b"\0\0\0\1" + bytes(4) + b"\0\1x",
        b"\x09" + bytes(8) + b"\0\0\0\2" + b"\0\0\0\2" + b"\0\1x",
        b"\x09" + bytes(8) + b"\0\0\0\2" + b"\0\0\0\0" + b"\0\0",
        b"\x09" + bytes(8) + b"\0\0\0\0" + b"\0\0\0\1" + b"\0\0",
        b"\x0a" + (MAX_STREAM_OFFSET + 1).to_bytes(8, "big") + bytes(8),
        b"\x0a" + bytes(8) + (MAX_STREAM_OFFSET + 1).to_bytes(8, "big"),
        b"\x0b" + bytes(92),
        b"\x0b" + bytes(92) + b"\x01",
        b"\x0b" + bytes(92) + b"\x0b" + bytes(11 * 32),
        b"\x0b" + bytes(94),
        b"\x00",
        b"\x0c",
    ],
)
def test_a_frame_that_is_out_of_bounds_is_refused(frame: bytes) -> None:
    with pytest.raises(DecodeError):
        parse_frames_untrusted(frame)


@pytest.mark.parametrize(
    ("frame", "size"),
    [
        (State(0, 0, bytes(MAX_STATE_BYTES)), wire.MAX_FRAMES_BYTES),
        (Reliable(0, bytes(MAX_CHUNK_BYTES)), wire.MAX_FRAMES_BYTES),
        (
            Message(0, MAX_MESSAGE_BYTES, 0, bytes(wire.MAX_FRAMES_BYTES - wire.MESSAGE_HEADER_BYTES)),
            wire.MAX_FRAMES_BYTES,
        ),
    ],
)
def test_the_largest_frames_fill_a_datagram_exactly(frame: Frame, size: int) -> None:
    assert len(encode_frame(frame)) == size
    assert DATA_HEADER_BYTES + wire.PROLOGUE.size + size + wire.TAG_BYTES == MAX_DATAGRAM_BYTES


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
