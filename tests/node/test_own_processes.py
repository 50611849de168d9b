"""The processes of one node among themselves: what holds between nodes holds here, without a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bridge.errors import (
    ClosedError,
    ConfigurationError,
    DeadlineError,
    HandshakeError,
    LimitExceededError,
    RemoteError,
    RemoteExitedError,
    RemoteRaisedError,
)
from bridge.etf import DEFAULT_LIMITS, Atom, Pid
from bridge.node import GenServer, HiddenNode, NodeConfig

_ME = "me@127.0.0.1"


@pytest.fixture
async def me() -> AsyncIterator[HiddenNode]:
    """A node that meets nobody."""
    async with HiddenNode(_ME, cookie="secret", config=NodeConfig(register=False)) as node:
        yield node


async def test_a_mailbox_watches_another(me: HiddenNode) -> None:
    box, other = me.mailbox(), me.mailbox("other")
    by_pid = await me.monitor(other.pid, mailbox=box)
    by_name = await me.monitor(("other", me.name))
    nobody = await me.monitor(("nobody", me.name))
    assert await nobody.wait(timeout=5.0) is Atom("noproc")
    await other.close(Atom("stone"))
    assert await by_pid.wait(timeout=5.0) is await by_name.wait(timeout=5.0) is Atom("stone")
    down = (Atom("DOWN"), by_pid.reference, Atom("process"), other.pid, Atom("stone"))
    assert await box.receive(timeout=5.0) == down


async def test_a_link_takes_the_other_one_along(me: HiddenNode) -> None:
    trapping, mortal, bystander = me.mailbox(), me.mailbox(trap_exit=False), me.mailbox(trap_exit=False)
    await me.link(mortal.pid, mailbox=trapping)
    await me.link(bystander.pid, mailbox=mortal)
    await me.unlink(bystander.pid, mailbox=mortal)
    await me.exit(mortal.pid, Atom("stone"))
    assert await trapping.receive(timeout=5.0) == (Atom("EXIT"), mortal.pid, Atom("stone"))
    with pytest.raises(RemoteExitedError, match="stone"):
        await mortal.receive()
    assert not bystander.closed


async def test_a_link_to_a_process_that_has_ended_reports_noproc(me: HiddenNode) -> None:
    box, gone = me.mailbox(), me.mailbox()
    await gone.close()
    link = await me.link(gone.pid, mailbox=box)
    assert await link.wait(timeout=5.0) is Atom("noproc")
    assert await box.receive() == (Atom("EXIT"), gone.pid, Atom("noproc"))


async def test_a_watch_that_is_given_up_says_so(me: HiddenNode) -> None:
    box = me.mailbox()
    watch, link = await me.monitor(box.pid), await me.link(box.pid)
    await me.demonitor(watch)
    with pytest.raises(ClosedError, match="given up"):
        await watch.wait()
    with pytest.raises(ConfigurationError, match="unlink"):
        await me.demonitor(link)
    await me.unlink(box.pid)
    with pytest.raises(ClosedError, match="undone"):
        await link.wait()
    again = await me.link(box.pid)
    for _ in range(5):  # signals are under way here too
        await asyncio.sleep(0)
    await box.close(Atom("stone"))
    assert await again.wait(timeout=5.0) is Atom("stone")


async def test_exposed_functions_are_called_by_their_own_node(me: HiddenNode) -> None:
    me.expose("m", "f", lambda value: [value, b"!"])
    for call in (me.call, me.erpc):
        assert await call(me.name, "m", "f", ["text"]) == [b"text", b"!"]
    assert await me.multicall([me.name], "m", "f", [1]) == {me.name: [1, b"!"]}
    await me.cast(me.name, "m", "f", [1])
    for asked in (
        me.call(me.name, "m", "f", "text"),
        me.erpc(me.name, "m", "f", "text"),
        me.cast(me.name, "m", "f", "text"),
    ):
        with pytest.raises(ConfigurationError, match="not 'text'"):
            await asked
    me.withdraw("m")
    for call in (me.call, me.erpc):
        with pytest.raises(RemoteRaisedError, match="undef"):
            await call(me.name, "m", "f", [1])


async def test_names_are_registered_and_free_again(me: HiddenNode) -> None:
    box = me.mailbox()
    me.register("inbox", box)
    await me.send(("inbox", me.name), 1)
    assert await box.receive() == 1
    me.unregister("inbox")
    assert me.whereis("inbox") is None
    for name in ("rex", "net_kernel"):
        with pytest.raises(ConfigurationError, match="taken"):
            me.mailbox(name)


async def test_whoever_asks_itself_waits_for_its_deadline(me: HiddenNode) -> None:
    box = me.mailbox("silent")
    with pytest.raises(DeadlineError, match="silent"):
        await me.gen_call(("silent", me.name), 1, timeout=0.0)
    kind, (asker, _), request = await box.receive()
    assert (kind, request) == (Atom("$gen_call"), 1)
    assert isinstance(asker, Pid)


async def test_a_target_that_is_no_process_is_named(me: HiddenNode) -> None:
    nonsense: Any = "inbox"
    for call in (me.monitor(nonsense), me.gen_call(nonsense, 1), me.send(nonsense, 1)):
        with pytest.raises(ConfigurationError, match=r"\(name, node\)"):
            await call


async def test_a_watch_on_a_node_that_is_not_reached_leaves_nothing(me: HiddenNode) -> None:
    away = Pid(Atom("away@127.0.0.1"), 1, 0, 1)
    for call in (me.monitor(away), me.link(away), me.exit(away, Atom("stone")), me.gen_call(away, 1)):
        with pytest.raises(HandshakeError):
            await call


async def test_the_end_of_the_node_ends_every_wait() -> None:
    async with HiddenNode(_ME, cookie="secret", config=NodeConfig(register=False)) as me:
        me.expose("m", "wait", asyncio.Event().wait)
        box, silent = me.mailbox(), me.mailbox("silent")
        watch = await me.monitor(box.pid)
        waiting = [
            asyncio.create_task(wait)
            for wait in (
                box.receive(),
                me.call(me.name, "m", "wait", []),
                me.erpc(me.name, "m", "wait", []),
                me.gen_call(("silent", me.name), 1),
                me.multicall([me.name], "m", "wait", []),
            )
        ]
        while me.statistics().incoming_calls < 3:
            await asyncio.sleep(0)
        await silent.receive(timeout=5.0)
    outcomes: list[Any] = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(outcome, ClosedError) for outcome in outcomes[:4])
    assert isinstance(outcomes[4][me.name], ClosedError)
    with pytest.raises(ClosedError):
        await watch.wait(timeout=0.0)
    assert me.statistics().incoming_calls == 0


async def test_messages_and_signals_of_one_process_to_another_keep_their_order(me: HiddenNode) -> None:
    box = me.mailbox("box")
    await me.exit(box.pid, Atom("stone"))
    await me.send(box.pid, 1)
    await me.exit(box.pid, Atom("stone"))
    await me.send(("box", me.name), 2)
    await me.exit(box.pid, Atom("stone"))
    await me.send(box, 3)
    received = [await box.receive(timeout=5.0) for _ in range(6)]
    assert [item if type(item) is int else item[2] for item in received] == [
        *(Atom("stone"), 1),
        *(Atom("stone"), 2),
        *(Atom("stone"), 3),
    ]


async def test_a_message_is_a_copy_and_what_is_no_term_is_refused(me: HiddenNode) -> None:
    box, message = me.mailbox("box"), {b"key": [1]}
    targets: list[Any] = [box, box.pid, ("box", me.name)]
    for target in targets:
        await me.send(target, message)
        received = await box.receive(timeout=5.0)
        assert received == message
        assert received is not message
        with pytest.raises(ConfigurationError, match="no term"):
            await me.send(target, object())


async def test_a_process_that_has_ended_watches_nobody(me: HiddenNode) -> None:
    box, other = me.mailbox(), me.mailbox()
    await box.close()
    for call in (me.monitor(other.pid, mailbox=box), me.link(other.pid, mailbox=box)):
        with pytest.raises(ClosedError, match="has ended"):
            await call


async def test_whoever_is_cancelled_while_the_node_closes_leaves_no_connection() -> None:
    go = asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await go.wait()

    async with HiddenNode("b@127.0.0.1", cookie="secret", config=NodeConfig(register=False)) as other:
        config = NodeConfig(register=False, port=other.port)
        me = await HiddenNode(_ME, cookie="secret", config=config).__aenter__()
        me.expose("m", "wait", stubborn)
        await me.connect(other.name)
        call = asyncio.create_task(me.call(_ME, "m", "wait", []))
        while not me.statistics().incoming_calls:
            await asyncio.sleep(0)
        closing = asyncio.create_task(me.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        assert me.connected == ()
        go.set()
        await me.close()
        with pytest.raises(ClosedError):
            await call


def _nested(levels: int) -> Any:
    term: Any = []
    for _ in range(levels):
        term = [term]
    return term


@pytest.mark.slow  # terms of 131,072 levels
@pytest.mark.parametrize("below", [3, 4, 6, 8])
async def test_whatever_arrives_is_answered_though_it_is_as_deep_as_may_be(
    me: HiddenNode, below: int, caplog: pytest.LogCaptureFixture
) -> None:
    deep = _nested(DEFAULT_LIMITS.max_depth - below)
    refused = 0
    async with me.serve(None, GenServer()) as process:
        for call in (me.call, me.erpc):
            try:
                with pytest.raises(RemoteError):
                    await call(me.name, "m", "undefined", [deep], timeout=60.0)
            except LimitExceededError:
                refused += 1  # here, before it was sent
        system = (Atom("system"), (me.mailbox().pid, 1), deep)
        try:
            await me.send(process.pid, system)
        except LimitExceededError:
            refused += 1
        await asyncio.sleep(0)
        assert not process.ended
    assert refused == 0 if below > 5 else refused < 3
    assert [record for record in caplog.records if record.name == "asyncio"] == []
