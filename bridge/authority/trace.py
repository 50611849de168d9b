"""Which messages crossed in a transfer, from what was really received.

A *hop* is one message between hosts. Every message carries the trace id of its transfer and the number of
messages before it on its path; who receives one records it. An answer of the homeserver proves that its
request was received, so the two are recorded together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

HOME: Final = "home"
"""how records name the homeserver, whichever of its members was asked"""


class Message(msgspec.Struct, frozen=True, kw_only=True, tag="message"):
    """One message that crossed between hosts.

    Attributes:
        trace: 16 bytes, the transfer.
        hop: messages before it on its path.
        kind: ``push``, ``pull``, ``claim``, ``answer``, ``grant``, ``recall``, ``released``, ``accepted``,
            ``offer``, ``state``, ``request``, ``ask``, ``decision`` or ``outcome``.
        sender: a server, or ``home``.
        receiver: a server, or ``home``.
        at_ns: when it was received, monotonic.
    """

    trace: bytes
    hop: int
    kind: str
    sender: str
    receiver: str
    at_ns: int


CASES: Final = {
    "push": (("push", "answer", "grant", "accepted"), 2),
    "pull": (("pull", "answer", "recall", "released"), 3),
    "switch": (("offer", "claim", "answer", "state"), 3),
    "ask": (("request", "answer", "ask", "decision", "answer", "outcome", "recall", "released"), 5),
}
"""the formula: the messages of each case, and how many lie on the critical path (R0-29, R0-33)"""

_ACTING: Final = {"push": "grant", "pull": "released", "switch": "answer", "ask": "released"}
"""the message after which the new holder acts"""
_BEGIN: Final = {"push": "push", "pull": "pull", "offer": "switch", "request": "ask"}
"""the case by the message that begins it"""


@dataclass(frozen=True, slots=True)
class Transfer:
    """One transfer as it crossed.

    Attributes:
        case: ``push``, ``pull``, ``switch`` or ``ask``; ``other`` where its first message is none of theirs.
        messages: in the order received, repeats of one and the same message once.
    """

    trace: bytes
    case: str
    messages: tuple[Message, ...]

    @property
    def critical_path(self) -> int:
        """Hops up to authority: the messages before the new holder may act."""
        last = _ACTING.get(self.case)
        hops = [message.hop for message in self.messages if message.kind == last]
        return max(hops, default=-1) + 1


def transfers(messages: Iterable[Message]) -> list[Transfer]:
    """Group messages by transfer, in order of their first message.

    A message told twice (a feed is at least once) is the same hop of the same kind between the same two,
    and counts once; a request that was repeated because its answer was lost is another story and does not
    come here, since it got one answer.
    """
    by_trace: dict[bytes, dict[tuple[int, str, str, str], Message]] = defaultdict(dict)
    for message in messages:
        key = (message.hop, message.kind, message.sender, message.receiver)
        by_trace[message.trace].setdefault(key, message)
    grouped = []
    for trace, unique in by_trace.items():
        ordered = tuple(sorted(unique.values(), key=lambda message: (message.hop, message.at_ns)))
        kinds = {message.kind for message in ordered}
        case = next((case for kind, case in _BEGIN.items() if kind in kinds), "other")
        grouped.append(Transfer(trace, case, ordered))
    return sorted(grouped, key=lambda transfer: min(message.at_ns for message in transfer.messages))


def messages_per_transfer(grouped: Sequence[Transfer]) -> float:
    """Mean number of messages over the transfers; 0.0 without any."""
    if not grouped:
        return 0.0
    return sum(len(transfer.messages) for transfer in grouped) / len(grouped)
