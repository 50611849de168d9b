"""Frames, which sealed datagrams hold: every byte of them as in docs/protocol.md §5, "Frames".

They are named tuples rather than dataclasses: they are made on the data path, where a frozen dataclass costs
three times as much. Readers of bytes from the network end in ``_untrusted`` and raise only
:class:`~bridge.errors.DecodeError`.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from bridge.errors import DecodeError
from bridge.udp.wire import MAX_FRAMES_BYTES

ACK: Final = 0x01
CREDIT: Final = 0x02
STATE: Final = 0x03
RELIABLE: Final = 0x04
PING: Final = 0x05
CLOSE: Final = 0x06
PATH_CHALLENGE: Final = 0x07
PATH_RESPONSE: Final = 0x08
MESSAGE: Final = 0x09
MESSAGE_CREDIT: Final = 0x0A
PROOF: Final = 0x0B

_ACK: Final = struct.Struct(">BQB")
_CREDIT: Final = struct.Struct(">BQQ")
STATE_HEADER: Final = struct.Struct(">BHIH")
_RELIABLE: Final = struct.Struct(">BQH")
_CLOSE: Final = struct.Struct(">BBB")
_PATH_BYTES: Final = 8
_PINGS: Final = bytes((PING,))
_MESSAGE: Final = struct.Struct(">BQIIH")
_MESSAGE_CREDIT: Final = struct.Struct(">BQQ")
_TOLD_BYTES: Final = _ACK.size + _CREDIT.size
"""An ACK that names one datagram, and a CREDIT."""
_PROOF_FIXED_BYTES: Final = 93
"""Body of a PROOF without its path: tree size, leaf index, time, salt, signature, and last the depth."""
_PROOF_NODE_BYTES: Final = 32
MAX_PROOF_DEPTH: Final = 10
"""Levels of a hash tree with 1024 leaves."""
MAX_PROOF_BYTES: Final = 1 + _PROOF_FIXED_BYTES + MAX_PROOF_DEPTH * _PROOF_NODE_BYTES
"""The longest PROOF frame, its type included."""

ACK_BITS: Final = 1024
"""Datagrams below the largest that one ACK can name."""
MAX_STATE_BYTES: Final = MAX_FRAMES_BYTES - STATE_HEADER.size
MAX_CHUNK_BYTES: Final = MAX_FRAMES_BYTES - _RELIABLE.size
RELIABLE_HEADER_BYTES: Final = _RELIABLE.size
MESSAGE_HEADER_BYTES: Final = _MESSAGE.size
MAX_CLOSE_TEXT_BYTES: Final = 64
MAX_MESSAGE_BYTES: Final = 64 << 10
MESSAGE_PREFIX_BYTES: Final = 4
MAX_STREAM_OFFSET: Final = 1 << 62
"""Reliable bytes or messages of one session and direction: never reached, sums of two stay in 64 bits."""


class Ack(NamedTuple):
    """Datagrams received: ``largest``, and bit n of ``bits`` for ``largest - 1 - n``."""

    largest: int
    bits: int


class Credit(NamedTuple):
    """Reliable stream: bytes received without a gap, and the offset up to which more may be sent."""

    received: int
    limit: int


class MessageCredit(NamedTuple):
    """Unordered messages: all below ``low_water`` were taken; sizes of all begun may sum up to ``limit``."""

    low_water: int
    limit: int


class Told(NamedTuple):
    """What a side tells of what came to it, frames that go together: ACK, CREDIT and perhaps MESSAGE_CREDIT.

    Attributes:
        largest: of the ACK; ``bits`` too.
        received: of the CREDIT; ``limit`` too.
        messages: ``None`` where there is none.
        end: where the next frame begins.
    """

    largest: int
    bits: int
    received: int
    limit: int
    messages: MessageCredit | None
    end: int


class State(NamedTuple):
    """One latest-wins state of a stream."""

    stream: int
    number: int
    payload: bytes


class Reliable(NamedTuple):
    """A run of the reliable byte stream."""

    offset: int
    chunk: bytes


class Message(NamedTuple):
    """A fragment of the unordered message ``number``, which has ``total`` bytes."""

    number: int
    total: int
    offset: int
    chunk: bytes


class Proof(NamedTuple):
    """The last frame of a signed datagram, its body as it came: :mod:`bridge.udp.evidence` reads it."""

    body: bytes


class Ping(NamedTuple):
    """Asks for an acknowledgement."""


class Close(NamedTuple):
    """The sender is done; ``code`` is a :class:`~bridge.udp.events.CloseReason` on the wire."""

    code: int
    text: str


class PathChallenge(NamedTuple):
    """Asks whoever is at the address it was sent to, to prove it can read there."""

    token: bytes


class PathResponse(NamedTuple):
    """Echoes the token of a challenge."""

    token: bytes


_PING: Final = Ping()
_new: Final = tuple.__new__
"""What the constructor of a named tuple comes down to, without the cost of calling it."""

Frame = (
    Ack
    | Credit
    | State
    | Reliable
    | Message
    | MessageCredit
    | Ping
    | Close
    | PathChallenge
    | PathResponse
    | Proof
)

ELICITING: Final = (State, Reliable, Message, Ping, PathChallenge)
"""Frames whose datagram is acknowledged."""


def encode_ack(largest: int, bits: int) -> bytes:
    """An ACK frame; ``bits`` is cut to 1024 bits and sent without its leading zero bytes."""
    bits &= (1 << ACK_BITS) - 1
    length = (bits.bit_length() + 7) >> 3
    return _ACK.pack(ACK, largest, length) + bits.to_bytes(length, "big")


def encode_credit(received: int, limit: int) -> bytes:
    """A CREDIT frame."""
    return _CREDIT.pack(CREDIT, received, limit)


def encode_frame(frame: Frame) -> bytes:
    """Bytes of a frame. Sizes are the caller's to keep."""
    match frame:
        case Ack(largest, bits):
            return encode_ack(largest, bits)
        case Credit(received, limit):
            return encode_credit(received, limit)
        case State(stream, number, payload):
            return STATE_HEADER.pack(STATE, stream, number, len(payload)) + payload
        case Reliable(offset, chunk):
            return _RELIABLE.pack(RELIABLE, offset, len(chunk)) + chunk
        case Ping():
            return bytes((PING,))
        case Close(code, text):
            encoded = text.encode(errors="replace")[:MAX_CLOSE_TEXT_BYTES].decode(errors="ignore").encode()
            return _CLOSE.pack(CLOSE, code, len(encoded)) + encoded
        case Message(number, total, offset, chunk):
            return _MESSAGE.pack(MESSAGE, number, total, offset, len(chunk)) + chunk
        case MessageCredit(low_water, limit):
            return _MESSAGE_CREDIT.pack(MESSAGE_CREDIT, low_water, limit)
        case PathChallenge(token):
            return bytes((PATH_CHALLENGE,)) + token
        case PathResponse(token):
            return bytes((PATH_RESPONSE,)) + token
        case Proof(body):
            return bytes((PROOF,)) + body


def parse_frames_untrusted(plaintext: bytes, start: int = 0) -> list[Frame]:
    """Read the frames of an opened datagram, all or nothing.

    Args:
        plaintext: authentic, so from a peer that is known; still not believed.
        start: where the frames begin.

    Raises:
        DecodeError: anything but a sequence of whole, known frames.
    """
    frames: list[Frame] = []
    position, end = start, len(plaintext)
    try:
        while position < end:
            kind = plaintext[position]
            if kind == STATE:
                _, stream, number, length = STATE_HEADER.unpack_from(plaintext, position)
                position += STATE_HEADER.size + length
                frames.append(_new(State, (stream, number, plaintext[position - length : position])))
            elif kind == ACK:
                _, largest, length = _ACK.unpack_from(plaintext, position)
                position += _ACK.size + length
                frames.append(_ack_untrusted(largest, plaintext[position - length : position]))
            elif kind == RELIABLE:
                _, offset, length = _RELIABLE.unpack_from(plaintext, position)
                position += _RELIABLE.size + length
                if length == 0 or offset > MAX_STREAM_OFFSET:
                    raise DecodeError("empty reliable chunk or offset out of bounds")
                frames.append(Reliable(offset, plaintext[position - length : position]))
            elif kind == CREDIT:
                _, received, limit = _CREDIT.unpack_from(plaintext, position)
                position += _CREDIT.size
                if not received <= limit <= MAX_STREAM_OFFSET:
                    raise DecodeError("credit below what was received, or out of bounds")
                frames.append(_new(Credit, (received, limit)))
            elif kind == PING:
                # All that follow each other: one by one a thousand take as long as a hundred datagrams.
                behind = end - len(plaintext[position:].lstrip(_PINGS))
                frames += [_PING] * (behind - position)
                position = behind
            elif kind == CLOSE:
                _, code, length = _CLOSE.unpack_from(plaintext, position)
                position += _CLOSE.size + length
                if length > MAX_CLOSE_TEXT_BYTES:
                    raise DecodeError("close text too long")
                frames.append(Close(code, plaintext[position - length : position].decode()))
            elif kind in (PATH_CHALLENGE, PATH_RESPONSE):
                position += 1 + _PATH_BYTES
                token = plaintext[position - _PATH_BYTES : position]
                frames.append(PathChallenge(token) if kind == PATH_CHALLENGE else PathResponse(token))
            elif kind == MESSAGE:
                _, number, total, offset, length = _MESSAGE.unpack_from(plaintext, position)
                position += _MESSAGE.size + length
                frames.append(
                    _message_untrusted(number, total, offset, plaintext[position - length : position])
                )
            elif kind == MESSAGE_CREDIT:
                _, low_water, limit = _MESSAGE_CREDIT.unpack_from(plaintext, position)
                position += _MESSAGE_CREDIT.size
                if low_water > MAX_STREAM_OFFSET or limit > MAX_STREAM_OFFSET:
                    raise DecodeError("message credit out of bounds")
                frames.append(MessageCredit(low_water, limit))
            elif kind == PROOF:
                frames.append(_proof_untrusted(plaintext[position + 1 :]))
                position = end
            else:
                raise DecodeError(f"unknown frame {kind}")
    except (struct.error, UnicodeDecodeError) as error:
        raise DecodeError(f"frame cut short or not text: {error}") from error
    if position != end:
        raise DecodeError("frame longer than its datagram")
    return frames


def told_untrusted(plaintext: bytes, start: int) -> Told | None:
    """What :func:`parse_frames_untrusted` reads where an acknowledgement begins, without the objects.

    Returns:
        ``None`` where anything but the whole of it is there, so that the other has to be asked; it never
        raises.
    """
    size = len(plaintext)
    if size < start + _TOLD_BYTES:
        return None
    kind, largest, length = _ACK.unpack_from(plaintext, start)
    bits_at = start + _ACK.size
    credit_at = bits_at + length
    end = credit_at + _CREDIT.size
    if kind != ACK or size < end or length * 8 > ACK_BITS or (length and not plaintext[bits_at]):
        return None
    bits = int.from_bytes(plaintext[bits_at:credit_at], "big")
    kind, received, limit = _CREDIT.unpack_from(plaintext, credit_at)
    if kind != CREDIT or bits.bit_length() > largest or not received <= limit <= MAX_STREAM_OFFSET:
        return None
    messages: MessageCredit | None = None
    if size > end and plaintext[end] == MESSAGE_CREDIT:
        if size < end + _MESSAGE_CREDIT.size:
            return None
        _, low_water, granted = _MESSAGE_CREDIT.unpack_from(plaintext, end)
        if low_water > MAX_STREAM_OFFSET or granted > MAX_STREAM_OFFSET:
            return None
        messages = MessageCredit(low_water, granted)
        end += _MESSAGE_CREDIT.size
    return _new(Told, (largest, bits, received, limit, messages, end))


def _ack_untrusted(largest: int, bitfield: bytes) -> Ack:
    if len(bitfield) * 8 > ACK_BITS or (bitfield and bitfield[0] == 0):
        raise DecodeError("acknowledgement bitfield too long or not the shortest")
    bits = int.from_bytes(bitfield, "big")
    if bits.bit_length() > largest:
        raise DecodeError("acknowledgement of datagrams before the first")
    return _new(Ack, (largest, bits))


def _message_untrusted(number: int, total: int, offset: int, chunk: bytes) -> Message:
    if number > MAX_STREAM_OFFSET or total > MAX_MESSAGE_BYTES:
        raise DecodeError("message number or size out of bounds")
    if offset + len(chunk) > total or (not chunk and total):
        raise DecodeError("message fragment that is empty or beyond its message")
    return Message(number, total, offset, chunk)


def _proof_untrusted(body: bytes) -> Proof:
    depth = body[_PROOF_FIXED_BYTES - 1] if len(body) >= _PROOF_FIXED_BYTES else MAX_PROOF_DEPTH + 1
    if depth > MAX_PROOF_DEPTH or len(body) != _PROOF_FIXED_BYTES + depth * _PROOF_NODE_BYTES:
        raise DecodeError("proof cut short, too deep, or not the last frame")
    return Proof(body)
