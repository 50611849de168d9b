from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import DecodeError
from bridge.udp.frames import (
    ACK_BITS,
    MAX_CHUNK_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_PROOF_DEPTH,
    MAX_STATE_BYTES,
    MAX_STREAM_OFFSET,
    MESSAGE_HEADER_BYTES,
    Ack,
    Close,
    Credit,
    Frame,
    Message,
    MessageCredit,
    PathChallenge,
    PathResponse,
    Ping,
    Proof,
    Reliable,
    State,
    Told,
    encode_frame,
    parse_frames_untrusted,
    told_untrusted,
)
from bridge.udp.wire import (
    DATA_HEADER_BYTES,
    MAX_DATAGRAM_BYTES,
    MAX_FRAMES_BYTES,
    PROLOGUE,
    TAG_BYTES,
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
        parse_frames_untrusted(data)


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
        (State(0, 0, bytes(MAX_STATE_BYTES)), MAX_FRAMES_BYTES),
        (Reliable(0, bytes(MAX_CHUNK_BYTES)), MAX_FRAMES_BYTES),
        (
            Message(0, MAX_MESSAGE_BYTES, 0, bytes(MAX_FRAMES_BYTES - MESSAGE_HEADER_BYTES)),
            MAX_FRAMES_BYTES,
        ),
    ],
)
def test_the_largest_frames_fill_a_datagram_exactly(frame: Frame, size: int) -> None:
    assert len(encode_frame(frame)) == size
    assert DATA_HEADER_BYTES + PROLOGUE.size + size + TAG_BYTES == MAX_DATAGRAM_BYTES


@given(
    st.one_of(acks, credits_),
    st.one_of(credits_, acks),
    st.lists(st.one_of(st.builds(MessageCredit, offsets, offsets), st.just(Ping())), max_size=2),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=2),
    st.integers(0, 40),
)
def test_what_a_side_tells_is_read_as_the_frames_that_tell_it(
    first: Frame, second: Frame, more: list[Frame], changes: list[tuple[int, int]], cut: int
) -> None:
    """Whole, cut short or changed: the same frames as all others are read as, or none and nothing raised."""
    plaintext = bytearray(b"x" + b"".join(map(encode_frame, (first, second, *more))))
    for at, value in changes:
        plaintext[1 + at % (len(plaintext) - 1)] = value
    whole = bytes(plaintext[: len(plaintext) - cut])
    told = told_untrusted(whole, 1)
    read: list[Frame] = []
    with contextlib.suppress(DecodeError):
        read = parse_frames_untrusted(whole[: len(whole) if told is None else told.end], 1)
    match read:
        case [Ack(largest, bits), Credit(received, limit), MessageCredit() as messages, *_]:
            assert told == Told(largest, bits, received, limit, messages, told.end if told else 0)
        case [Ack(largest, bits), Credit(received, limit), *_]:
            assert told == Told(largest, bits, received, limit, None, told.end if told else 0)
        case _:
            assert told is None


def test_what_a_side_tells_ends_where_its_state_begins() -> None:
    """With the credit for unordered messages or without: that a state comes behind changes nothing."""
    for messages in ((), (MessageCredit(3, 4),)):
        told = b"".join(map(encode_frame, (Ack(9, 0b101), Credit(1, 2), *messages)))
        known = told_untrusted(told + encode_frame(State(0, 1, b"abc")), 0)
        assert known == Told(9, 0b101, 1, 2, messages[0] if messages else None, len(told))
