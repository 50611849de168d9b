"""What crosses the signer's socket: frames of u32 length (big-endian) and MessagePack, an answer a question.

No public protocol: both ends are one version of one package. The private key is in none of these.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from bridge.errors import DecodeError, LimitExceededError

MAX_FRAME_BYTES: Final = 65_536
"""bytes of a message; claims of a ticket, the largest, take about 12,000"""
LENGTH_BYTES: Final = 4


class Sign(msgspec.Struct, frozen=True, kw_only=True, tag="sign"):
    """Sign these claims.

    Attributes:
        claims: a JSON object.
    """

    typ: str
    claims: bytes


class AskKeys(msgspec.Struct, frozen=True, tag="ask_keys"):
    """Tell the public keys."""


class AskStatus(msgspec.Struct, frozen=True, tag="ask_status"):
    """Tell what was done so far."""


class Signed(msgspec.Struct, frozen=True, kw_only=True, tag="signed"):
    """A compact JWS."""

    token: str


class Keys(msgspec.Struct, frozen=True, kw_only=True, tag="keys"):
    """Public keys as JSON; the first one signs, the others will."""

    keys: tuple[str, ...]


class Status(msgspec.Struct, frozen=True, kw_only=True, tag="status"):
    """Counts since the start."""

    instance: str
    signed: dict[str, int]
    refused: int


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """Not signed, and why."""

    reason: str


Question = Sign | AskKeys | AskStatus
Answer = Signed | Keys | Status | Refused
Message = TypeVar("Message")

_QUESTIONS: Final = msgspec.msgpack.Decoder(Question)
_ANSWERS: Final = msgspec.msgpack.Decoder(Answer)
_ENCODER: Final = msgspec.msgpack.Encoder()


def encode_frame(message: Question | Answer) -> bytes:
    """A message with its length before it.

    Raises:
        LimitExceededError: it is too long.
    """
    body = _ENCODER.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise LimitExceededError("MAX_FRAME_BYTES", MAX_FRAME_BYTES, "bytes")
    return len(body).to_bytes(LENGTH_BYTES) + body


def frame_length_untrusted(prefix: bytes) -> int:
    """How many bytes follow.

    Raises:
        LimitExceededError: more than are allowed.
    """
    length = int.from_bytes(prefix)
    if length > MAX_FRAME_BYTES:
        raise LimitExceededError("MAX_FRAME_BYTES", MAX_FRAME_BYTES, "bytes")
    return length


def decode_question_untrusted(body: bytes) -> Question:
    """Read a question.

    Raises:
        DecodeError: it is none.
    """
    question: Question = _decode(_QUESTIONS, body)
    return question


def decode_answer_untrusted(body: bytes) -> Answer:
    """Read an answer.

    Raises:
        DecodeError: it is none.
    """
    answer: Answer = _decode(_ANSWERS, body)
    return answer


def _decode(decoder: msgspec.msgpack.Decoder[Message], body: bytes) -> Message:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"no message of the signer's socket: {error}") from None
