"""What a session and the lessor say to each other, as terms (``docs/protocol.md`` §7, "Sessions and leases").

The server sends to the process ``kb_lessor`` of the member it is connected to, which answers its mailbox.
Nothing here is repeated: a renewal that is lost is followed by the next one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from bridge.errors import DecodeError
from bridge.etf import Atom, Pid

LESSOR: Final = "kb_lessor"
"""name of the process on each member"""
MAX_STREAMING: Final = 1_000
"""entities in one question of the lessor"""

_RENEWED: Final = Atom("renewed")
_LOST: Final = Atom("lost")
_STREAMING: Final = Atom("streaming")

Recalled = tuple[str, int]
"""entity and epoch of a recall"""


@dataclass(frozen=True, slots=True)
class Renewed:
    """The lessor took a renewal.

    Attributes:
        number: of the newest one that it took; all earlier ones are taken with it.
        generation: of the lessor.
        recalls: those of this session that it believes not obeyed yet.
    """

    session: bytes
    number: int
    generation: int
    recalls: tuple[Recalled, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """The session is not open (any more)."""

    session: bytes


@dataclass(frozen=True, slots=True)
class Streaming:
    """The lessor looks for a successor and asks which of these entities this server has, fresh.

    Attributes:
        reference: any term, to be given back.
    """

    reference: Any
    session: bytes
    entities: tuple[str, ...]


def renew(
    pid: Pid, *, session: bytes, number: int, tick: int, load: int, obeyed: Iterable[Recalled]
) -> tuple[Any, ...]:
    """A renewal.

    Args:
        pid: where the answer goes.
        number: of the renewal, rising by one from 1.
        tick: the simulation's step counter; one that stands still is a simulation that hangs.
        load: entities held.
        obeyed: recalls of the last acknowledgement that this session has obeyed.
    """
    recalls = [(entity.encode(), epoch) for entity, epoch in obeyed]
    return (Atom("renew"), pid, session, number, tick, load, recalls)


def streams(
    question: Streaming, *, load: int, entities: Iterable[str], released: Iterable[tuple[str, int]]
) -> tuple[Any, ...]:
    """The answer to a question.

    Args:
        question: of the lessor.
        load: entities held.
        entities: those of the question that this server has.
        released: those that the session has released, with the newest epoch: nothing acts under that one or
            an older one of the session, or ever will.
    """
    return (
        Atom("streams"),
        question.reference,
        question.session,
        load,
        [entity.encode() for entity in entities],
        [(entity.encode(), epoch) for entity, epoch in released],
    )


def lessor_message(term: Any) -> Renewed | Lost | Streaming:
    """Decode what a lessor sends.

    Raises:
        DecodeError: it is none of the three.
    """
    match term:
        case (kind, bytes() as session, int() as number, int() as generation, list() as recalls) if (
            kind == _RENEWED
        ):
            return Renewed(session, number, generation, tuple(_recalled(recall) for recall in recalls))
        case (kind, bytes() as session) if kind == _LOST:
            return Lost(session)
        case (kind, reference, bytes() as session, list() as entities) if kind == _STREAMING:
            return Streaming(reference, session, tuple(_name(entity) for entity in entities))
        case _:
            raise DecodeError(f"no message of a lessor: {term!r:.200}")


def _recalled(term: Any) -> Recalled:
    match term:
        case (entity, int() as epoch):
            return _name(entity), epoch
        case _:
            raise DecodeError(f"no recall: {term!r:.100}")


def _name(term: Any) -> str:
    if not isinstance(term, bytes):
        raise DecodeError(f"no name of an entity: {term!r:.100}")
    return term.decode(errors="replace")
