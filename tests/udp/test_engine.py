from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import numpy as np
import pytest

from bridge.errors import (
    ClosedError,
    ConfigurationError,
    ConnectionLostError,
    DeadlineError,
    InvalidStateError,
)
from bridge.jose import Jwk
from bridge.udp.conditioner import Conditioner
from bridge.udp.conditions import NetworkConditions
from bridge.udp.config import UdpConfig
from bridge.udp.engine import UdpEngine
from bridge.udp.events import (
    CloseReason,
    EndpointEvent,
    MessageReceived,
    PeerUnreachable,
    SessionClosed,
    SessionEstablished,
    SessionEvent,
    StateReceived,
    UdpEvent,
)
from bridge.udp.peers import Peer
from bridge.udp.session import Session
from bridge.udp.statistics import DropReason
from bridge.udp.transmit import Transmit
from tests.support.datagrams import sorted_keys


class Recorder:
    """Keeps events and lets a test wait for a condition on them."""

    def __init__(self) -> None:
        self.events: list[UdpEvent] = []
        self._changed = asyncio.Event()

    def __call__(self, event: UdpEvent) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, condition: Callable[[list[UdpEvent]], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition(self.events):
                self._changed.clear()
                await self._changed.wait()


def messages(events: list[UdpEvent]) -> list[bytes]:
    return [event.payload for event in events if isinstance(event, MessageReceived)]


@asynccontextmanager
async def two_engines(
    *,
    config: UdpConfig | None = None,
    on_a: Callable[[UdpEvent], None] | None = None,
    on_b: Callable[[UdpEvent], None] | None = None,
    before_sealing: Callable[[], None] | None = None,
    conditioner: Conditioner | None = None,
) -> AsyncIterator[tuple[UdpEngine, UdpEngine]]:
    low, high, _ = sorted_keys()
    chosen = config or UdpConfig()
    async with (
        UdpEngine(
            chosen, identity=low, on_event=on_a, before_sealing=before_sealing, conditioner=conditioner
        ) as a,
        UdpEngine(chosen, identity=high, on_event=on_b) as b,
    ):
        a.add_peer(Peer(name="b", public_key=high.public(), address=b.local_address))
        b.add_peer(Peer(name="a", public_key=low.public(), address=a.local_address))
        yield a, b


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("offload", [True, False])
async def test_states_and_messages_cross_real_sockets(host: str, offload: bool) -> None:
    """R0-34: an update goes from one server to the other directly, one hop."""
    recorder = Recorder()
    async with two_engines(config=UdpConfig(host=host, offload=offload), on_b=recorder) as (a, b):
        session = await a.connect("b", timeout=20)
        session.send_state(b"state", stream=9)
        sent = [bytes([n]) * 5000 for n in range(40)]
        for message in sent:
            session.send_reliable(message)
        await recorder.until(lambda events: len(messages(events)) == len(sent))
        assert messages(recorder.events) == sent
        assert [event.payload for event in recorder.events if isinstance(event, StateReceived)] == [b"state"]
        if not offload:
            assert a.uses_offload == b.uses_offload == (False, False)


async def test_an_engine_may_poll_its_socket_instead_of_sleeping() -> None:
    recorder = Recorder()
    async with two_engines(config=UdpConfig(busy_poll=True), on_b=recorder) as (a, b):
        session = await a.connect("b", timeout=20)
        for n in range(20):
            session.send_reliable(bytes([n]) * 5000)
        await recorder.until(lambda events: len(messages(events)) == 20)
        b.close()
        async with asyncio.timeout(20):
            while a.sessions():
                await asyncio.sleep(0)


async def test_a_handler_may_close_its_engine() -> None:
    ended = asyncio.Event()

    def end(event: UdpEvent) -> None:
        if isinstance(event, StateReceived):
            engines[0].close()
            ended.set()

    engines: list[UdpEngine] = []
    async with two_engines(on_b=end) as (a, b):
        engines.append(b)
        session = await a.connect("b", timeout=20)
        session.send_state(b"the last")
        async with asyncio.timeout(20):
            await ended.wait()
    assert b._timer is not None
    assert b._timer.cancelled()


async def test_a_handler_may_close_its_engine_because_a_session_ended_and_raise_too() -> None:
    """Also where the session ends because the engine is being closed."""
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
    recorder = Recorder()

    def end(event: UdpEvent) -> None:
        if isinstance(event, SessionClosed):
            engines[0].close()
            raise ValueError("and that was it")

    engines: list[UdpEngine] = []
    async with two_engines(on_a=end, on_b=recorder) as (a, _):
        engines.append(a)
        await a.connect("b", timeout=20)
        a.close()
        await recorder.until(lambda events: any(isinstance(event, SessionClosed) for event in events))
        with pytest.raises(InvalidStateError, match="not open"):
            a.local_address  # noqa: B018
    (context,) = reported
    assert str(context["exception"]) == "and that was it"
    assert [event.reason for event in recorder.events if isinstance(event, SessionClosed)] == [
        CloseReason.SHUTDOWN
    ]


async def test_what_is_asked_before_sealing_may_raise_and_the_engine_goes_on() -> None:
    """Nothing is sealed then: not by a timer, not for who sends; later it is, though nobody says so again."""
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
    recorder = Recorder()
    refuses = 3

    def before_sealing() -> None:
        nonlocal refuses
        if refuses:
            refuses -= 1
            raise ValueError("not now")

    config = UdpConfig(keepalive_interval=1000, idle_timeout=3000)
    async with two_engines(config=config, on_b=recorder) as (a, _):
        session = await a.connect("b", timeout=20)
        a._before_sealing = before_sealing
        session.send_reliable(b"by itself")
        await recorder.until(lambda events: messages(events) == [b"by itself"])
        assert len(reported) == 3
        refuses = 1
        states = np.full((1, 4), 7, dtype=np.uint8)
        with pytest.raises(ValueError, match="not now"):
            a.send_states([session], states)
        states[:] = 8  # free to be changed, sent or not
        await recorder.until(lambda events: isinstance(events[-1], StateReceived))
        assert recorder.events[-1].payload == bytes([7]) * 4  # type: ignore[union-attr]
        refuses = 1

        async def read() -> list[SessionEvent]:
            return [event async for event in session]

        reader = asyncio.create_task(read())
        await asyncio.sleep(0)
        a.close()
        assert [type(event) for event in await reader] == [SessionClosed]
        await recorder.until(lambda events: isinstance(events[-1], SessionClosed))
    assert len(reported) == 4


async def test_what_a_flush_gave_to_a_slow_network_goes_on_though_nothing_else_happens() -> None:
    recorder = Recorder()
    config = UdpConfig(keepalive_interval=1000, idle_timeout=3000)
    slow = Conditioner(NetworkConditions(delay=0.01))
    async with two_engines(config=config, on_b=recorder, conditioner=slow) as (a, _):
        session = await a.connect("b", timeout=20)
        await asyncio.sleep(0.2)  # until no timer of the handshake is left that would fire in time
        session.send_state(b"state")
        a.flush()
        await recorder.until(lambda events: any(isinstance(event, StateReceived) for event in events))


async def test_both_may_connect_at_once_and_get_the_same_session() -> None:
    async with two_engines() as (a, b):
        first, second = await asyncio.gather(a.connect("b", timeout=20), b.connect("a", timeout=20))
        assert first.session_id == second.session_id
        assert await a.connect("b", timeout=1) is first


async def test_the_reliable_stream_is_complete_and_in_order_on_a_bad_network() -> None:
    recorder = Recorder()
    bad = Conditioner(NetworkConditions.parse("loss=10%,burst=3,delay=2ms,jitter=4ms,duplicate=10%,seed=3"))
    async with two_engines(on_b=recorder, conditioner=bad) as (a, _):
        session = await a.connect("b", timeout=20)
        sent = [str(n).encode() * 300 for n in range(100)]
        for message in sent:
            session.send_reliable(message)
        await recorder.until(lambda events: len(messages(events)) == len(sent))
        assert messages(recorder.events) == sent


async def test_what_a_slow_network_holds_still_arrives_when_its_sender_closes() -> None:
    recorder = Recorder()
    slow = Conditioner(NetworkConditions(delay=0.3))
    async with two_engines(on_b=recorder, conditioner=slow) as (a, _):
        await a.connect("b", timeout=20)
        await recorder.until(lambda events: any(isinstance(event, SessionEstablished) for event in events))
        a.close()
        await recorder.until(lambda events: any(isinstance(event, SessionClosed) for event in events))
        (closed,) = (event for event in recorder.events if isinstance(event, SessionClosed))
        assert closed.by_peer


async def read(session: Session) -> list[SessionEvent]:
    """All events of a session, until it ends."""
    return [event async for event in session]


async def accept(engine: UdpEngine) -> Session:
    """The next session that begins."""
    async for event in engine.events():
        if isinstance(event, SessionEstablished):
            return event.session
    raise AssertionError("the engine was closed")


async def test_events_are_iterated_by_session_until_it_ends_and_by_engine_until_it_closes() -> None:
    async with two_engines() as (a, b):

        async def collect() -> list[EndpointEvent]:
            return [event async for event in b.events()]

        async def read_first() -> list[SessionEvent]:
            return await read(await a.connect("b", timeout=20))

        accepting = asyncio.create_task(collect())
        reading = asyncio.create_task(read_first())
        session = await b.connect("a", timeout=20)
        session.send_reliable(b"last words")
        b.flush()
        b.close()
        async with asyncio.timeout(20):
            *before, closed = await reading
            (established,) = await accepting
        assert messages(list(before)) == [b"last words"]
        assert isinstance(closed, SessionClosed)
        assert closed.by_peer
        assert isinstance(established, SessionEstablished)
        assert established.session is session


async def test_a_session_that_is_over_gives_what_was_left_and_ends_again_at_once() -> None:
    async with two_engines() as (a, _):
        session = await a.connect("b", timeout=20)
        session.close()
        async with asyncio.timeout(20):
            assert [type(event) for event in await read(session)] == [SessionClosed]
            assert await read(session) == []


async def test_many_sessions_are_read_at_once_each_by_its_own_reader() -> None:
    keys = [Jwk.generate() for _ in range(4)]
    async with AsyncExitStack() as stack:
        server, *clients = [
            await stack.enter_async_context(UdpEngine(UdpConfig(), identity=key)) for key in keys
        ]
        received: dict[str, list[bytes]] = {}

        async def serve(session: Session) -> None:
            received[session.peer] = messages(list(await read(session)))

        async def accept_all(group: asyncio.TaskGroup) -> None:
            async for event in server.events():
                if isinstance(event, SessionEstablished):
                    group.create_task(serve(event.session))

        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            accepting = group.create_task(accept_all(group))
            for n, client in enumerate(clients):
                server.add_peer(
                    Peer(name=f"c{n}", public_key=keys[n + 1].public(), address=client.local_address)
                )
                client.add_peer(
                    Peer(name="server", public_key=keys[0].public(), address=server.local_address)
                )
                session = await client.connect("server", timeout=20)
                for m in range(20):
                    session.send_reliable(b"%d of %d" % (m, n))
                await session.drain(at_most=0)
            for client in clients:
                client.close()
            while server.sessions():
                await asyncio.sleep(0)
            server.close()
            await accepting
        assert received == {f"c{n}": [b"%d of %d" % (m, n) for m in range(20)] for n in range(3)}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_peer_that_died_without_a_word_costs_the_others_nothing_and_is_given_up(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [Jwk.generate() for _ in range(3)]
    config = UdpConfig(host=host, idle_timeout=0.4, keepalive_interval=0.1)
    recorder = Recorder()
    async with (
        UdpEngine(config, identity=keys[0]) as server,
        UdpEngine(config, identity=keys[1], on_event=recorder) as living,
        UdpEngine(config, identity=keys[2]) as dying,
    ):
        for name, key, engine in (("living", keys[1], living), ("dying", keys[2], dying)):
            server.add_peer(Peer(name=name, public_key=key.public(), address=engine.local_address))
            engine.add_peer(Peer(name="server", public_key=keys[0].public(), address=server.local_address))
        alive = await server.connect("living", timeout=20)
        dead = await server.connect("dying", timeout=20)
        reading = asyncio.create_task(read(dead))
        # As a killed process leaves it: the port closed, nothing said. Its port answers by ICMP from now on.
        monkeypatch.setattr(dying._endpoint, "close", lambda: None)
        dying.close()
        number = -1
        async with asyncio.timeout(20):
            while not reading.done():
                number += 1
                alive.send_state(number.to_bytes(4, "big"))
                if not dead.is_closed:
                    dead.send_state(bytes(1000))
                await asyncio.sleep(0.01)
            (closed,) = await reading
            assert isinstance(closed, SessionClosed)
            assert closed.reason is CloseReason.IDLE
            await recorder.until(
                lambda events: any(
                    isinstance(event, StateReceived) and event.payload == number.to_bytes(4, "big")
                    for event in events
                )
            )
        assert server.sessions() == [alive]
        assert server.socket_counters.send_errors == 0
        assert alive.statistics().datagrams_lost == 0


async def test_a_reader_that_stops_holds_back_the_sender_of_messages_by_credit() -> None:
    config = UdpConfig(reliable_window_bytes=150_000, reliable_buffer_bytes=300_000)
    async with two_engines(config=config) as (a, b):
        session = await a.connect("b", timeout=20)
        other = await accept(b)
        total = 60
        given = 0

        async def send() -> None:
            nonlocal given
            for n in range(total):
                session.send_reliable(bytes([n]) * 20_000)
                given += 1
                await session.drain()

        sending = asyncio.create_task(send())
        async with asyncio.timeout(30):
            # At rest: its buffer half full, and the receiver's window used up.
            while (
                session.statistics().reliable_credit > 20_000 or other.statistics().reassembly_bytes < 100_000
            ):
                await asyncio.sleep(0.01)
            assert not sending.done()
            assert given * 20_000 <= 150_000 + 150_000 + 40_000
            taken = []
            async for event in other:
                assert isinstance(event, MessageReceived)
                taken.append(event.payload[0])
                if len(taken) == total:
                    break
            await sending
        assert taken == list(range(total))


async def test_states_of_a_slow_reader_are_bounded_and_the_newest_are_kept() -> None:
    async with two_engines(config=UdpConfig(max_pending_states=4)) as (a, b):
        session = await a.connect("b", timeout=20)
        other = await accept(b)
        for n in range(50):
            # Of growing size, so that they do not come as one batch.
            session.send_state(bytes([n]) * (n + 1), stream=n)
            a.flush()
        events: list[SessionEvent] = []
        async with asyncio.timeout(30):
            while other.statistics().drops.get(DropReason.STATE_OVERFLOW, 0) < 46:
                await asyncio.sleep(0)
            async for event in other:
                events.append(event)
                if isinstance(event, StateReceived) and event.stream == 49:
                    break
        assert [event.payload[0] for event in events if isinstance(event, StateReceived)] == [46, 47, 48, 49]


async def test_drain_ends_with_the_session() -> None:
    config = UdpConfig(reliable_window_bytes=150_000, reliable_buffer_bytes=150_000)
    async with two_engines(config=config) as (a, _):
        session = await a.connect("b", timeout=20)
        for n in range(5):
            session.send_reliable(bytes([n]) * 20_000)
        draining = asyncio.create_task(session.drain())
        await asyncio.sleep(0)
        session.close()
        with pytest.raises(InvalidStateError):
            async with asyncio.timeout(20):
                await draining


async def test_a_reader_that_is_cancelled_leaves_nothing_behind() -> None:
    async with two_engines() as (a, _):
        session = await a.connect("b", timeout=20)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await read(session)
        assert a._listening == {}


async def test_iteration_and_a_callback_exclude_each_other() -> None:
    recorder = Recorder()
    async with two_engines(on_a=recorder) as (a, _):
        session = await a.connect("b", timeout=20)
        with pytest.raises(InvalidStateError):
            await anext(aiter(a.events()))
        with pytest.raises(InvalidStateError):
            await read(session)


async def test_a_silent_peer_ends_connect_with_a_lost_connection() -> None:
    recorder = Recorder()
    config = UdpConfig(handshake_timeout=0.05)
    low, high, _ = sorted_keys()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        async with UdpEngine(config, identity=low, on_event=recorder) as engine:
            engine.add_peer(Peer(name="b", public_key=high.public(), address=silent.getsockname()))
            for timeout in (20, None):
                with pytest.raises(ConnectionLostError):
                    await engine.connect("b", timeout=timeout)
    assert recorder.events == [PeerUnreachable(peer="b")] * 2


async def test_connect_honours_its_deadline() -> None:
    low, high, _ = sorted_keys()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        async with UdpEngine(UdpConfig(), identity=low) as engine:
            engine.add_peer(Peer(name="b", public_key=high.public(), address=silent.getsockname()))
            with pytest.raises(DeadlineError):
                await engine.connect("b", timeout=0.01)


async def test_closing_ends_a_waiting_connect() -> None:
    low, high, _ = sorted_keys()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        async with UdpEngine(UdpConfig(), identity=low) as engine:
            engine.add_peer(Peer(name="b", public_key=high.public(), address=silent.getsockname()))
            waiting = asyncio.create_task(engine.connect("b", timeout=20))
            await asyncio.sleep(0)
            engine.close()
            with pytest.raises(ClosedError):
                await waiting


async def test_connecting_to_an_unknown_peer_is_refused() -> None:
    async with two_engines() as (a, _):
        with pytest.raises(ConfigurationError):
            await a.connect("nobody", timeout=1)


async def test_connecting_to_a_peer_with_the_other_version_of_ip_is_refused() -> None:
    low, high, _ = sorted_keys()
    async with UdpEngine(UdpConfig(), identity=low) as engine:
        engine.add_peer(Peer(name="b", public_key=high.public(), address=("::1", 7000)))
        with pytest.raises(ConfigurationError, match="one version of IP"):
            await engine.connect("b", timeout=20)


async def test_a_peer_removed_and_added_again_is_connected_to_at_once() -> None:
    low, high, _ = sorted_keys()
    async with two_engines() as (a, b):
        b.remove_peer("a")
        with pytest.raises(DeadlineError):
            await a.connect("b", timeout=0.01)
        b.add_peer(Peer(name="a", public_key=low.public(), address=a.local_address))
        a.remove_peer("b")
        a.add_peer(Peer(name="b", public_key=high.public(), address=b.local_address))
        assert (await a.connect("b", timeout=20)).peer == "b"


async def test_an_engine_is_entered_once() -> None:
    engine = UdpEngine(UdpConfig(), identity=sorted_keys()[0])
    async with engine:
        pass
    with pytest.raises(InvalidStateError, match="once"):
        async with engine:
            pass


async def test_an_engine_that_could_not_be_entered_holds_no_socket() -> None:
    def before_sealing() -> None:
        raise ValueError("not ready")

    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
    engine = UdpEngine(UdpConfig(), identity=sorted_keys()[0], before_sealing=before_sealing)
    with pytest.raises(ValueError, match="not ready"):
        await engine.__aenter__()
    with pytest.raises(InvalidStateError, match="not open"):
        engine.flush()
    assert engine._socket is not None
    assert engine._socket.fileno() == -1
    assert [str(context["exception"]) for context in reported] == ["not ready"]


async def test_an_engine_that_is_not_open_refuses() -> None:
    engine = UdpEngine(UdpConfig(), identity=sorted_keys()[0])
    with pytest.raises(InvalidStateError):
        _ = engine.local_address
    with pytest.raises(InvalidStateError):
        await anext(engine.events())
    with pytest.raises(InvalidStateError):
        engine.start_connect("b")


async def test_what_is_withdrawn_before_sealing_is_not_sent() -> None:
    recorder = Recorder()
    may_send = True

    def withdraw() -> None:
        if not may_send:
            session.drop_states()

    async with two_engines(on_b=recorder, before_sealing=withdraw) as (a, _):
        session = await a.connect("b", timeout=20)
        may_send = False
        session.send_state(b"withdrawn")
        a.flush()
        may_send = True
        session.send_state(b"sent")
        session.send_reliable(b"after it")
        await recorder.until(lambda events: any(isinstance(event, MessageReceived) for event in events))
        assert [event.payload for event in recorder.events if isinstance(event, StateReceived)] == [b"sent"]


async def test_states_for_many_sessions_go_at_once_unless_they_are_withdrawn() -> None:
    recorder = Recorder()
    may_send = True

    def withdraw() -> None:
        if not may_send:
            session.drop_states()

    async with two_engines(on_b=recorder, before_sealing=withdraw) as (a, _):
        session = await a.connect("b", timeout=20)
        rows = np.zeros((1, 10), dtype=np.uint8)
        assert a.send_states([session], rows).tolist() == [0]
        rows[:] = 1  # what was given has gone
        may_send = False
        assert a.send_states([session], rows).tolist() == [1]
        may_send = True
        rows[:] = 2
        assert a.send_states([session], rows, 3).tolist() == [2]
        session.send_reliable(b"after it")
        await recorder.until(lambda events: any(isinstance(event, MessageReceived) for event in events))
        states = [event for event in recorder.events if isinstance(event, StateReceived)]
        assert [(event.stream, event.payload) for event in states] == [(0, bytes(10)), (3, b"\2" * 10)]
    with pytest.raises(InvalidStateError):
        a.send_states([session], rows)


@pytest.mark.parametrize("at_once", [False, True])
async def test_states_given_while_the_kernel_is_full_supersede_each_other_and_the_newest_goes(
    at_once: bool,
) -> None:
    recorder = Recorder()
    async with two_engines(config=UdpConfig(offload=False), on_b=recorder) as (a, _):
        session = await a.connect("b", timeout=20)
        udp = a._open_socket()
        genuine, is_full = udp._socket, True

        class Full:
            def sendto(self, *args: Any) -> int:
                if is_full:
                    raise BlockingIOError(errno.EAGAIN, "full")
                return genuine.sendto(*args)

            def __getattr__(self, name: str) -> Any:
                return getattr(genuine, name)

        udp._socket = Full()  # type: ignore[assignment]  # a stand-in for the kernel
        for n in range(5):
            if at_once:
                a.send_states([session], np.full((1, 1), n, dtype=np.uint8))
            else:
                session.send_state(bytes([n]))
                a.flush()
        assert session.statistics().states_superseded == 3
        is_full = False
        await recorder.until(lambda events: any(isinstance(event, StateReceived) for event in events))
        await recorder.until(
            lambda events: (
                [event.payload for event in events if isinstance(event, StateReceived)]
                == [bytes([0]), bytes([4])]
            )
        )


async def test_timers_do_not_run_hot_while_the_kernel_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    async with two_engines(config=UdpConfig(min_probe_timeout=0.001, initial_rtt=0.001)) as (a, _):
        session = await a.connect("b", timeout=20)
        # As after a send that found no room, on a socket that stays so.
        monkeypatch.setattr(a, "_is_writing", True)
        session.send_reliable(b"waits, and is probed for")
        fired = 0
        on_timer = a._on_timer

        def counted() -> None:
            nonlocal fired
            fired += 1
            on_timer()

        monkeypatch.setattr(a, "_on_timer", counted)
        a._rearm()
        await asyncio.sleep(0.3)
        assert fired <= 40
        monkeypatch.undo()


@pytest.mark.parametrize("fault", [ValueError, asyncio.CancelledError])
async def test_a_raising_callback_is_reported_and_the_engine_goes_on(fault: type[BaseException]) -> None:
    """Also with what the result of a cancelled future raises, which is no ``Exception``."""
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: reported.append(context["exception"])
    )
    recorder = Recorder()

    def raising(event: UdpEvent) -> None:
        recorder(event)
        raise fault("the application's fault")

    async with two_engines(on_b=raising) as (a, _):
        session = await a.connect("b", timeout=20)
        session.send_reliable(b"one")
        session.send_reliable(b"two")
        await recorder.until(lambda events: messages(events) == [b"one", b"two"])
    assert all(isinstance(error, fault) for error in reported)
    assert len(reported) == len(recorder.events)


async def test_junk_from_strangers_is_counted_and_harms_nothing() -> None:
    """R0-14: malformed input is dropped without a crash."""
    recorder = Recorder()
    async with two_engines(on_b=recorder) as (a, b):
        session = await a.connect("b", timeout=20)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for junk in (
                b"",
                b"\x40",
                b"\x10" * 1200,
                b"\x40" * 40,
                b"\xff" * 4000,
                b"\x20\x01" + bytes(100),
            ):
                stranger.sendto(junk, b.local_address)
            session.send_reliable(b"after the junk")
            await recorder.until(lambda events: messages(events) == [b"after the junk"])
        drops = b.statistics().drops
        assert drops[DropReason.UNKNOWN_CONNECTION] == 1
        assert drops[DropReason.MALFORMED] == 5


async def test_the_last_word_goes_out_behind_what_waited_for_the_kernel() -> None:
    at_b = Recorder()
    async with two_engines(on_a=Recorder(), on_b=at_b) as (a, b):
        await a.connect("b", timeout=30)
        await at_b.until(lambda events: any(isinstance(event, SessionEstablished) for event in events))
        a._open_socket()._keep([Transmit.of_one(b"waits", b.local_address)])
        a.close()
        await at_b.until(lambda events: any(isinstance(event, SessionClosed) for event in events))
        (closed,) = [event for event in at_b.events if isinstance(event, SessionClosed)]
        assert closed.by_peer


async def test_messages_not_acknowledged_are_reported_when_the_engine_closes() -> None:
    recorder = Recorder()
    async with two_engines(on_a=recorder) as (a, b):
        session = await a.connect("b", timeout=20)
        b.close()
        session.send_reliable(b"too late")
        a.close()
    closed = [event for event in recorder.events if isinstance(event, SessionClosed)]
    assert [event.undelivered for event in closed] == [(b"too late",)]


async def test_an_engine_refuses_to_seal_in_a_forked_child(monkeypatch: pytest.MonkeyPatch) -> None:
    async with two_engines() as (a, _):
        session = await a.connect("b", timeout=20)
        session.send_state(b"would reuse a sequence")
        with monkeypatch.context() as patch:
            patch.setattr("os.getpid", lambda: -1)
            with pytest.raises(InvalidStateError):
                a.flush()


async def test_in_a_forked_child_sessions_are_dead_and_say_why_and_those_of_the_parent_live_on() -> None:
    recorder = Recorder()
    async with two_engines(on_b=recorder) as (a, _):
        session = await a.connect("b", timeout=20)
        session.send_state(b"waits to be sealed")
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            told = [_refusal(call) for call in _calls(a, session)]
            os.write(writing, "\n".join(told).encode())
            os._exit(0)
        os.close(writing)
        with open(reading, encoding="utf-8") as pipe:
            told = pipe.read().splitlines()
        assert os.waitpid(child, 0)[1] == 0
        assert len(told) == 6
        assert all("fork" in line for line in told)
        for number in range(20):
            session.send_reliable(bytes([number]))
        await recorder.until(lambda events: len(messages(events)) == 20)


def _calls(engine: UdpEngine, session: Session) -> list[Callable[[], object]]:
    return [
        lambda: session.send_state(b"x"),
        lambda: session.send_reliable(b"x"),
        lambda: session.send_unordered(b"x"),
        engine.flush,
        engine.close,
        lambda: engine.start_connect("b"),
    ]


def _refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except InvalidStateError as error:
        return str(error)
    return "nothing"


async def test_a_key_of_another_curve_is_no_identity() -> None:
    with pytest.raises(ConfigurationError):
        UdpEngine(UdpConfig(), identity=Jwk.generate("P-384"))
