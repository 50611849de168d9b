"""A hidden node against real OTP nodes."""

from __future__ import annotations

import asyncio
import hashlib
import random
from dataclasses import replace
from typing import Any

import pytest

from bridge.dist import DistConfig
from bridge.errors import (
    ClosedError,
    ConfigurationError,
    DeadlineError,
    HandshakeError,
    InvalidStateError,
    NodeDownError,
    RemoteError,
    RemoteRaisedError,
)
from bridge.etf import Atom, Pid
from bridge.node import HiddenNode, NodeConfig
from tests.support.otp import COOKIE, OtpNode, PortMapper, free_port, otp_node

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


async def test_a_call_answers_and_the_node_is_listed_as_hidden(node: HiddenNode, otp: OtpNode) -> None:
    await node.connect(otp.name)
    assert await node.call(otp.name, "erlang", "node", [], timeout=5.0) == Atom(otp.name)
    assert await node.call(otp.name, "erlang", "nodes", []) == []
    assert await node.call(otp.name, "erlang", "nodes", [Atom("hidden")]) == [Atom(node.name)]


async def test_a_call_that_raises_keeps_the_remote_reason(node: HiddenNode, otp: OtpNode) -> None:
    with pytest.raises(RemoteRaisedError, match="badarg") as caught:
        await node.call(otp.name, "erlang", "error", [Atom("badarg")])
    assert caught.value.reason is Atom("badarg")
    assert caught.value.stack[0][:2] == (Atom("erlang"), Atom("error"))


async def test_otp_pings_the_node_and_calls_to_unknown_names_end_at_once(
    node: HiddenNode, otp: OtpNode
) -> None:
    ping = await node.call(otp.name, "net_adm", "ping", [Atom(node.name)])
    assert ping == Atom("pong")
    with pytest.raises(RemoteError, match="noproc"):
        await node.call(otp.name, "gen_server", "call", [(Atom("nobody"), Atom(node.name)), Atom("hello")])
    with pytest.raises(RemoteRaisedError, match="undef"):
        await node.call(otp.name, "erpc", "call", [Atom(node.name), Atom("erlang"), Atom("node"), []])


async def test_otp_dials_the_node(node: HiddenNode, otp: OtpNode) -> None:
    box = node.mailbox("inbox")
    await otp.evaluate(f"{{inbox, '{node.name}'}} ! {{hello, self()}}")
    hello, pid = await box.receive(timeout=10.0)
    assert hello is Atom("hello")
    assert isinstance(pid, Pid)
    assert node.connected == (otp.name,)


async def test_messages_go_both_ways(node: HiddenNode, otp: OtpNode) -> None:
    box = node.mailbox()
    await node.call(otp.name, "erlang", "send", [box.pid, (Atom("x"), {b"k": [1, 2.5]})])
    assert await box.receive(timeout=5.0) == (Atom("x"), {b"k": [1, 2.5]})
    await node.send((Atom("rex"), otp.name), (box.pid, Atom("ignored")))
    await node.cast(otp.name, "erlang", "send", [box.pid, b"cast"])
    assert await box.receive(timeout=5.0) == b"cast"
    with pytest.raises(DeadlineError):
        await box.receive(timeout=0.01)


async def _sleeper(node: HiddenNode, otp: OtpNode) -> Pid:
    pid = await node.call(otp.name, "erlang", "spawn", [Atom("timer"), Atom("sleep"), [60_000]])
    assert isinstance(pid, Pid)
    return pid


async def test_monitors_and_links_of_otp_processes_report_their_end(node: HiddenNode, otp: OtpNode) -> None:
    box = node.mailbox()
    pid = await _sleeper(node, otp)
    monitor = await node.monitor(pid, mailbox=box)
    link = await node.link(pid)
    await node.call(otp.name, "erlang", "exit", [pid, Atom("stone")])
    assert await monitor.wait(timeout=5.0) is Atom("stone")
    assert await link.wait(timeout=5.0) is Atom("stone")
    assert await box.receive(timeout=5.0) == (
        Atom("DOWN"), monitor.reference, Atom("process"), pid, Atom("stone"),
    )  # fmt: skip
    gone = await node.monitor((Atom("nobody"), otp.name))
    assert await gone.wait(timeout=5.0) is Atom("noproc")


async def test_a_closed_mailbox_takes_its_linked_process_along(node: HiddenNode, otp: OtpNode) -> None:
    box = node.mailbox()
    pid = await _sleeper(node, otp)
    await node.link(pid, mailbox=box)
    monitor = await node.monitor(pid)
    await box.close(Atom("stone"))
    assert await monitor.wait(timeout=5.0) is Atom("stone")


async def test_otp_is_told_when_a_monitored_mailbox_closes(node: HiddenNode, otp: OtpNode) -> None:
    box, watched = node.mailbox("inbox"), node.mailbox("watched")
    await otp.evaluate(
        f"R = monitor(process, {{watched, '{node.name}'}}), {{inbox, '{node.name}'}} ! ready,"
        f" receive {{'DOWN', R, _, _, Why}} -> {{inbox, '{node.name}'}} ! Why end"
    )
    assert await box.receive(timeout=10.0) is Atom("ready")
    await watched.close(Atom("finished"))
    assert await box.receive(timeout=5.0) is Atom("finished")


async def test_a_reply_of_16_mib_and_64_calls_at_once(node: HiddenNode, otp: OtpNode) -> None:
    size = 16 * 1024 * 1024
    big = await node.call(otp.name, "binary", "copy", [b"x", size], timeout=30.0)
    assert len(big) == size
    answers = await asyncio.gather(*(node.call(otp.name, "erlang", "abs", [-n]) for n in range(64)))
    assert answers == list(range(64))
    assert node.statistics().pending_calls == 0


async def test_calls_are_answered_while_a_large_answer_is_decoded(node: HiddenNode, otp: OtpNode) -> None:
    record = {Atom("count"): 3, Atom("name"): b"a small record", Atom("place"): [1.5, 2.5]}
    await node.call(otp.name, "erlang", "node", [])
    connection = node._peers[otp.name].connection
    large = asyncio.create_task(node.call(otp.name, "lists", "duplicate", [60_000, record], timeout=60.0))
    meanwhile = 0
    while not large.done():
        before = connection.unfinished
        await node.call(otp.name, "erlang", "node", [], timeout=60.0)
        await node.erpc(otp.name, "erlang", "node", [], timeout=60.0)
        meanwhile += before and connection.unfinished
    assert meanwhile
    assert await large == [record] * 60_000


async def test_a_wrong_cookie_is_named(mapper: PortMapper, otp: OtpNode) -> None:
    async with HiddenNode("sim2@127.0.0.1", cookie="wrong", config=mapper.node_config()) as node:
        with pytest.raises(HandshakeError, match="cookie"):
            await node.connect(otp.name)


async def test_no_port_mapper_no_such_node_and_no_such_host_are_named(node: HiddenNode) -> None:
    config = NodeConfig(epmd_host="127.0.0.1", epmd_port=free_port())
    with pytest.raises(HandshakeError, match="port mapper"):
        async with HiddenNode("sim3@127.0.0.1", cookie=COOKIE, config=config):
            pass
    with pytest.raises(HandshakeError, match="is registered at"):
        await node.connect("nobody@127.0.0.1")
    with pytest.raises(HandshakeError, match="does not resolve"):
        await node.connect("nobody@no-such-host.invalid")
    with pytest.raises(ConfigurationError, match="itself"):
        await node.connect(node.name)


async def test_a_name_in_use_is_named(node: HiddenNode, mapper: PortMapper) -> None:
    with pytest.raises(HandshakeError, match="in use"):
        async with HiddenNode(node.name, cookie=COOKIE, config=mapper.node_config()):
            pass


async def test_a_killed_node_fails_waiting_calls_and_watches(node: HiddenNode, otp: OtpNode) -> None:
    monitor = await node.monitor(await _sleeper(node, otp))
    waiting = asyncio.create_task(node.call(otp.name, "timer", "sleep", [60_000], timeout=60.0))
    assert await node.call(otp.name, "erlang", "abs", [-1]) == 1
    await otp.kill()
    with pytest.raises(NodeDownError):
        await waiting
    assert await monitor.wait(timeout=5.0) is Atom("noconnection")
    assert node.connected == ()


async def test_a_call_ends_at_its_deadline(node: HiddenNode, otp: OtpNode) -> None:
    with pytest.raises(DeadlineError):
        await node.call(otp.name, "timer", "sleep", [60_000], timeout=0.2)
    assert node.statistics().pending_calls == 0


async def test_ticks_keep_an_idle_connection_past_net_ticktime(mapper: PortMapper) -> None:
    config = NodeConfig(epmd_host="127.0.0.1", epmd_port=mapper.port, dist=DistConfig(net_ticktime=1.0))
    async with (
        otp_node(mapper, "hs4", flags=("-kernel", "net_ticktime", "1")) as otp,
        HiddenNode("sim4@127.0.0.1", cookie=COOKIE, config=config) as node,
    ):
        downs: list[str] = []
        node.on_node_down(downs.append)
        box = node.mailbox()
        await node.cast(
            otp.name, "timer", "apply_after", [3_500, Atom("erlang"), Atom("send"), [box.pid, Atom("late")]]
        )
        assert await box.receive(timeout=10.0) is Atom("late")
        assert downs == []


@pytest.mark.slow
async def test_a_node_as_it_comes_keeps_an_idle_connection_to_one_with_a_homeservers_ticktime(
    mapper: PortMapper,
) -> None:
    """Both ways: this side's ticktime of 60 s asks less of the peer than its own 8 s ask of this side."""
    config = NodeConfig(epmd_host="127.0.0.1", epmd_port=mapper.port)
    async with (
        otp_node(mapper, "hs4", flags=("-kernel", "net_ticktime", "8")) as otp,
        HiddenNode("sim4@127.0.0.1", cookie=COOKIE, config=config) as node,
    ):
        downs: list[str] = []
        node.on_node_down(downs.append)
        await node.call(otp.name, "erlang", "node", [])
        # Without ticks the peer ends the connection after 6 to 10 s of this side's silence.
        await asyncio.sleep(12)
        assert downs == []
        assert node.connected == (otp.name,)


async def test_two_hidden_nodes_connect(node: HiddenNode, mapper: PortMapper) -> None:
    async with HiddenNode("sim5@127.0.0.1", cookie=COOKIE, config=mapper.node_config()) as other:
        box, theirs = node.mailbox("box"), other.mailbox()
        watch = await node.monitor(theirs.pid)
        await other.send(("box", node.name), {1: b"int", Atom("a"): [1, 2]})
        assert await box.receive(timeout=5.0) == {1: b"int", Atom("a"): [1, 2]}
        await theirs.close()
        assert await watch.wait(timeout=5.0) is Atom("normal")


async def test_bytes_of_a_node_are_heard(node: HiddenNode, otp: OtpNode) -> None:
    assert node.heard_from(otp.name) is None
    before = asyncio.get_running_loop().time()
    await node.call(otp.name, "erlang", "node", [])
    heard = node.heard_from(otp.name)
    assert heard is not None
    assert heard >= before
    await node.disconnect(otp.name)
    assert node.heard_from(otp.name) is None
    await node.disconnect(otp.name)


async def test_a_peer_that_stopped_reading_holds_nobody_up(node: HiddenNode, otp: OtpNode) -> None:
    """Large calls wait for it until their deadline, its connection can be ended, and the node closes."""
    await node.connect(otp.name)
    otp.pause()
    size = 8 * 1024 * 1024
    calls = [node.call(otp.name, "erlang", "size", [bytes(size)], timeout=0.3) for _ in range(8)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, DeadlineError) for outcome in outcomes)
    # Those that came after the first found the way blocked and sent nothing.
    assert node.statistics().calls == 1
    with pytest.raises(DeadlineError, match="no more data"):
        await node.call(otp.name, "erlang", "node", [], timeout=0.1)
    await node.disconnect(otp.name, timeout=0.05)
    assert node.connected == ()


async def test_large_calls_at_once_go_one_after_another(node: HiddenNode, otp: OtpNode) -> None:
    size = 4 * 1024 * 1024
    calls = [node.call(otp.name, "erlang", "byte_size", [bytes(size)], timeout=30.0) for _ in range(6)]
    assert await asyncio.gather(*calls) == [size] * 6


async def test_a_node_that_was_closed_says_so(mapper: PortMapper, otp: OtpNode) -> None:
    node = HiddenNode("sim7@127.0.0.1", cookie=COOKIE, config=mapper.node_config())
    with pytest.raises(ClosedError):
        await node.connect(otp.name)
    with pytest.raises(InvalidStateError):
        _ = node.port
    assert node.statistics().connections == 0
    async with node:
        box = node.mailbox()
        waiting = asyncio.create_task(node.call(otp.name, "timer", "sleep", [60_000], timeout=60.0))
        receiving = asyncio.create_task(box.receive())
        await node.call(otp.name, "erlang", "node", [])
        with pytest.raises(InvalidStateError, match="once"):
            await node.__aenter__()
    for task in (waiting, receiving):
        with pytest.raises(ClosedError):
            await task
    with pytest.raises(ClosedError):
        await node.call(otp.name, "erlang", "node", [])
    with pytest.raises(ClosedError):
        node.mailbox()
    await node.close()


async def test_a_restarted_node_is_told_from_its_earlier_run(mapper: PortMapper, otp: OtpNode) -> None:
    """Pids of an earlier run of a name are told apart from those of this one."""
    pids = []
    for _ in range(2):
        async with HiddenNode("sim8@127.0.0.1", cookie=COOKIE, config=mapper.node_config()) as node:
            box = node.mailbox()
            pids.append(box.pid)
            await node.call(otp.name, "erlang", "send", [pids[0], b"to the first"])
            await node.call(otp.name, "erlang", "send", [box.pid, b"to this one"])
            first = await box.receive(timeout=5.0)
            assert first == (b"to the first" if len(pids) == 1 else b"to this one")
    assert pids[0].creation != pids[1].creation


async def test_messages_to_processes_of_this_node_never_leave_it(node: HiddenNode) -> None:
    box = node.mailbox("inbox")
    await node.send(box, 1)
    await node.send(box.pid, 2)
    await node.send(("inbox", node.name), 3)
    await node.send((Atom("inbox"), Atom(node.name)), 4)
    assert [await box.receive() for _ in range(4)] == [1, 2, 3, 4]
    await node.send(("nobody", node.name), 5)
    await asyncio.sleep(0)
    assert node.statistics().undelivered == 1
    with pytest.raises(ConfigurationError, match="send to a pid or to"):
        await node.send("inbox", 1)  # type: ignore[arg-type]  # that it is refused is what is shown
    assert node.connected == ()


async def test_a_message_waits_for_a_peer_that_stopped_reading(mapper: PortMapper, otp: OtpNode) -> None:
    config = replace(mapper.node_config(), call_timeout=0.1)
    async with HiddenNode("sim9@127.0.0.1", cookie=COOKIE, config=config) as node:
        await node.connect(otp.name)
        otp.pause()

        async def flood() -> None:
            for _ in range(64):
                await node.send(("nobody", otp.name), bytes(1024 * 1024))

        with pytest.raises(DeadlineError, match="no more data"):
            await flood()


async def test_a_link_made_twice_is_one(node: HiddenNode, otp: OtpNode) -> None:
    pid = await _sleeper(node, otp)
    assert await node.link(pid) is await node.link(pid)


async def test_a_callback_that_fails_stops_nobody(
    node: HiddenNode, otp: OtpNode, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: str) -> None:
        raise RuntimeError("a caller's own mistake")

    node.on_node_down(fail)
    downs: list[str] = []
    node.on_node_down(downs.append)
    await node.connect(otp.name)
    await node.disconnect(otp.name)
    assert downs == [otp.name]
    assert "callback failed" in caplog.text


_MIB = 1024 * 1024


async def _small_calls(node: HiddenNode, otp: OtpNode, amount: int, large: asyncio.Task[Any]) -> int:
    """Small calls one after another; how many were answered before the large one was."""
    before = 0
    for number in range(amount):
        assert await node.call(otp.name, "erlang", "abs", [-number], timeout=30.0) == number
        await node.send(("nobody", otp.name), number)
        before += not large.done()
    return before


async def test_small_calls_are_answered_while_an_answer_of_64_mib_comes(
    node: HiddenNode, otp: OtpNode
) -> None:
    large = asyncio.create_task(node.call(otp.name, "binary", "copy", [b"x", 64 * _MIB], timeout=30.0))
    assert await _small_calls(node, otp, 200, large) > 0
    assert await large == b"x" * (64 * _MIB)


async def test_small_calls_are_answered_while_64_mib_go_out(node: HiddenNode, otp: OtpNode) -> None:
    await node.connect(otp.name)
    data = random.Random(1).randbytes(64 * _MIB)
    large = asyncio.create_task(node.call(otp.name, "erlang", "md5", [data], timeout=30.0))
    await asyncio.sleep(0)
    assert await _small_calls(node, otp, 200, large) > 0
    assert await large == hashlib.md5(data, usedforsecurity=False).digest()


async def test_large_messages_of_many_processes_come_at_once(node: HiddenNode, otp: OtpNode) -> None:
    sizes = [(index + 1) * _MIB + index for index in range(8)]
    calls = [
        node.call(otp.name, "binary", "copy", [b"%d" % (i % 10), n], timeout=30.0)
        for i, n in enumerate(sizes)
    ]
    for index, answer in enumerate(await asyncio.gather(*calls)):
        assert answer == b"%d" % (index % 10) * sizes[index]


async def test_a_large_message_and_those_after_it_arrive_in_order(node: HiddenNode, otp: OtpNode) -> None:
    box = node.mailbox("box")
    # A process that passes on the size of each message it gets.
    await otp.evaluate(
        f"F = fun F() -> receive M -> {{box, '{node.name}'}} ! byte_size(M), F() end end,"
        f" register(sizes, P = spawn(F)), {{box, '{node.name}'}} ! P"
    )
    pid = await box.receive(timeout=10.0)
    small, large = b"small", bytes(20 * _MIB)
    expected = []
    for to in (pid, ("sizes", otp.name), pid):
        for message in (large, small, large, small):
            await node.send(to, message)
            expected.append(len(message))
    assert [await box.receive(timeout=30.0) for _ in expected] == expected


async def test_more_atoms_than_the_cache_holds_go_both_ways_again_and_again(
    node: HiddenNode, otp: OtpNode
) -> None:
    atoms = [Atom(f"atom_of_the_cache_{number}") for number in range(3_000)] + [Atom("名" * 200)]
    for _ in range(3):
        assert await node.call(otp.name, "lists", "reverse", [atoms], timeout=10.0) == atoms[::-1]
        # In parts of less than a header's 255 references, so that every atom goes through the cache.
        for start in range(0, len(atoms), 200):
            part = atoms[start : start + 200]
            assert await node.call(otp.name, "lists", "reverse", [part]) == part[::-1]


async def test_signals_with_a_trace_token_arrive_as_those_without(node: HiddenNode, otp: OtpNode) -> None:
    box, traced = node.mailbox("box"), node.mailbox()
    traced.trap_exit = True
    here = f"{{box, '{node.name}'}}"
    await otp.evaluate(
        f"spawn(fun() -> seq_trace:set_token(label, 17), {here} ! by_name, {here} ! self(),"
        # A message without a token takes it away.
        f" receive {{to, Pid}} -> seq_trace:set_token(label, 17), Pid ! by_pid,"
        f' Pid ! binary:copy(<<"x">>, {_MIB}), exit(Pid, asked), link(Pid), exit(linked) end end)'
    )
    assert await box.receive(timeout=10.0) is Atom("by_name")
    process = await box.receive(timeout=10.0)
    await node.send(process, (Atom("to"), traced.pid))
    assert await traced.receive(timeout=10.0) is Atom("by_pid")
    assert await traced.receive(timeout=10.0) == b"x" * _MIB
    assert await traced.receive(timeout=10.0) == (Atom("EXIT"), process, Atom("asked"))
    assert await traced.receive(timeout=10.0) == (Atom("EXIT"), process, Atom("linked"))


async def test_reasons_arguments_and_results_may_be_as_large_as_messages(
    node: HiddenNode, otp: OtpNode
) -> None:
    box, here = node.mailbox("box"), f"{{box, '{node.name}'}}"
    large = bytes(5 * _MIB)
    assert await node.erpc(otp.name, "erlang", "byte_size", [large], timeout=30.0) == len(large)
    await otp.evaluate(
        f"spawn(fun() -> process_flag(trap_exit, true), {here} ! self(),"
        f" receive {{'EXIT', _, R}} -> {here} ! byte_size(R) end,"
        f" receive {{watch, P}} -> monitor(process, P), {here} ! watching end,"
        f" receive {{'DOWN', _, _, _, Why}} -> {here} ! byte_size(Why) end,"
        f" receive stop -> exit(binary:copy(<<1>>, {len(large)})) end end)"
    )
    process = await box.receive(timeout=10.0)
    await node.exit(process, large)
    assert await box.receive(timeout=30.0) == len(large)
    watched = node.mailbox()
    await node.send(process, (Atom("watch"), watched.pid))
    assert await box.receive(timeout=10.0) is Atom("watching")
    await watched.close(large)
    assert await box.receive(timeout=30.0) == len(large)
    watch, link = await node.monitor(process), await node.link(process)
    await node.send(process, Atom("stop"))
    assert await watch.wait(timeout=30.0) == b"\x01" * len(large)
    assert await link.wait(timeout=30.0) == b"\x01" * len(large)
