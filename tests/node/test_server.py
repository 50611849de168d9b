"""Python servers, asked by their own node: what they answer and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import (
    ClosedError,
    ConfigurationError,
    DeadlineError,
    InvalidStateError,
    RemoteExitedError,
)
from bridge.etf import Atom, Pid
from bridge.node import NO_REPLY, GenServer, HiddenNode, NodeConfig, Sender, ServerProcess, Stop

_ME = "me@127.0.0.1"
_COUNTER = ("counter", _ME)


class _Counter(GenServer):
    """Counts, and keeps what its callbacks saw."""

    def __init__(self, *, trap_exit: bool = False) -> None:
        self.trap_exit = trap_exit
        self.count = 0
        self.infos: list[Any] = []
        self.ended: list[Any] = []
        self.waiting: list[Sender] = []
        self.process: ServerProcess

    async def init(self, process: ServerProcess) -> None:
        self.process = process

    async def handle_call(self, request: Any, sender: Sender) -> Any:
        match str(request):
            case "next":
                self.count += 1
                return self.count
            case "raise":
                raise ValueError("no")
            case "exit":
                raise RemoteExitedError("", reason=Atom("stone"))
            case "none":
                return None
            case "stop":
                return Stop(Atom("normal"), reply=Atom("bye"))
            case "later":
                self.waiting.append(sender)
                return NO_REPLY
            case "wait":
                await asyncio.Event().wait()
        return super().handle_call(request, sender)

    def handle_cast(self, request: Any) -> Any:
        if isinstance(request, int):
            self.count += request
            return None
        return super().handle_cast(request)

    async def handle_info(self, message: Any) -> Any:
        self.infos.append(message)
        for sender in self.waiting:
            sender.reply(message)
        return Stop(message) if message is Atom("stop") else super().handle_info(message)

    async def terminate(self, reason: Any) -> None:
        self.ended.append(reason)
        if reason is Atom("bad terminate"):
            raise ValueError("in terminate")

        if reason is Atom("slow terminate"):
            await asyncio.Event().wait()

    def get_state(self) -> Any:
        return {Atom("count"): self.count}


@pytest.fixture
async def me() -> AsyncIterator[HiddenNode]:
    """A node that meets nobody."""
    async with HiddenNode(_ME, cookie="secret", config=NodeConfig(register=False)) as node:
        yield node


async def _call(node: HiddenNode, request: str) -> Any:
    return await node.gen_call(_COUNTER, Atom(request), timeout=5.0)


async def test_calls_casts_and_messages_reach_their_callbacks(me: HiddenNode) -> None:
    async with me.serve("counter", server := _Counter()) as process:
        assert server.process is process
        assert me.whereis("counter") == process.pid
        assert await _call(me, "next") == 1
        await me.gen_cast(_COUNTER, 10)
        assert await me.gen_call(process.pid, Atom("next")) == 12
        await me.send(process.pid, b"hello")
        assert await _call(me, "next") == 13
        assert server.infos == [b"hello"]
    assert server.ended == [Atom("shutdown")]
    assert process.ended
    with pytest.raises(RemoteExitedError, match="noproc"):
        await _call(me, "next")


async def test_a_reply_may_come_later(me: HiddenNode) -> None:
    async with me.serve("counter", _Counter()):
        waiting = asyncio.create_task(_call(me, "later"))
        assert await _call(me, "next") == 1
        await me.send(_COUNTER, b"now")
        assert await waiting == b"now"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ("raise", ((Atom("python"), b"ValueError", b"no"), [])),
        ("exit", Atom("stone")),
        ("surprise", (Atom("bad_call"), Atom("surprise"))),
    ],
)
async def test_a_call_that_ends_the_server_tells_the_caller_why(
    me: HiddenNode, request_: str, reason: Any
) -> None:
    async with me.serve("counter", server := _Counter()) as process:
        watch = await me.monitor(process.pid)
        with pytest.raises(RemoteExitedError) as caught:
            await _call(me, request_)
        assert caught.value.reason == reason
        assert await watch.wait(timeout=5.0) == reason
        assert await process.wait(timeout=5.0) == reason
    assert server.ended == [reason]


async def test_a_reply_that_is_no_term_ends_the_server(me: HiddenNode) -> None:
    async with me.serve("counter", _Counter()):
        with pytest.raises(RemoteExitedError, match="no term"):
            await _call(me, "none")


async def test_a_server_stops_itself_after_its_reply(me: HiddenNode) -> None:
    async with me.serve("counter", server := _Counter()) as process:
        assert await _call(me, "stop") is Atom("bye")
        assert await process.wait(timeout=5.0) is Atom("normal")
        assert server.ended == [Atom("normal")]
        await process.stop(timeout=1.0)  # harmless


async def test_a_server_is_stopped_after_what_it_was_sent_before(me: HiddenNode) -> None:
    async with me.serve("counter", server := _Counter()) as process:
        await me.gen_cast(_COUNTER, 5)
        await process.stop(Atom("done"), timeout=5.0)
        assert (server.count, server.ended) == (5, [Atom("done")])


@pytest.mark.parametrize("message", [(Atom("$gen_cast"), b"?"), Atom("stop")])
async def test_a_cast_nobody_expects_and_a_message_may_end_it(me: HiddenNode, message: Any) -> None:
    async with me.serve("counter", _Counter()) as process:
        await me.send(process.pid, message)
        reason = (Atom("bad_cast"), b"?") if isinstance(message, tuple) else Atom("stop")
        assert await process.wait(timeout=5.0) == reason


async def test_a_terminate_that_fails_is_the_reason(me: HiddenNode) -> None:
    async with me.serve("counter", _Counter()) as process:
        await process.stop(Atom("bad terminate"))
        assert await process.wait() == ((Atom("python"), b"ValueError", b"in terminate"), [])


async def test_a_terminate_that_hangs_holds_nobody_up() -> None:
    config = NodeConfig(register=False, call_timeout=0.05)
    server = _Counter()
    async with HiddenNode(_ME, cookie="secret", config=config) as me, me.serve("counter", server) as process:
        await me.send(
            process.pid, (Atom("system"), Atom("undefined"), (Atom("terminate"), Atom("slow terminate")))
        )
        while not server.ended:
            await asyncio.sleep(0)
    # The block ended meanwhile, and the server was told once.
    assert server.ended == [Atom("slow terminate")]
    reason = await process.wait()
    assert reason[0][:2] == (Atom("python"), b"TimeoutError")


async def test_system_messages_are_answered(me: HiddenNode) -> None:
    async with me.serve("counter", _Counter()) as process, me.mailbox() as box:
        reference = process.pid  # any term tells the answers apart
        for request in (Atom("get_state"), Atom("suspend"), (Atom("terminate"), Atom("normal"))):
            await me.send(process.pid, (Atom("system"), (box.pid, reference), request))
        answers = [await box.receive(timeout=5.0) for _ in range(3)]
        unknown = (Atom("error"), (Atom("unknown_system_msg"), Atom("suspend")))
        assert [answer for _, answer in answers] == [(Atom("ok"), {Atom("count"): 0}), unknown, Atom("ok")]
        assert await process.wait(timeout=5.0) is Atom("normal")


async def test_an_exit_signal_ends_it_in_the_middle_of_a_call(me: HiddenNode) -> None:
    async with me.serve("counter", server := _Counter()) as process:
        waiting = asyncio.create_task(_call(me, "wait"))
        await _settle()
        await me.exit(process.pid, Atom("stone"))
        with pytest.raises(RemoteExitedError, match="stone"):
            await waiting
    assert server.ended == []


async def test_a_server_that_traps_exits_is_told_and_lives_on(me: HiddenNode) -> None:
    async with me.serve("counter", server := _Counter(trap_exit=True)) as process, me.mailbox() as box:
        await me.link(box.pid, mailbox=process.mailbox)
        await _settle()
        await box.close(Atom("stone"))
        assert await _call(me, "next") == 1
        assert server.infos == [(Atom("EXIT"), box.pid, Atom("stone"))]
        await me.exit(process.pid, Atom("kill"))
        assert await process.wait(timeout=5.0) is Atom("killed")


async def test_a_full_mailbox_ends_it() -> None:
    config = NodeConfig(register=False, mailbox_capacity=3)
    async with (
        HiddenNode(_ME, cookie="secret", config=config) as me,
        me.serve("counter", _Counter()) as process,
    ):
        for _ in range(10):
            await me.gen_cast(_COUNTER, 1)
        assert await process.wait(timeout=5.0) is Atom("message_queue_overflow")


async def test_the_end_of_the_node_ends_it() -> None:
    node = HiddenNode(_ME, cookie="secret", config=NodeConfig(register=False))
    async with node as me, me.serve("counter", _Counter()) as process:
        waiting = asyncio.create_task(_call(me, "wait"))
        await _settle()
        await me.close()
        assert await process.wait(timeout=5.0) is Atom("shutdown")
        with pytest.raises((ClosedError, RemoteExitedError)):
            await waiting


async def test_it_starts_once_and_its_name_is_its_own(me: HiddenNode) -> None:
    process = me.serve("counter", _Counter())
    with pytest.raises(InvalidStateError, match="not started"):
        _ = process.pid
    async with process:
        with pytest.raises(InvalidStateError, match="once"):
            await process.__aenter__()
        with pytest.raises(ConfigurationError, match="taken"):
            await me.serve("counter", _Counter()).__aenter__()
        with pytest.raises(DeadlineError):
            await process.wait(timeout=0.0)


async def test_an_init_that_fails_starts_nothing(me: HiddenNode) -> None:
    class Failing(GenServer):
        def init(self, process: ServerProcess) -> None:
            raise ValueError(str(process.pid))

    with pytest.raises(ValueError, match="me@"):
        await me.serve("counter", Failing()).__aenter__()
    assert me.whereis("counter") is None


async def test_a_server_that_defines_nothing_refuses_calls_and_ignores_messages(
    me: HiddenNode, caplog: pytest.LogCaptureFixture
) -> None:
    async with me.serve("counter", GenServer()) as process:
        await me.send(process.pid, b"hello")
        await me.send(process.pid, (Atom("$gen_call"), b"no sender", 1))
        await me.send(process.pid, (Atom("system"), (process.pid, 1), Atom("get_state")))
        with pytest.raises(RemoteExitedError, match="bad_call"):
            await _call(me, "next")
    assert "does not expect" in caplog.text
    assert repr(NO_REPLY) == "NO_REPLY"


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


_terms = st.recursive(
    st.integers()
    | st.binary(max_size=3)
    | st.sampled_from([Atom(text) for text in ("$gen_call", "$gen_cast", "system", "get_state", "EXIT")])
    | st.just(Pid(Atom("gone@h"), 1, 0, 1)),
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple),
    max_leaves=8,
)


class _Patient(GenServer):
    def handle_call(self, request: Any, sender: Sender) -> Any:
        return request

    def handle_cast(self, request: Any) -> None:
        """Whatever it is."""

    def handle_info(self, message: Any) -> None:
        """Whatever it is."""


@given(st.lists(_terms, max_size=5))
def test_no_message_ends_a_server_but_by_what_a_callback_makes_of_it(messages: list[Any]) -> None:
    async def play() -> None:
        async with (
            HiddenNode(_ME, cookie="secret", config=NodeConfig(register=False)) as me,
            me.serve("counter", _Patient()) as process,
        ):
            for message in messages:
                await me.send(process.pid, message)
                await me.send(process.pid, (Atom("$gen_call"), message, 1))
                await me.send(process.pid, (Atom("system"), message, message))
            assert await me.gen_call(process.pid, b"still here") == b"still here"

    asyncio.run(play())


@pytest.mark.parametrize("stopping", [True, False])
async def test_whoever_is_cancelled_while_a_server_ends_leaves_no_process(
    me: HiddenNode, stopping: bool
) -> None:
    ending = asyncio.Event()

    class Slow(GenServer):
        async def terminate(self, reason: Any) -> None:
            del reason
            ending.set()
            await asyncio.Event().wait()

    async def use() -> None:
        async with me.serve("slow", Slow()) as process:
            if stopping:
                await process.stop(timeout=60.0)

    task = asyncio.create_task(use())
    await ending.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert me.whereis("slow") is None


async def test_a_key_that_python_cannot_print_ends_a_server_like_any_other(me: HiddenNode) -> None:
    class Table(GenServer):
        def handle_call(self, request: Any, sender: Sender) -> Any:
            return {}[request]

    # Python refuses to write integers of more than 4,300 digits, and so KeyError has no text.
    async with me.serve("table", Table()) as process:
        with pytest.raises(RemoteExitedError, match="KeyError"):
            await me.gen_call(("table", _ME), 10**5_000, timeout=5.0)
        assert (await process.wait(timeout=5.0))[0][1] == b"KeyError"
