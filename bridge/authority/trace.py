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
"""how records name the homeserver, whichever of its members was asked; between two, the instance's name"""


class Message(msgspec.Struct, frozen=True, kw_only=True, tag="message"):
    """One message that crossed between hosts.

    Attributes:
        trace: 16 bytes, the transfer.
        hop: messages before it on its path.
        kind: one of those of ``CASES``.
        sender: a server, ``home``, or the name of an instance where there are two.
        receiver: as the sender.
        at_ns: when it was received, monotonic.
    """

    trace: bytes
    hop: int
    kind: str
    sender: str
    receiver: str
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """What a case costs, as it was designed.

    Attributes:
        kinds: of its messages, each as often as it crosses.
        path: messages on the critical path, the one after which the case has come to its end included.
        begins: kind of its first message.
        ends: kind of the message after which the new holder acts, the token is there, or the change is made.
        source: the requirement that says so.
    """

    kinds: tuple[str, ...]
    path: int
    begins: str
    ends: str
    source: str


CASES: Final = {
    "establish": Formula(
        kinds=("token_request", "token"), path=2, begins="token_request", ends="token", source="R0-32"
    ),
    "push_abroad": Formula(
        kinds=("push_abroad", "answer", "escrow", "accept", "grant", "closed"),
        path=3,
        begins="push_abroad",
        ends="grant",
        source="R0-28",
    ),
    "push": Formula(
        kinds=("push", "answer", "grant", "accepted"), path=2, begins="push", ends="grant", source="R0-29"
    ),
    "pull": Formula(
        kinds=("pull", "answer", "recall", "released"), path=3, begins="pull", ends="released", source="R0-29"
    ),
    "switch": Formula(
        kinds=("offer", "claim", "answer", "state"), path=3, begins="offer", ends="answer", source="R0-33"
    ),
    "ask": Formula(
        kinds=("request", "answer", "ask", "decision", "answer", "outcome", "recall", "released"),
        path=5,
        begins="request",
        ends="released",
        source="R0-8",
    ),
    "update": Formula(kinds=("update", "credit"), path=1, begins="update", ends="update", source="R0-30"),
    "central_transfer": Formula(
        kinds=("hand", "told", "handed", "thanks"), path=2, begins="hand", ends="handed", source="R0-35"
    ),
    "central_update": Formula(kinds=("input", "view"), path=2, begins="input", ends="view", source="R0-35"),
}
"""the formula of each case: ``push_abroad`` is Case 1, with one hop between the two homeservers (H = 1);
``update`` is Case 3; ``central_…`` is the client–server baseline of the benchmark, no part of the product"""

_BY_FIRST: Final = {formula.begins: case for case, formula in CASES.items()}


@dataclass(frozen=True, slots=True)
class Transfer:
    """One transfer as it crossed.

    Attributes:
        case: one of ``CASES``; ``other`` where no message of it begins one.
        messages: in the order received, repeats of one and the same message once.
    """

    trace: bytes
    case: str
    messages: tuple[Message, ...]

    @property
    def critical_path(self) -> int:
        """Hops up to authority: the messages before the new holder may act; 0 where that has not come."""
        if self.case not in CASES:
            return 0
        last = CASES[self.case].ends
        return max((message.hop + 1 for message in self.messages if message.kind == last), default=0)

    @property
    def is_whole(self) -> bool:
        """Whether every message of the formula crossed."""
        return self.case in CASES and sorted(m.kind for m in self.messages) == sorted(CASES[self.case].kinds)


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
        case = next((case for kind, case in _BY_FIRST.items() if kind in kinds), "other")
        grouped.append(Transfer(trace, case, ordered))
    return sorted(grouped, key=lambda transfer: min(message.at_ns for message in transfer.messages))


def messages_per_transfer(grouped: Sequence[Transfer]) -> float:
    """Mean number of messages over the transfers; 0.0 without any."""
    if not grouped:
        return 0.0
    return sum(len(transfer.messages) for transfer in grouped) / len(grouped)
