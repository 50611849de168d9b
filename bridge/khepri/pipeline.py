"""Plain writes that are sent together, and what became of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge.errors import BridgeError, ConfigurationError, KhepriError, OutcomeUnknownError, ProtocolError
from bridge.khepri.operations import Delete, Put, wire_operation
from bridge.khepri.paths import has_conditions
from bridge.khepri.reply import StoreTimeoutError, unwrap

MAX_PIPELINE: Final = 10_000
"""writes sent together: their answers are kept until the last has come"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one write.

    Attributes:
        error: ``None`` where it was applied; ``OutcomeUnknownError`` where nobody knows; else the refusal.
    """

    error: BridgeError | None = None

    @property
    def applied(self) -> bool:
        """Whether it was applied."""
        return self.error is None

    def check(self) -> None:
        """Raise the error, if there is one."""
        if self.error is not None:
            raise self.error


def wire_pipeline(writes: Sequence[Put | Delete]) -> list[Any]:
    """The term to send; positions are the correlations.

    Raises:
        ConfigurationError: none, too many, or one that is no plain write.
    """
    if not 0 < len(writes) <= MAX_PIPELINE:
        raise ConfigurationError(f"a pipeline has 1 to {MAX_PIPELINE} writes, not {len(writes)}")
    for write in writes:
        if not isinstance(write, Put | Delete) or has_conditions(write.path):
            raise ConfigurationError(f"a pipeline takes Put and Delete of exact paths, not {write!r:.200}")
        if isinstance(write, Put) and write.keep_while is not None:
            raise ConfigurationError("a pipeline takes no keep_while: use a transaction")
    return [(position, wire_operation(write)) for position, write in enumerate(writes)]


def outcomes(term: Any, count: int) -> list[Outcome]:
    """The outcomes in the order of the writes.

    Raises:
        ProtocolError: no outcome for each.
    """
    try:
        found = {position: _outcome(reply) for position, reply in term}
    except (TypeError, ValueError):
        found = {}
    if found.keys() != set(range(count)):
        raise ProtocolError(f"no outcome for each write: {term!r:.200}")
    return [found[position] for position in range(count)]


def _outcome(reply: Any) -> Outcome:
    try:
        unwrap(reply)
    except StoreTimeoutError as error:
        unknown = OutcomeUnknownError(f"no answer in time; it may have been applied ({error})")
        unknown.__cause__ = error
        return Outcome(unknown)
    except KhepriError as error:
        return Outcome(error)
    return Outcome()
