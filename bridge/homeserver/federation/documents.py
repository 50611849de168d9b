"""What homeservers of two instances say to each other: JSON documents, each under a seal.

Formats: ``docs/protocol.md`` §11. A question is a document, and so is its answer. Numbers of 64 bits are
decimal texts, since many a JSON number has 53 bits; binaries are base64url.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec

from bridge.errors import DecodeError
from bridge.jose.encoding import base64url_decode_untrusted
from bridge.registry import Rule

MAX_QUESTION_BYTES: Final = 49_152
"""of a document that is asked: an offer holds a release of up to 16 KiB"""
MAX_ANSWER_BYTES: Final = 1_048_576
"""of an answer: the servers of an instance, up to 1000"""
MAX_SERVERS: Final = 1_000
MAX_U64: Final = 2**64 - 1

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
_U64 = Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,19})$")]
_Id16 = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{22}$")]
_Thumbprint = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{43}$")]
_Hop = Annotated[int, msgspec.Meta(ge=0, le=63)]
_Box = Annotated[str, msgspec.Meta(min_length=1, max_length=16_384)]
_Key = Annotated[str, msgspec.Meta(min_length=1, max_length=2_048)]
_Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A simulation server of the instance that says so: its key, and where its data plane listens.

    Attributes:
        session: 16 bytes, base64url.
        key: public JWK as JSON text.
        thumbprint: RFC 7638, of that key.
    """

    server: _Name
    session: _Id16
    key: _Key
    thumbprint: _Thumbprint
    host: _Name
    port: _Port


class Giver(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who released an entity.

    Attributes:
        endpoint: its session is the box's ``sid``.
        epoch: the released one, the box's ``seq``.
    """

    endpoint: Endpoint
    epoch: _U64


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="act"):
    """What all kinds have in common: ``act`` names the kind, and nothing is there that nobody knows."""


class Offer(_Document, frozen=True, kw_only=True, tag="offer"):
    """An entity is in the asker's escrow for a server of the asked one.

    Attributes:
        transfer: number of the transfer, the epoch that its escrow took.
        low: all transfers up to this number are closed at the asker's.
        owner: the new one, as the asked instance knows players.
        master: with its instance after an ``@``, like the default owner.
        home: the instance that keeps the entity's place.
        to: a server of the asked instance.
        box: the giver's signed release, sealed for ``to``.
        trace: 16 bytes, base64url.
    """

    transfer: _U64
    low: _U64
    entity: _Name
    owner: _Name
    master: _Name
    default_owner: _Name | None
    rule: Rule
    home: _Name
    to: _Name
    box: _Box
    giver: Giver
    trace: _Id16
    hop: _Hop


class Cancel(_Document, frozen=True, kw_only=True, tag="cancel"):
    """Unless the offer was accepted, refuse it: it may come yet, and must find it refused."""

    transfer: _U64
    low: _U64
    trace: _Id16
    hop: _Hop


class Settle(_Document, frozen=True, kw_only=True, tag="settle"):
    """All transfers up to ``low`` are closed: their answers may be forgotten."""

    low: _U64


class Moved(_Document, frozen=True, kw_only=True, tag="moved"):
    """The asker passed an entity whose home is the asked one to a third, which has it at ``epoch``."""

    entity: _Name
    at: _Name
    epoch: _U64


class AskServers(_Document, frozen=True, kw_only=True, tag="ask_servers"):
    """Ask which servers the other instance has."""


class AskEntity(_Document, frozen=True, kw_only=True, tag="ask_entity"):
    """Ask what the other instance knows of an entity, and of a transfer of the asker's."""

    entity: _Name
    transfer: _U64


Question = Offer | Cancel | Settle | Moved | AskServers | AskEntity


class Accepted(_Document, frozen=True, kw_only=True, tag="accept"):
    """The entity is the answerer's, at ``epoch``."""

    transfer: _U64
    epoch: _U64
    trace: _Id16
    hop: _Hop


class Refused(_Document, frozen=True, kw_only=True, tag="refuse"):
    """The entity stays the asker's; ``reason`` is one of ``docs/protocol.md`` §11."""

    transfer: _U64
    reason: _Name
    trace: _Id16
    hop: _Hop


class Settled(_Document, frozen=True, kw_only=True, tag="settled"):
    """They are forgotten."""

    low: _U64


class Noted(_Document, frozen=True, kw_only=True, tag="noted"):
    """Its home knows where the entity is."""

    entity: _Name


class Servers(_Document, frozen=True, kw_only=True, tag="servers"):
    """The servers that have a session now."""

    servers: Annotated[list[Endpoint], msgspec.Meta(max_length=MAX_SERVERS)]


class Standing(_Document, frozen=True, kw_only=True, tag="entity"):
    """What an instance knows of an entity; nothing is changed by having been asked.

    Attributes:
        transfer: what it decided about the asker's transfer: ``accepted``, ``refused``, ``settled`` (it has
            forgotten, as the asker said it might), or ``unknown``: it may accept it yet.
        place: ``here``, in its ``escrow`` for another instance, ``away``, or ``none``: it has no record.
        at: the instance where it is or is to go, where it is away or in escrow.
        home: where it was created; ``None`` without a record.
        epoch: as of the record; 0 without one.
    """

    entity: _Name
    transfer: Literal["accepted", "refused", "settled", "unknown"]
    place: Literal["here", "escrow", "away", "none"]
    at: _Name | None
    home: _Name | None
    epoch: _U64


Answer = Accepted | Refused | Settled | Noted | Servers | Standing
Document = Question | Answer

_encoder = msgspec.json.Encoder()
_questions = msgspec.json.Decoder(Question)
_answers = msgspec.json.Decoder(Answer)
_REFUSED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def encode_document(document: Document) -> bytes:
    """Return the JSON of a document."""
    return _encoder.encode(document)


def act_of(document: Document) -> str:
    """Return the kind of a document, as its seal repeats it."""
    tag = document.__struct_config__.tag
    assert isinstance(tag, str)
    return tag


def decode_question_untrusted(body: bytes) -> Question:
    """Read what another instance asks; its seal was checked.

    Raises:
        DecodeError: too long, of another kind, with a member too many or too few, or out of range.
    """
    _measure(body, MAX_QUESTION_BYTES)
    try:
        question: Question = _questions.decode(body)
    except _REFUSED as error:
        raise DecodeError(f"no question of another instance: {error}") from error
    match question:
        case Offer():
            numbers, binaries = (
                [question.transfer, question.low, question.giver.epoch],
                [question.trace, question.giver.endpoint.session],
            )
        case Cancel():
            numbers, binaries = [question.transfer, question.low], [question.trace]
        case Settle():
            numbers, binaries = [question.low], []
        case Moved():
            numbers, binaries = [question.epoch], []
        case AskServers():
            numbers, binaries = [], []
        case AskEntity():
            numbers, binaries = [question.transfer], []
    _check(numbers, binaries)
    return question


def decode_answer_untrusted(body: bytes) -> Answer:
    """Read what another instance answers; its seal was checked.

    Raises:
        DecodeError: as of questions.
    """
    _measure(body, MAX_ANSWER_BYTES)
    try:
        answer: Answer = _answers.decode(body)
    except _REFUSED as error:
        raise DecodeError(f"no answer of another instance: {error}") from error
    match answer:
        case Accepted():
            _check([answer.transfer, answer.epoch], [answer.trace])
        case Refused():
            _check([answer.transfer], [answer.trace])
        case Settled():
            _check([answer.low], [])
        case Servers():
            _check([], (server.session for server in answer.servers))
        case Standing():
            _check([answer.epoch], [])
        case Noted():
            pass
    return answer


def _measure(body: bytes, maximum: int) -> None:
    if len(body) > maximum:
        raise DecodeError(f"a document of {len(body)} bytes, where {maximum} are the most")


def _check(numbers: Iterable[str], binaries: Iterable[str]) -> None:
    for number in numbers:
        if int(number) > MAX_U64:
            raise DecodeError(f"{number} has more than 64 bits")
    for binary in binaries:
        try:
            base64url_decode_untrusted(binary)
        except ValueError as error:
            raise DecodeError(f"no base64url: {error}") from error
