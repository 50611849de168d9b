"""A way to another node that keeps what is sent to it."""

from __future__ import annotations

import asyncio
from typing import Any

from bridge.dist import LARGE, ControlMessage
from bridge.errors import ConfigurationError, DeadlineError, InvalidStateError
from bridge.etf import decode_bare_untrusted, encode_bare


class RecordingPeer:
    """A ``Peer`` that encodes, as a connection does, and sends nowhere.

    Attributes:
        sent: control messages, or (control message, payload); of encoded ones the decoded terms.
        ended: once set, sending fails as on a connection that has ended.
    """

    def __init__(self) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent: list[Any] = []
        self.ended = False
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def writable(self) -> bool:
        """Whether ``hold`` was not called last."""
        return self._writable.is_set()

    def hold(self, held: bool = True) -> None:
        """Take no more for now."""
        if held:
            self._writable.clear()
        else:
            self._writable.set()

    def takes(self, size: int) -> bool:
        """See ``Peer``."""
        return size >= 0 and self.writable

    async def drain(self, deadline: float, size: int = LARGE) -> None:
        """See ``Peer``."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._writable.wait()
        except TimeoutError:
            raise DeadlineError("held") from None

    def send(self, message: ControlMessage, payload: Any = None) -> None:
        """See ``Peer``."""
        if self.ended:
            raise InvalidStateError("ended")
        for part in (payload, getattr(message, "reason", None)):
            if part is not None:
                encode_bare(part)
        self.sent.append(message if payload is None else (message, payload))

    def send_encoded(self, control: bytes, payload: bytes, *, at_once: bool = False) -> None:
        """See ``Peer``."""
        del at_once
        if self.ended:
            raise InvalidStateError("ended")
        self.sent.append((decode_bare_untrusted(control, 0)[0], decode_bare_untrusted(payload, 0)[0]))

    def take(self) -> Any:
        """The oldest thing sent that was not taken yet."""
        if not self.sent:
            raise ConfigurationError("nothing was sent")
        return self.sent.pop(0)
