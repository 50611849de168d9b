"""What became of writes with an operation id, so that each is applied once.

Source: ``docs/protocol.md`` §1 ("Operation ids"); the Erlang module ``kb_tx``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from bridge.khepri.memory.requests import RefusedError

KEPT_RESULTS: Final = 256
MAX_CLIENTS: Final = 4_096
_EVICTED_AT_ONCE: Final = 512
_MAX: Final = 2**64 - 1


@dataclass(slots=True)
class _Client:
    incarnation: int
    low_water: int = 0
    purpose: bytes | None = None
    results: dict[int, Any] = field(default_factory=dict)
    used: int = 0


class Outcomes:
    """The last results of each client."""

    def __init__(self) -> None:
        self._clients: dict[bytes, _Client] = {}
        self._created = 0

    def once(self, operation: Any, execute: Callable[[], Any]) -> Any:
        """The stored result of an operation id, or that of ``execute``, which is stored then.

        Args:
            operation: ``{Client, Incarnation, Sequence, LowWater}``, or these and a purpose.
            execute: returns the answer, ``{ok, Value}`` or ``{error, …}``, and does not raise.

        Raises:
            RefusedError: ``invalid_options``; ``outcome_unknown`` or ``other_purpose``, and nothing was
                executed.
        """
        name, incarnation, sequence, low_water, purpose = _checked(operation)
        known = self._clients.get(name)
        if known is not None and incarnation < known.incarnation:
            raise RefusedError("outcome_unknown", "a newer incarnation of this client has written since")
        client = known if known is not None and incarnation == known.incarnation else _Client(incarnation)
        if purpose is not None:
            if client.purpose not in (None, purpose):
                raise RefusedError(
                    "other_purpose", "operation ids of this client and incarnation are of something else"
                )
            client.purpose = purpose
        if sequence in client.results:
            return client.results[sequence]
        if sequence <= client.low_water:
            raise RefusedError("outcome_unknown", "the result of this operation id was forgotten")
        outcome = execute()
        client.results[sequence] = outcome
        _trim(client, max(client.low_water, low_water), sequence)
        if known is None:
            self._make_room()
            self._created += 1
        client.used = self._created
        self._clients[name] = client
        return outcome

    def _make_room(self) -> None:
        if len(self._clients) >= MAX_CLIENTS:
            oldest = sorted((client.used, name) for name, client in self._clients.items())
            for _, name in oldest[:_EVICTED_AT_ONCE]:
                del self._clients[name]


def _trim(client: _Client, mark: int, newest: int) -> None:
    """What falls out raises the low-water mark: it must never look as if it had not been executed."""
    client.low_water = mark
    client.results = {key: one for key, one in client.results.items() if key > mark or key == newest}
    if len(client.results) > KEPT_RESULTS:
        oldest = min(client.results)
        client.low_water = max(mark, oldest)
        del client.results[oldest]


def _checked(operation: Any) -> tuple[bytes, int, int, int, bytes | None]:
    match operation:
        case (bytes() as name, int() as incarnation, int() as sequence, int() as low_water, *purpose) if (
            1 <= len(name) <= 255
            and 1 <= incarnation <= _MAX
            and 1 <= sequence <= _MAX
            and 0 <= low_water < sequence
        ):
            match purpose:
                case []:
                    return name, incarnation, sequence, low_water, None
                case [bytes() as text] if 1 <= len(text) <= 255:
                    return name, incarnation, sequence, low_water, text
    raise RefusedError(
        "invalid_options",
        "an operation id is {Client, Incarnation, Sequence, LowWater}, or these and a Purpose",
    )
