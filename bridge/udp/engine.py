"""The endpoint on an asyncio loop: one socket, drained in batches, flushed once per batch.

The order of work is fixed: feed what came, send, dispatch, re-arm. Sending goes before dispatching so that
a slow handler does not delay acknowledgements; what handlers send themselves goes out in one flush after
all of them ran. No timer fires while they run, so that it is set last: a round trip waits for them alone.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import secrets
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Final, Self, SupportsIndex, assert_never

import numpy as np
import numpy.typing as npt

from bridge.errors import (
    ClosedError,
    ConfigurationError,
    ConnectionLostError,
    DeadlineError,
    InvalidStateError,
)
from bridge.jose import Jwk
from bridge.udp.conditioner import Conditioner
from bridge.udp.config import UdpConfig
from bridge.udp.endpoint import Endpoint
from bridge.udp.events import (
    EndpointEvent,
    MessageReceived,
    PeerUnreachable,
    SessionClosed,
    SessionEstablished,
    StateReceived,
    StatesReceived,
    UdpEvent,
)
from bridge.udp.latest import Matrix
from bridge.udp.peers import Address, Peer
from bridge.udp.session import Session
from bridge.udp.socket import SocketCounters, UdpSocket
from bridge.udp.statistics import EndpointStatistics
from bridge.udp.transmit import Transmit

_RECEIVE_CALLS: Final = 64
"""System calls per turn of the loop: a flood must not starve timers and other tasks,"""
_RECEIVE_BYTES: Final = 1 << 19
"""nor bytes, half a millisecond of a fat link: acknowledgements go at the end of the turn."""
_LOOKS: Final = 8
"""At a polled socket in a turn that finds nothing: a turn of the loop takes as long as several."""
_EVENTS_PER_TURN: Final = 4096
_FULL_PAUSE: Final = 0.01
"""Seconds until timers are looked at again while the kernel has no room for datagrams."""
_REFUSED_PAUSE: Final = 0.1
"""Seconds until it is tried again after ``before_sealing`` raised."""
_UNREACHABLE: Final = (
    "no handshake with peer {} was completed: it does not run at the address given here, "
    "has not added this engine with its public key, has another key than the one given here, or was removed"
)
_FAULTS: Final = (Exception, asyncio.CancelledError)
"""Of the application's callbacks: the latter is what the result of a cancelled future raises."""
_DATA: Final = frozenset((StateReceived, StatesReceived, MessageReceived))

_logger = logging.getLogger("bridge.udp")


_engines: Final = weakref.WeakSet["UdpEngine"]()


def _disown_all() -> None:
    for engine in list(_engines):
        engine._disown()


# A child that went on would seal other plaintexts under the sequences its parent also uses.
os.register_at_fork(after_in_child=_disown_all)


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000


class UdpEngine:
    """Datagram sessions over one UDP socket, as an async context manager.

    Without ``on_event`` each session is read by itself, ``async for event in session``, and :meth:`events`
    tells of sessions that begin and peers that do not answer. Messages nobody takes hold back their senders
    by credit; states nobody takes are dropped oldest first. With ``on_event`` all events go there, called
    synchronously from the loop, which costs least.

    An engine and its sessions belong to the thread of the loop that the engine was entered on; from others
    use ``loop.call_soon_threadsafe``.
    """

    def __init__(
        self,
        config: UdpConfig,
        *,
        identity: Jwk,
        on_event: Callable[[UdpEvent], None] | None = None,
        before_sealing: Callable[[], None] | None = None,
        conditioner: Conditioner | None = None,
    ) -> None:
        """Make an engine; the socket is opened on entering it.

        Args:
            identity: private P-256 key.
            on_event: must be quick and should not raise; what it raises goes to the loop's handler.
            before_sealing: called each time before datagrams are sealed, after all receiving; what it
                withdraws (``Session.drop_states``) is not sealed. Where it raises nothing is, and it is
                asked again a little later; but a closing engine sends its last word all the same.
            conditioner: a bad network for outgoing datagrams; for tests and rehearsals.
        """
        self._config = config
        self._before_sealing = before_sealing
        self._on_event = on_event
        self._conditioner = conditioner
        self._endpoint = Endpoint(
            config,
            identity=identity,
            random_bytes=secrets.token_bytes,
            unix_ms=_unix_ms,
            on_pending=self._schedule_flush,
            on_heard=self._wake,
            wait=self._wait if on_event is None else None,
        )
        self._socket: UdpSocket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        _engines.add(self)
        self._now = 0.0
        self._flush_scheduled = False
        self._has_pending = False
        self._is_writing = False
        self._is_refused = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._waiters: dict[str, list[asyncio.Future[Session]]] = {}
        self._listening: dict[Session, list[asyncio.Future[None]]] = {}
        self._events: deque[EndpointEvent] = deque(maxlen=config.max_peers)
        self._has_events = asyncio.Event()
        self._is_closing = False
        self._is_closed = False

    async def __aenter__(self) -> Self:
        if self._socket is not None:
            raise InvalidStateError("an engine is entered once: make a new one")
        self._socket = UdpSocket(self._config)
        self._loop = asyncio.get_running_loop()
        if self._config.busy_poll:
            self._loop.call_soon(self._poll)
        else:
            self._loop.add_reader(self._socket.fileno(), self._on_readable)
        try:
            self._pump()
        except BaseException:
            self.close()  # nobody else will: what was not entered is not left
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Tell peers, close the socket, end :meth:`events`; messages not acknowledged are reported first."""
        if self._is_closing or self._socket is None or self._loop is None:
            return
        self._is_closing = True  # a handler that hears of it may close the engine too
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(ClosedError("the engine was closed"))
        self._waiters.clear()
        self._endpoint.close()
        # What a network holds arrives also when its sender is gone; what this one holds must go now.
        self._transmit(until=math.inf)
        self._socket.flush()  # what is sent goes behind what waited already
        self._dispatch(limit=None)
        self._is_closed = True
        self._loop.remove_reader(self._socket.fileno())
        if self._is_writing:
            self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        if self._timer is not None:
            self._timer.cancel()
        self._has_events.set()

    @property
    def local_address(self) -> Address:
        """Where the socket is bound.

        Raises:
            InvalidStateError: the engine is not open.
        """
        return self._open_socket().local_address

    @property
    def socket_counters(self) -> SocketCounters:
        """System calls and errors of the socket."""
        return self._open_socket().counters

    @property
    def uses_offload(self) -> tuple[bool, bool]:
        """Whether the kernel segments (out) and merges (in) runs of datagrams for us."""
        return self._open_socket().sends_segments, self._open_socket().receives_segments

    def add_peer(self, peer: Peer) -> None:
        """See :meth:`bridge.udp.endpoint.Endpoint.add_peer`."""
        self._endpoint.add_peer(peer)

    def remove_peer(self, name: str) -> None:
        """See :meth:`bridge.udp.endpoint.Endpoint.remove_peer`."""
        self._endpoint.remove_peer(name)

    def session(self, name: str) -> Session | None:
        """The established session with a peer, or ``None``."""
        return self._endpoint.session(name)

    def sessions(self) -> list[Session]:
        """All established sessions."""
        return self._endpoint.sessions()

    def statistics(self) -> EndpointStatistics:
        """Counters of the endpoint."""
        return self._endpoint.statistics()

    def send_states(
        self, sessions: Sequence[Session], payloads: Matrix, stream: SupportsIndex = 0
    ) -> npt.NDArray[np.int64]:
        """Send many sessions their newest state of a stream, now: what a server tells its players each tick.

        The same as :meth:`Session.send_state` for each and :meth:`flush`, for a third of the time. What a
        session may not send yet waits in it. Sessions that are closed are passed over.

        Args:
            sessions: of this engine, none of them twice.
            payloads: unsigned bytes of shape (n, size), row i being the state of session i, at most
                ``max_state_bytes`` of any of them. Free to be changed afterwards.
            stream: 0 … ``max_state_streams`` - 1.

        Returns:
            The number of each state, as of :meth:`Session.send_state`, shape (n,).

        Raises:
            ConfigurationError: no array of that shape and type, another engine's session, or one twice.
            InvalidStateError: the engine is not open.
            LimitExceededError: payloads too long, or a stream out of bounds.
        """
        self._running_loop()
        numbers = self._endpoint.send_states(sessions, payloads, stream)
        try:
            self._transmit()
        finally:
            # What was kept back because the kernel is full must be superseded by what comes next.
            self._endpoint.part_states()
            self._rearm()
        return numbers

    async def connect(self, name: str, *, timeout: float | None = None) -> Session:
        """The session with a peer, made if there is none.

        Args:
            timeout: seconds, where this is to end before ``handshake_timeout``, until which the handshake
                itself goes on; ``None``: as long as that.

        Raises:
            ConfigurationError: no such peer, or one with an address of the other version of IP.
            ConnectionLostError: no handshake within ``handshake_timeout``, or the peer was removed.
            DeadlineError: ``timeout`` passed.
            ClosedError: the engine was closed meanwhile.
        """
        session = self._endpoint.session(name)
        if session is not None:
            return session
        waiter: asyncio.Future[Session] = self._running_loop().create_future()
        peer_host, own_host = self._endpoint.peer(name).address[0], self.local_address[0]
        if (":" in peer_host) != (":" in own_host):
            raise ConfigurationError(
                f"peer {name} is at {peer_host} and this engine at {own_host}: "
                "an engine speaks one version of IP, make another for the other"
            )
        self._endpoint.connect(name, now=time.monotonic())
        waiters = self._waiters.setdefault(name, [])
        waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                return await waiter
        except TimeoutError as error:
            raise DeadlineError(f"no session with {name} within {timeout} s") from error
        finally:
            if waiter in waiters:
                waiters.remove(waiter)

    def start_connect(self, name: str) -> None:
        """Begin what :meth:`connect` does without waiting; an event tells the outcome.

        Raises:
            ConfigurationError: no such peer.
        """
        self._running_loop()
        self._endpoint.connect(name, now=time.monotonic())

    async def events(self) -> AsyncIterator[EndpointEvent]:
        """Sessions that were established and peers that did not answer, until the engine is closed.

        For one reader. What nobody reads is kept up to ``max_peers``, the newest.

        Raises:
            InvalidStateError: events go to ``on_event``, or the engine was never open.
        """
        if self._socket is None:
            raise InvalidStateError("the engine is not open: use 'async with'")
        if self._on_event is not None:
            raise InvalidStateError("events go to on_event")
        while True:
            if self._events:
                yield self._events.popleft()
            elif self._is_closed:
                return
            else:
                self._has_events.clear()
                await self._has_events.wait()

    async def _wait(self, session: Session) -> None:
        """Until the session hears of its peer, or ends."""
        heard: asyncio.Future[None] = self._running_loop().create_future()
        listening = self._listening.setdefault(session, [])
        listening.append(heard)
        try:
            await heard
        finally:
            listening.remove(heard)
            if not listening:
                self._listening.pop(session, None)

    def _wake(self, session: Session) -> None:
        for heard in self._listening.get(session, ()):
            if not heard.done():
                heard.set_result(None)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise InvalidStateError("an engine does not survive a fork: make a new one in the child")

    def _disown(self) -> None:
        self._endpoint.disown()

    def _open_socket(self) -> UdpSocket:
        if self._socket is None or self._is_closed:
            raise InvalidStateError("the engine is not open")
        return self._socket

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        self._check_process()
        if self._loop is None or self._is_closed:
            raise InvalidStateError("the engine is not open: use 'async with'")
        return self._loop

    def _poll(self) -> None:
        """Look at the socket without being told that there is something, again on every turn of the loop."""
        if self._is_closed:
            return
        self._running_loop().call_soon(self._poll)
        if self._open_socket().has_datagrams(looks=_LOOKS):
            self._on_readable()

    def _on_readable(self) -> None:
        self._now = time.monotonic()
        self._open_socket().receive(self._receive, max_calls=_RECEIVE_CALLS, max_bytes=_RECEIVE_BYTES)
        self._pump()

    def _receive(self, data: memoryview, segment: int, address: Address) -> None:
        if segment >= len(data):
            self._endpoint.receive_datagram(data, address, now=self._now)
        else:
            self._endpoint.receive_run(data, segment, address, now=self._now)

    def _on_writable(self) -> None:
        self._open_socket().flush()
        self._watch_writability()
        if not self._is_writing:
            self._pump()

    def _on_timer(self) -> None:
        self._timer = self._timer_at = None
        self._endpoint.handle_timer(now=time.monotonic())
        self._pump()

    def _schedule_flush(self) -> None:
        self._has_pending = True
        if self._flush_scheduled or self._loop is None or self._is_closed:
            return
        self._flush_scheduled = True
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._is_closed:
            return
        try:
            # Else all was sent meanwhile, by the application or with an answer.
            if self._has_pending:
                self._transmit()
        finally:
            self._dispatch(limit=_EVENTS_PER_TURN)
            self._rearm()

    def flush(self) -> None:
        """Send now what would otherwise go at the end of this turn of the loop."""
        if self._loop is None or self._is_closed:
            self._running_loop()
        self._transmit()  # the timer is set at the end of this turn, as it would have been

    def _pump(self) -> None:
        try:
            self._transmit()
        finally:
            # Whatever was raised, of what came the application hears, and timers go on.
            self._dispatch(limit=_EVENTS_PER_TURN)
            self._rearm()

    def _transmit(self, *, until: float | None = None) -> None:
        if os.getpid() != self._pid:
            self._check_process()
        if self._is_writing and until is None:
            # The kernel is full: what waits in sessions is superseded there, and not sent when it is stale.
            return
        self._has_pending = False
        if self._before_sealing is not None:
            self._ask_before_sealing(self._before_sealing, is_last=until is not None)
        now = time.monotonic()
        transmits = self._endpoint.datagrams_to_send(now=now)
        if self._conditioner is not None:
            for transmit in transmits:
                for datagram in transmit.datagrams():
                    self._conditioner.push(datagram, transmit.address, now=now)
            transmits = [
                Transmit.of_one(datagram, address)
                for datagram, address in self._conditioner.pop_due(now=now if until is None else until)
            ]
        if transmits and self._open_socket().send(transmits):
            self._watch_writability()

    def _ask_before_sealing(self, ask: Callable[[], None], *, is_last: bool) -> None:
        try:
            ask()
        except _FAULTS as error:
            if not is_last:
                self._is_refused = True
                raise
            # Of sessions that are over nothing but that is sealed.
            self._report("before_sealing raised as the engine closed", error)
        self._is_refused = False

    def _watch_writability(self) -> None:
        udp, loop = self._open_socket(), self._running_loop()
        if udp.has_backlog and not self._is_writing:
            loop.add_writer(udp.fileno(), self._on_writable)
        elif self._is_writing and not udp.has_backlog:
            loop.remove_writer(udp.fileno())
        self._is_writing = udp.has_backlog

    def _rearm(self) -> None:
        if self._is_closed:  # by a handler
            return
        when = self._endpoint.get_timer()
        if self._conditioner is not None:
            held = self._conditioner.get_timer()
            when = held if when is None else when if held is None else min(when, held)
        if when is not None and self._is_writing:
            # What is due cannot go before the kernel has room, and would be due again at once until then.
            when = max(when, time.monotonic() + _FULL_PAUSE)
        if self._is_refused:
            # Who has something to send has said so, and does not say it again.
            when = time.monotonic() + _REFUSED_PAUSE
        # A timer that moved back fires early, finds nothing due and is armed anew.
        if when is None or (self._timer_at is not None and self._timer_at <= when):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        # Not call_at: uvloop's own clock counts whole milliseconds, too coarse to time a round trip by.
        self._timer = self._running_loop().call_later(max(0.0, when - time.monotonic()), self._on_timer)

    def _dispatch(self, *, limit: int | None) -> None:
        taken, on_event = 0, self._on_event
        while limit is None or taken < limit:
            event = self._endpoint.next_event()
            if event is None:
                return
            taken += 1
            if type(event) not in _DATA:
                self._settle(event)
            if on_event is not None:
                try:
                    on_event(event)
                except _FAULTS as error:
                    self._complain(event, error)
            elif isinstance(event, SessionEstablished | PeerUnreachable):
                self._events.append(event)
                self._has_events.set()
        self._schedule_flush()

    def _complain(self, event: UdpEvent, error: BaseException) -> None:
        # The loop's handler is where asyncio's users look; the engine goes on for the other peers.
        self._report(f"on_event raised for {type(event).__name__} of {event.peer}", error)

    def _report(self, message: str, error: BaseException) -> None:
        assert self._loop is not None
        self._loop.call_exception_handler({"message": message, "exception": error})

    def _settle(self, event: UdpEvent) -> None:
        match event:
            case SessionEstablished(peer=peer, session=session):
                _logger.info("session with %s established at %s", peer, session.address)
                for waiter in self._waiters.pop(peer, []):
                    if not waiter.done():
                        waiter.set_result(session)
            case PeerUnreachable(peer=peer):
                _logger.info("peer %s is unreachable", peer)
                if self._endpoint.is_connecting(peer):
                    # Of an attempt before: the peer was removed and added again, or had another key.
                    return
                for waiter in self._waiters.pop(peer, []):
                    if not waiter.done():
                        waiter.set_exception(ConnectionLostError(_UNREACHABLE.format(peer)))
            case SessionClosed(peer=peer, reason=reason, by_peer=by_peer):
                _logger.info(
                    "session with %s closed: %s%s", peer, reason.name, " by the peer" if by_peer else ""
                )
            case StateReceived() | StatesReceived() | MessageReceived():
                pass
            case _:
                assert_never(event)
