"""What the client and the feed need from below: calls that find a living member, and a mailbox.

A hidden node satisfies it through ``NodeCaller``; so can an Erlang port or a tree in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from bridge.etf import Pid


class Inbox(Protocol):
    """Messages for one pid of this side, in the order in which they came (``bridge.node.Mailbox``)."""

    @property
    def pid(self) -> Pid:
        """Whom members send to."""

    @property
    def closed(self) -> bool:
        """Whether nothing more will arrive."""

    def put(self, message: Any) -> None:
        """Deliver a message from this side; a closed inbox drops it."""

    async def receive(self, *, timeout: float | None = None) -> Any:
        """The next message.

        Args:
            timeout: seconds to wait; ``None`` waits until a message comes or the inbox ends.

        Raises:
            DeadlineError: none came in time.
            ClosedError: the inbox, or what it belongs to, was closed.
            LimitExceededError: it overflowed.
        """

    async def close(self) -> None:
        """Take no more messages; whoever waits in ``receive`` gets ``ClosedError``."""


class Caller(Protocol):
    """Calls functions of the members of one cluster, at whichever of them is alive."""

    @property
    def name(self) -> str:
        """Of this side, 1 to 200 bytes, stable from start to start: operation ids begin with it."""

    @property
    def current(self) -> str | None:
        """The member that calls go to now, or ``None``."""

    async def call(
        self, module: str, function: str, args: Sequence[Any], *, timeout: float, idempotent: bool
    ) -> Any:
        """Call a function on the current member and await its answer.

        Args:
            module: name of the module.
            function: name of the function.
            args: terms.
            timeout: seconds for all of it, failing over included.
            idempotent: whether running it twice does no harm; only then is it repeated on another member.

        Raises:
            RemoteError: the function raised.
            OutcomeUnknownError: not idempotent, sent, and the answer was lost.
            DeadlineError: no answer in time (idempotent), or no member was reached (nothing was sent).
            ConnectionLostError, HandshakeError: no member was reached; nothing was sent.
        """

    async def cast(self, member: str, module: str, function: str, args: Sequence[Any]) -> None:
        """Call a function on this member without awaiting an answer.

        Raises:
            ConnectionLostError, DeadlineError: it is not reachable.
        """

    def mailbox(self) -> Inbox:
        """A new inbox; its owner closes it."""

    def on_change(self, callback: Callable[[str | None], None]) -> None:
        """Call ``callback(member)`` when another member is current, and with ``None`` when none is."""

    def off_change(self, callback: Callable[[str | None], None]) -> None:
        """Undo ``on_change``; harmless twice."""

    def suspect(self, member: str) -> None:
        """Leave a member that answers, but not usefully: one that is cut off from its cluster, say."""

    async def close(self) -> None:
        """Stop looking for living members; new calls may fail with ``ClosedError``."""
