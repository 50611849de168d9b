"""Two transports over a real socket, and one over a socket that records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from bridge.dist import (
    LARGE,
    PORTION,
    Connected,
    Disconnected,
    DistConfig,
    DistConnection,
    DistEvent,
    Failure,
    HandshakeFailed,
    Identity,
    NameReceived,
    Received,
    Role,
    Send,
    Status,
)
from bridge.dist.outbox import Outbox
from bridge.errors import DeadlineError, InvalidStateError
from bridge.etf import Atom, Pid, encode_bare
from bridge.node.transport import DistTransport

_TO = Pid(Atom("b@h"), 1, 0, 6)


@dataclass
class _Side:
    """A transport and what it reported."""

    transport: DistTransport = field(init=False)
    events: asyncio.Queue[DistEvent] = field(default_factory=asyncio.Queue)
    lost: int = 0

    def dispatch(self, transport: DistTransport, event: DistEvent) -> None:
        if isinstance(event, NameReceived):
            transport.answer_name(Status.OK)
        self.events.put_nowait(event)

    def gone(self, transport: DistTransport) -> None:
        assert transport is self.transport
        self.lost += 1


def _side(role: Role, config: DistConfig | None = None) -> _Side:
    name, peer = ("a@h", "b@h") if role is Role.INITIATOR else ("b@h", None)
    identity = Identity(name=name, cookie="c", creation=5)
    now = asyncio.get_running_loop().time()
    connection = DistConnection(role, identity, challenge=7, now=now, config=config, peer=peer)
    side = _Side()
    side.transport = DistTransport(connection, side.dispatch, side.gone, lambda _: None)
    return side


@pytest.fixture
async def sides() -> AsyncIterator[tuple[_Side, _Side]]:
    """Two that have shaken hands."""
    loop = asyncio.get_running_loop()
    a, b = _side(Role.INITIATOR), _side(Role.ACCEPTOR)
    server = await loop.create_server(lambda: b.transport, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await loop.create_connection(lambda: a.transport, "127.0.0.1", port)
    assert isinstance(await a.events.get(), Connected)
    assert isinstance(await b.events.get(), NameReceived)
    assert isinstance(await b.events.get(), Connected)
    yield a, b
    for side in (a, b):
        side.transport.abort()
        await side.transport.closed
        assert side.lost == 1
    server.close()


class _Recorder(asyncio.Transport):
    """A socket that keeps what is written; above ``high`` bytes it tells the protocol to pause."""

    def __init__(self, protocol: DistTransport, high: int = 1 << 30) -> None:
        super().__init__()
        self.protocol = protocol
        self.high = high
        self.written: list[bytes] = []
        self.closed = False
        self.reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))
        if sum(map(len, self.written)) > self.high:
            self.protocol.pause_writing()

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


def _recorded(high: int = 1 << 30, config: DistConfig | None = None) -> tuple[_Side, _Recorder]:
    """An initiator that has shaken hands over a recorder."""
    a = _side(Role.INITIATOR, config)
    b = DistConnection(Role.ACCEPTOR, Identity(name="b@h", cookie="c", creation=6), challenge=8, now=0.0)
    socket = _Recorder(a.transport)
    a.transport.connection_made(socket)
    while not a.transport.connection.connected:
        for chunk in socket.written:
            b.receive_data(chunk, now=0.0)
        socket.written.clear()
        while (event := b.next_event()) is not None:
            if isinstance(event, NameReceived):
                b.answer_name(Status.OK, now=0.0)
        for chunk in b.data_to_send():
            a.transport.data_received(chunk)
    socket.written.clear()
    socket.high = high
    return a, socket


async def test_messages_arrive_in_order_however_large(sides: tuple[_Side, _Side]) -> None:
    a, b = sides
    payloads: list[Any] = [1, bytes(3_000_000), 2, bytes(70_000), 3]
    for payload in payloads:
        a.transport.send(Send(to=_TO), payload)
    received = [await b.events.get() for _ in payloads]
    assert received == [Received(control=Send(to=_TO), payload=payload) for payload in payloads]


async def test_what_is_sent_in_one_turn_is_one_write() -> None:
    a, socket = _recorded()
    for number in range(64):
        a.transport.send(Send(to=_TO), number)
    assert socket.written == []
    await asyncio.sleep(0)
    assert len(socket.written) == 1
    a.transport.connection_lost(None)


async def test_what_is_sent_at_once_does_not_wait_for_the_turn_and_keeps_its_place() -> None:
    a, socket = _recorded()
    a.transport.send(Send(to=_TO), 1)
    control, payload = encode_bare((2, Atom(""), _TO)), encode_bare(2)
    a.transport.send_encoded(control, payload, at_once=True)
    (written,) = socket.written
    assert written.endswith(payload)
    assert encode_bare(1) in written
    # Nothing waits any more: the next one is a write of its own.
    a.transport.send_encoded(control, payload, at_once=True)
    await asyncio.sleep(0)
    assert len(socket.written) == 2
    assert socket.written[1].endswith(payload)
    a.transport.connection_lost(None)


async def test_a_small_message_passes_a_large_one_that_is_decoded(sides: tuple[_Side, _Side]) -> None:
    a, b = sides
    large = [(n, n) for n in range(60_000)]
    a.transport.send(Send(to=_TO), large)
    while not b.transport.connection.unfinished:
        await asyncio.sleep(0)
    other = Pid(Atom("b@h"), 2, 0, 6)
    a.transport.send(Send(to=other), 1)
    assert await b.events.get() == Received(control=Send(to=other), payload=1)
    assert await b.events.get() == Received(control=Send(to=_TO), payload=large)


async def test_nothing_more_is_read_while_too_much_is_to_be_decoded() -> None:
    a, socket = _recorded(config=DistConfig(max_packet_bytes=500_000))
    control = encode_bare((2, Atom(""), _TO))
    payload = encode_bare([(n, n) for n in range(40_000)])
    fragments = Outbox()
    for _ in range(2):
        fragments.put_large(control, payload, None)
    a.transport.data_received(b"".join(fragments.take(None)))
    assert isinstance(await a.events.get(), Connected)
    reading = [socket.reading]
    await asyncio.sleep(0)
    reading.append(socket.reading)
    for _ in range(2):
        assert isinstance(await a.events.get(), Received)
    reading.append(socket.reading)
    assert reading == [True, False, True]
    a.transport.data_received(b"".join(fragments.take(None)))
    a.transport.connection_lost(None)
    await asyncio.sleep(0)


async def test_more_than_a_socket_takes_is_written_at_once_and_makes_the_next_wait() -> None:
    a, socket = _recorded(high=100_000)
    a.transport.send(Send(to=_TO), bytes(200_000))
    assert sum(map(len, socket.written)) > 200_000
    assert not a.transport.writable
    now = asyncio.get_running_loop().time()
    with pytest.raises(DeadlineError, match="b@h takes no more data"):
        await a.transport.drain(now)
    waiting = asyncio.create_task(a.transport.drain(now + 60.0))
    await asyncio.sleep(0)
    a.transport.resume_writing()
    await waiting
    a.transport.connection_lost(None)


async def test_who_waits_looks_again_before_going_on() -> None:
    a, _ = _recorded()
    a.transport.pause_writing()
    waiting = asyncio.create_task(a.transport.drain(asyncio.get_running_loop().time() + 60.0))
    await asyncio.sleep(0)
    a.transport.resume_writing()
    a.transport.pause_writing()  # another waiter came first and filled the buffer again
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    a.transport.connection_lost(None)  # the end frees everybody; sending then says what happened
    await waiting
    with pytest.raises(InvalidStateError):
        a.transport.send(Send(to=_TO), 1)


async def test_closing_sends_what_is_queued_first(sides: tuple[_Side, _Side]) -> None:
    a, b = sides
    a.transport.send(Send(to=_TO), b"last")
    a.transport.close()
    assert await b.events.get() == Received(control=Send(to=_TO), payload=b"last")
    assert isinstance(await b.events.get(), Disconnected)
    await b.transport.closed
    await a.transport.closed


async def test_a_silent_peer_is_left_when_the_handshake_is_due() -> None:
    side = _side(Role.INITIATOR, DistConfig(handshake_timeout=0.01))
    socket = _Recorder(side.transport)
    side.transport.connection_made(socket)
    event = await side.events.get()
    assert isinstance(event, HandshakeFailed)
    assert event.failure is Failure.TIMEOUT
    assert socket.closed
    side.transport.connection_lost(None)


async def test_ticks_are_written_while_nothing_else_is() -> None:
    side, socket = _recorded()
    side.transport._loop.call_soon(side.transport._fire)  # an early call does no harm
    await asyncio.sleep(0)
    assert socket.written == []
    connection = side.transport.connection
    due = connection.get_timer()
    assert due is not None
    connection.handle_timer(now=due)
    side.transport._fire()
    assert socket.written == [bytes(4)]
    side.transport.connection_lost(None)


async def test_losing_the_socket_is_told_once_after_the_last_event() -> None:
    side, _ = _recorded()
    error = ConnectionResetError()
    side.transport.connection_lost(error)
    assert side.transport.cause is error
    assert isinstance(side.events.get_nowait(), Connected)
    assert isinstance(side.events.get_nowait(), Disconnected)
    assert side.lost == 1
    assert side.transport.closed.done()
    side.transport.close()
    side.transport.abort()


async def test_a_large_message_goes_out_in_portions_as_the_socket_takes_them() -> None:
    a, socket = _recorded(high=100_000)
    a.transport.send(Send(to=_TO), bytes(4 * PORTION))
    portions = []
    for _ in range(10):
        portions.append(sum(map(len, socket.written)))
        socket.written.clear()
        a.transport.resume_writing()
        for _ in range(3):
            await asyncio.sleep(0)
    sent = [portion for portion in portions if portion]
    assert len(sent) == 5
    assert max(sent) < PORTION + 1_000
    assert sum(sent) > 4 * PORTION
    assert a.transport.writable
    a.transport.connection_lost(None)


async def test_who_waits_with_little_to_send_goes_between_two_portions() -> None:
    a, socket = _recorded(high=100_000)
    a.transport.send(Send(to=_TO), bytes(4 * PORTION))
    other = encode_bare((2, Atom(""), Pid(Atom("b@h"), 2, 0, 6)))

    async def small() -> None:
        await a.transport.drain(asyncio.get_running_loop().time() + 60.0, 1)
        a.transport.send_encoded(other, encode_bare(b"small"))

    large = asyncio.create_task(a.transport.drain(asyncio.get_running_loop().time() + 60.0, LARGE))
    task = asyncio.create_task(small())
    await asyncio.sleep(0)
    socket.written.clear()
    assert not a.transport.takes(1)
    a.transport.resume_writing()
    assert a.transport.takes(1)
    assert not a.transport.takes(LARGE)
    for _ in range(5):
        await asyncio.sleep(0)
    await task
    written = b"".join(socket.written)
    assert len(written) > PORTION
    assert encode_bare(b"small") in written[:100]
    assert not large.done()
    a.transport.connection_lost(None)
    await large


async def test_of_what_may_be_large_one_message_waits_and_no_second() -> None:
    a, _ = _recorded()
    later = asyncio.get_running_loop().time() + 60.0
    for waiting in (0, 1, 2):
        assert a.transport.takes(1)
        assert a.transport.takes(LARGE) == (waiting == 0)
        assert a.transport.takes(-1) == a.transport.writable == (waiting <= 1)
        a.transport.send(Send(to=_TO), bytes(2 * PORTION))
    unknown = asyncio.create_task(a.transport.drain(later))
    large = asyncio.create_task(a.transport.drain(later, LARGE))
    await unknown
    assert not large.done()
    await large
    assert not a.transport.connection.wants_to_send
    a.transport.connection_lost(None)


async def test_closing_sends_the_rest_of_what_is_large(sides: tuple[_Side, _Side]) -> None:
    a, b = sides
    a.transport.send(Send(to=_TO), bytes(20 * PORTION))
    a.transport.close()
    assert await b.events.get() == Received(control=Send(to=_TO), payload=bytes(20 * PORTION))
    assert isinstance(await b.events.get(), Disconnected)
    await a.transport.closed
    await b.transport.closed


async def test_the_end_of_a_peer_that_hangs_is_told_though_it_takes_nothing() -> None:
    loop = asyncio.get_running_loop()
    a, b = _side(Role.INITIATOR, DistConfig(net_ticktime=0.2)), _side(Role.ACCEPTOR)
    server = await loop.create_server(lambda: b.transport, "127.0.0.1", 0)
    await loop.create_connection(lambda: a.transport, "127.0.0.1", server.sockets[0].getsockname()[1])
    assert isinstance(await a.events.get(), Connected)
    hanging = b.transport._transport
    assert hanging is not None
    hanging.pause_reading()
    # More than the buffers of two sockets.
    a.transport.send(Send(to=_TO), bytes(30_000_000))
    async with asyncio.timeout(20.0):
        await a.transport.closed
    assert a.lost == 1
    b.transport.abort()
    await b.transport.closed
    server.close()
