"""The asyncio side of one distribution connection: bytes in, events out, one write per turn of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from bridge.dist import LARGE, PORTION, ControlMessage, DistConnection, DistEvent, Status
from bridge.errors import DeadlineError
from bridge.node.collection import counted_as_old

_FLUSH_BYTES: Final = 65_536
"""bytes that wait for the end of the turn at most; asyncio's own high-water mark"""


class DistTransport(asyncio.Protocol):
    """Runs a ``DistConnection`` on a socket.

    Args:
        connection: made for this socket.
        dispatch: takes each event; synchronous, must not raise.
        lost: called once, after the last event.
        answered: takes answers where a read brought nothing else; else they come as an event.

    Attributes:
        connection: as given.
        cause: what the socket ended with, where it ended badly.
        closed: done when the socket is gone.
    """

    def __init__(
        self,
        connection: DistConnection,
        dispatch: Callable[[DistTransport, DistEvent], None],
        lost: Callable[[DistTransport], None],
        answered: Callable[[list[tuple[bytes, Any]]], None],
    ) -> None:
        self.connection = connection
        self._dispatch = dispatch
        self._lost = lost
        self._answered = answered
        self.cause: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed_connected = False
        self._flushing = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._decoding = False
        self._reading = True
        self._waiting = 0  # large messages, and those behind them
        self._fewer = asyncio.Event()  # set for a moment when one of them is out
        self.closed: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the socket stands."""
        # uvloop's transports do what asyncio.Transport does without being one.
        self._transport = cast(asyncio.Transport, transport)
        self._pump()
        self._arm()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes came."""
        connection = self.connection
        connection.receive_data(data, now=self._loop.time())
        answers = connection.take_answers()
        if answers is None:
            self._pump()
        else:
            # Nothing to write comes of these, and what waits has its turn already.
            self._answered(answers)

    def eof_received(self) -> bool:
        """asyncio: the peer closed its side; so do we."""
        self.connection.receive_eof(now=self._loop.time())
        self._pump()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the socket is gone."""
        self.cause = exc
        if self._timer is not None:
            self._timer.cancel()
        self.connection.receive_eof(now=self._loop.time())
        self._transport = None
        self._pump()
        self._writable.set()
        self._lost(self)
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        """asyncio: the peer reads slower than we write."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """asyncio: writing may go on."""
        self._writable.set()
        # In the turn after those who wait to send, so that large messages do not starve them.
        if self._waiting:
            self._flush_next_turn()

    @property
    def writable(self) -> bool:
        """Whether the peer keeps up with what is written to it; else ``drain`` before sending more."""
        return self.takes(-1)

    def takes(self, size: int) -> bool:
        """Like ``writable`` for so many bytes; negative: not known yet.

        Small messages go between the portions of a large one, a large one waits until none is left. What may
        be either goes where one waits at most: if small it passes that one, and large ones cannot pile up.
        """
        if not self._writable.is_set():
            return False
        return self._waiting <= 1 if size < 0 else size < LARGE or not self._waiting

    async def drain(self, deadline: float, size: int = -1) -> None:
        """Wait until the peer has taken enough of what was sent, or the connection has ended.

        Args:
            deadline: time of the event loop.
            size: as for ``takes``.

        Raises:
            DeadlineError: it did not; nothing more was sent.
        """
        try:
            async with asyncio.timeout_at(deadline):
                # Those who wait wake one after another, and the first may fill the buffer again.
                while not self.takes(size):
                    await (self._fewer if self._writable.is_set() else self._writable).wait()
        except TimeoutError:
            raise DeadlineError(f"{self.connection.peer} takes no more data") from None

    def answer_name(self, status: Status) -> None:
        """Decide about the peer of ``NameReceived``; the events that follow come in this turn."""
        self.connection.answer_name(status, now=self._loop.time())

    def send(self, message: ControlMessage, payload: Any = None) -> None:
        """Queue a message for the end of this turn of the loop."""
        self.connection.send(message, payload, now=self._loop.time())
        self._flush_soon()

    def send_encoded(self, control: bytes, payload: bytes, *, at_once: bool = False) -> None:
        """Like ``send`` with encoded terms; ``at_once`` writes without waiting for the end of the turn."""
        if at_once and self._transport is not None:
            packet = self.connection.packet_alone(control, payload, now=self._loop.time())
            if packet is not None:
                self._transport.write(packet)
                return
        waiting = self.connection.send_encoded(control, payload, now=self._loop.time())
        if at_once or waiting >= _FLUSH_BYTES:
            self._flush()
        elif not self._flushing:
            self._flush_next_turn()

    def close(self) -> None:
        """Send what is queued, then close."""
        self.connection.drop_unfinished()
        self._flush(portion=None)
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once; what is queued is lost."""
        self.connection.drop_unfinished()
        if self._transport is not None:
            self._transport.abort()

    def _finish(self) -> None:
        # A close waits until everything is written, and whoever hangs takes nothing: its end would never be
        # told. What a handshake says last is a few bytes, which are told.
        if self._armed_connected:
            self.abort()
        else:
            self.close()

    def _flush_soon(self) -> None:
        # One write per turn of the loop: with 64 calls at once this is 64 times fewer system calls. More
        # than the socket takes anyway goes out at once, so that whoever sends next learns to wait.
        if self.connection.bytes_to_send >= _FLUSH_BYTES:
            self._flush()
        else:
            self._flush_next_turn()

    def _flush_next_turn(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush_turn)

    def _flush_turn(self) -> None:
        self._flushing = False
        self._flush()

    def _flush(self, portion: int | None = PORTION) -> None:
        connection = self.connection
        if portion and not self._writable.is_set():
            portion = 0
        chunks = connection.data_to_send(portion=portion)
        if chunks and self._transport is not None:
            self._transport.write(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        waiting = connection.wants_to_send
        if waiting < self._waiting:
            self._fewer.set()
            self._fewer.clear()
        self._waiting = waiting
        if waiting and self._writable.is_set():
            self._flush_next_turn()

    def _pump(self) -> None:
        self._flush()  # first: a slow handler must not delay ticks
        connection = self.connection
        was_connected = self._armed_connected
        while (event := connection.next_event()) is not None:
            self._dispatch(self, event)
        if connection.connected and not was_connected:
            self._arm()  # ticks are due earlier than the handshake's deadline
        self._flush()
        if connection.get_timer() is None:
            self._finish()
        if connection.unfinished and not self._decoding:
            self._decoding = True
            self._loop.call_soon(self._decode_turn)

    def _decode_turn(self) -> None:
        # A step in each turn: whatever else the loop has to do comes between two of them.
        connection = self.connection
        with counted_as_old():
            connection.decode_on(now=self._loop.time())
        self._pump()
        if connection.receptive is not self._reading and self._transport is not None:
            self._reading = connection.receptive
            if self._reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()
        if connection.unfinished:
            self._loop.call_soon(self._decode_turn)
        else:
            self._decoding = False

    def _arm(self) -> None:
        # Within one phase deadlines only move away as bytes come and go, so the timer is set anew when it
        # fires, not per packet.
        if self._timer is not None:
            self._timer.cancel()
        self._armed_connected = self.connection.connected
        due = self.connection.get_timer()
        self._timer = None if due is None else self._loop.call_at(due, self._fire)

    def _fire(self) -> None:
        self.connection.handle_timer(now=self._loop.time())
        self._pump()
        if self._transport is not None:
            self._arm()
