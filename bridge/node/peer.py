"""What messages to a node go through: the connection to another one, or this node's way to itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from bridge.dist import ControlMessage, Received
from bridge.dist.control import WITH_PAYLOAD, control_term, parse_control_untrusted
from bridge.errors import InvalidStateError
from bridge.etf import decode_bare_untrusted, encode_bare


class Peer(Protocol):
    """Takes messages for one node, in order."""

    closed: asyncio.Future[None]
    """done when nothing can be sent any more"""

    @property
    def writable(self) -> bool:
        """Whether the node keeps up with what is sent to it; else ``drain`` before sending more."""

    def takes(self, size: int) -> bool:
        """Like ``writable`` for so many bytes (negative: not known); see ``DistTransport.takes``."""

    async def drain(self, deadline: float, size: int = -1) -> None:
        """Wait until it takes so many bytes, at most until that time of the event loop.

        Raises:
            DeadlineError: it did not.
        """

    def send(self, message: ControlMessage, payload: Any = None) -> None:
        """Queue a message.

        Raises:
            InvalidStateError: the connection has ended.
            ConfigurationError: something in it is no term.
            LimitExceededError: it is larger than ``max_packet_bytes``, or too deep.
        """

    def send_encoded(self, control: bytes, payload: bytes, *, at_once: bool = False) -> None:
        """Like ``send`` with terms by ``encode_bare``."""


class Loopback:
    """A node's messages to its own processes, which arrive as if they came from another one.

    Everything is encoded and decoded, so that a process never shares a list or a dict with another, and
    what is no term is refused here as well.

    Args:
        received: takes each message; synchronous.
    """

    def __init__(self, received: Callable[[Loopback, Received], None]) -> None:
        self._received = received
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()

    @property
    def writable(self) -> bool:
        """Always: a mailbox that is full ends instead."""
        return True

    def takes(self, size: int) -> bool:
        """Always."""
        return size >= 0

    async def drain(self, deadline: float, size: int = -1) -> None:
        """Nothing to wait for."""

    def close(self) -> None:
        """Nothing is sent any more. Harmless twice."""
        if not self.closed.done():
            self.closed.set_result(None)

    def send(self, message: ControlMessage, payload: Any = None) -> None:
        """See ``Peer.send``."""
        control, reason = control_term(message, exit_payload=True)
        followed = control[0] in WITH_PAYLOAD
        body = encode_bare(payload if reason is None else reason) if followed else b""
        self.send_encoded(encode_bare(control), body)

    def send_encoded(self, control: bytes, payload: bytes, *, at_once: bool = False) -> None:
        """See ``Peer.send_encoded``."""
        del at_once
        if self.closed.done():
            raise InvalidStateError("the node was closed")
        term, _ = decode_bare_untrusted(control, 0)
        body = decode_bare_untrusted(payload, 0)[0] if payload else None
        message = parse_control_untrusted(term, body)
        if message is not None:
            # In a turn of its own, as from a socket: whoever sends is never called back from within.
            self._loop.call_soon(self._received, self, Received(control=message, payload=body))
