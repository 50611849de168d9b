"""The node as OTP and Elixir see it, and they as it sees them: real BEAMs on both ends of every test."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import (
    ConfigurationError,
    DeadlineError,
    NodeDownError,
    RemoteExitedError,
    RemoteRaisedError,
    RemoteRefusedError,
    RemoteThrewError,
)
from bridge.etf import Atom, Pid
from bridge.node import GenServer, HiddenNode, Mailbox, Sender, Stop
from tests.support.otp import COOKIE, OtpNode, PortMapper, otp_node

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

_LARGE = 4 * 1024 * 1024
"""bytes; more than goes at once, so that what follows could overtake it"""
_ELIXIR = Path(__file__).parent / "citizen.exs"


async def _evaluate(node: HiddenNode, otp: OtpNode, text: str) -> Any:
    """The value of Erlang expressions, evaluated in a process of the node; ``Py`` is our node's name."""
    source = f"Py = '{node.name}', {text}."
    _, tokens, _ = await node.call(otp.name, "erl_scan", "string", [list(source.encode())])
    outcome, parsed = await node.call(otp.name, "erl_parse", "parse_exprs", [tokens])
    assert outcome is Atom("ok"), parsed
    _, value, _ = await node.call(otp.name, "erl_eval", "exprs", [parsed, []], timeout=10.0)
    return value


class _Counter(GenServer):
    def __init__(self) -> None:
        self.count = 0

    async def handle_call(self, request: Any, sender: Sender) -> Any:
        del sender
        match str(request):
            case "next":
                self.count += 1
                return (Atom("ok"), self.count)
            case "slow":
                await asyncio.sleep(60.0)
            case "stop":
                return Stop(Atom("normal"), reply=bytes(_LARGE))
        raise ValueError(f"no request: {request}")

    def handle_cast(self, request: Any) -> None:
        self.count = request

    def get_state(self) -> Any:
        return self.count


def _expose(node: HiddenNode) -> None:
    async def pause(seconds: float) -> Any:
        await asyncio.sleep(seconds)
        return Atom("rested")

    def raise_value() -> None:
        raise ValueError("no")

    def throw(term: Any) -> None:
        raise RemoteThrewError("", reason=term)

    def exit_with(term: Any) -> None:
        raise RemoteExitedError("", reason=term)

    node.expose("calculator", "add", lambda a, b: a + b)
    node.expose("calculator", "pause", pause)
    node.expose("calculator", "raise", raise_value)
    node.expose("calculator", "throw", throw)
    node.expose("calculator", "exit", exit_with)
    node.expose("calculator", "none", lambda: None)


async def test_otp_calls_exposed_functions_by_rpc(node: HiddenNode, otp: OtpNode) -> None:
    _expose(node)
    await node.connect(otp.name)
    value = await _evaluate(
        node,
        otp,
        """{rpc:call(Py, calculator, add, [1, 2]),
            rpc:call(Py, calculator, add, [1, 2], 5000),
            rpc:block_call(Py, calculator, add, [1, 2]),
            rpc:multicall([Py, node()], calculator, add, [1, 2]),
            rpc:call(Py, calculator, add, [1]),
            rpc:call(Py, os, cmd, ["true"]),
            rpc:call(Py, calculator, raise, []),
            rpc:call(Py, calculator, throw, [ball]),
            rpc:call(Py, calculator, exit, [stone]),
            rpc:call(Py, calculator, pause, [60.0], 50),
            rpc:yield(rpc:async_call(Py, calculator, add, [1, 2])),
            rpc:cast(Py, calculator, add, [1, 2])}""",
    )
    badrpc, exit_, undef = Atom("badrpc"), Atom("EXIT"), Atom("undef")
    module, add = Atom("calculator"), Atom("add")
    assert value[:3] == (3, 3, 3)
    assert value[3][0][0] == 3
    assert value[3][0][1][0] is badrpc  # OTP has no calculator
    assert value[4] == (badrpc, (exit_, (undef, [(module, add, [1], [])])))
    assert value[5][1][1][0] is undef
    python = (Atom("python"), b"ValueError", b"no")
    assert value[6] == (badrpc, (exit_, (python, [(module, Atom("raise"), [], [])])))
    assert value[7:] == (Atom("ball"), (badrpc, (exit_, Atom("stone"))), (badrpc, Atom("timeout")), 3, True)


async def test_otp_calls_exposed_functions_by_erpc(node: HiddenNode, otp: OtpNode) -> None:
    _expose(node)
    await node.connect(otp.name)
    value = await _evaluate(
        node,
        otp,
        """Try = fun(F, A) -> try erpc:call(Py, calculator, F, A, 1000) catch C:R -> {C, R} end end,
           Ids = [erpc:send_request(Py, calculator, add, [N, N]) || N <- [1, 2, 3]],
           {Try(add, [1, 2]),
            [erpc:receive_response(Id) || Id <- Ids],
            erpc:multicall([Py, Py], calculator, pause, [0.01]),
            Try(sub, []), Try(raise, []), Try(throw, [ball]), Try(exit, [stone]),
            element(2, Try(none, [])),
            try erpc:call(Py, calculator, pause, [60.0], 50) catch C1:R1 -> {C1, R1} end,
            try erpc:call(Py, fun() -> node() end) catch C2:R2 -> {C2, element(2, R2)} end,
            erpc:cast(Py, calculator, add, [1, 2])}""",
    )
    ok, error, exception = Atom("ok"), Atom("error"), Atom("exception")
    rested = (ok, Atom("rested"))
    assert value[:3] == (3, [2, 4, 6], [rested, rested])
    assert value[3] == (error, (exception, Atom("undef"), [(Atom("calculator"), Atom("sub"), [], [])]))
    assert value[4][1][1] == (Atom("python"), b"ValueError", b"no")
    assert value[5:7] == ((Atom("throw"), Atom("ball")), (Atom("exit"), (exception, Atom("stone"))))
    assert value[7][1][1] == b"ConfigurationError"
    assert value[8:] == ((error, (Atom("erpc"), Atom("timeout"))), (error, Atom("undef")), ok)


async def test_a_call_too_many_is_refused_as_otp_would(mapper: PortMapper, otp: OtpNode) -> None:
    config = replace(mapper.node_config(), max_incoming_calls=1, incoming_call_timeout=0.2)
    async with HiddenNode("sim10@127.0.0.1", cookie=COOKIE, config=config) as node:
        _expose(node)
        await node.connect(otp.name)
        value = await _evaluate(
            node,
            otp,
            """Id = erpc:send_request(Py, calculator, pause, [60.0]),
               {try erpc:call(Py, calculator, add, [1, 2]) catch C:R -> {C, R} end,
                try erpc:receive_response(Id) catch error:{exception, Late, _} -> Late end}""",
        )
    assert value[0] == (Atom("error"), (Atom("erpc"), Atom("system_limit")))
    assert value[1][1] == b"TimeoutError"


async def test_otp_speaks_to_a_python_server_as_to_a_gen_server(node: HiddenNode, otp: OtpNode) -> None:
    await node.connect(otp.name)
    async with node.serve("counter", _Counter()) as process:
        value = await _evaluate(
            node,
            otp,
            """S = {counter, Py},
               A = gen_server:call(S, next),
               ok = gen_server:cast(S, 10),
               {[{Py, {ok, 11}}], [gone@h]} = gen_server:multi_call([Py, gone@h], counter, next, 5000),
               Id = gen_server:send_request(S, next),
               {reply, {ok, 12}} = gen_server:wait_response(Id, 5000),
               {A, gen_server:call(S, next, infinity), sys:get_state(S),
                catch gen_server:call(S, slow, 50)}""",
        )
        assert value[:2] == ((Atom("ok"), 1), (Atom("ok"), 13))
        # OTP 25 hands on what newer ones take apart.
        assert value[2] in (13, (Atom("ok"), 13))
        assert value[3][1][0] is Atom("timeout")
        await node.exit(process.pid, Atom("kill"))
    async with node.serve("counter", _Counter()) as process:
        value = await _evaluate(node, otp, "catch gen_server:call({counter, Py}, surprise)")
        reason: Any = ((Atom("python"), b"ValueError", b"no request: surprise"), [])
        assert value[1][0] == reason
        assert await process.wait() == reason
    async with node.serve("counter", _Counter()) as process:
        assert await _evaluate(node, otp, "gen_server:stop({counter, Py}, done, 5000)") is Atom("ok")
        assert await process.wait() is Atom("done")
    async with node.serve("counter", _Counter()) as process:
        # The last reply is large, and still comes before the end of the server that gave it.
        value = await _evaluate(node, otp, "byte_size(gen_server:call({counter, Py}, stop))")
        assert value == _LARGE
        assert await process.wait(timeout=5.0) is Atom("normal")


async def test_otp_watches_links_and_ends_python_processes(node: HiddenNode, otp: OtpNode) -> None:
    await node.connect(otp.name)
    out = node.mailbox("out")
    watched, linked, mortal = node.mailbox("watched"), node.mailbox("linked"), node.mailbox(trap_exit=False)
    node.register("mortal", mortal)
    await otp.evaluate(
        f"""Py = '{node.name}', Out = {{out, Py}},
            R = erlang:monitor(process, {{watched, Py}}),
            N = erlang:monitor(process, {{nobody, Py}}),
            receive {{'DOWN', N, _, _, W1}} -> Out ! W1 end,
            receive {{'DOWN', R, _, O, W2}} -> Out ! {{O, W2}} end,
            {{linked, Py}} ! {{hello, spawn(fun() -> receive P -> link(P), Out ! linked,
                receive never -> ok end end end)}}"""
    )
    assert await out.receive(timeout=10.0) is Atom("noproc")
    await watched.close(Atom("stone"))
    assert await out.receive(timeout=10.0) == ((Atom("watched"), Atom(node.name)), Atom("stone"))
    _, pid = await linked.receive(timeout=10.0)
    await node.send(pid, linked.pid)
    assert await out.receive(timeout=10.0) is Atom("linked")
    # Both ways: its exit comes as a message, and a Python process that ends takes another one along.
    end = await node.monitor(pid)
    await linked.close(Atom("fallen"))
    assert await end.wait(timeout=5.0) is Atom("fallen")
    await node.call(otp.name, "erlang", "exit", [mortal.pid, Atom("normal")])
    assert not mortal.closed
    await node.call(otp.name, "erlang", "exit", [mortal.pid, Atom("stone")])
    with pytest.raises(RemoteExitedError, match="stone"):
        await mortal.receive(timeout=5.0)
    assert node.whereis("mortal") is None


async def test_an_exit_of_a_linked_otp_process_arrives(node: HiddenNode, otp: OtpNode) -> None:
    box, mortal = node.mailbox(), node.mailbox(trap_exit=False)
    pid = await node.call(otp.name, "erlang", "spawn", [Atom("timer"), Atom("sleep"), [60_000]])
    await node.link(pid, mailbox=box)
    await node.link(pid, mailbox=mortal)
    await node.exit(pid, Atom("stone"))
    assert await box.receive(timeout=5.0) == (Atom("EXIT"), pid, Atom("stone"))
    with pytest.raises(RemoteExitedError, match="stone"):
        await mortal.receive(timeout=5.0)


async def test_what_was_unlinked_or_demonitored_no_longer_matters(node: HiddenNode, otp: OtpNode) -> None:
    box = node.mailbox()
    pid = await node.call(otp.name, "erlang", "spawn", [Atom("timer"), Atom("sleep"), [60_000]])
    await node.link(pid, mailbox=box)
    watch = await node.monitor(pid, mailbox=box)

    async def links_and_monitors() -> list[tuple[Any, list[Any]]]:
        keys = [Atom("links"), Atom("monitored_by")]
        info = await node.call(otp.name, "erlang", "process_info", [pid, keys])
        # On newer OTPs processes of its own node watch it, too.
        return [(key, [other for other in found if other == box.pid]) for key, found in info]

    assert await links_and_monitors() == [(Atom("links"), [box.pid]), (Atom("monitored_by"), [box.pid])]
    await node.unlink(pid, mailbox=box)
    await node.demonitor(watch)
    assert await links_and_monitors() == [(Atom("links"), []), (Atom("monitored_by"), [])]
    end = await node.monitor(pid)
    await node.exit(pid, Atom("kill"))
    assert await end.wait(timeout=5.0) is Atom("killed")
    assert len(box) == 0


async def test_otp_pings_connects_to_and_watches_the_node(mapper: PortMapper, otp: OtpNode) -> None:
    async with HiddenNode("asker@127.0.0.1", cookie=COOKIE, config=mapper.node_config()) as asker:
        out = asker.mailbox("out")
        async with HiddenNode("sim11@127.0.0.1", cookie=COOKIE, config=mapper.node_config()) as node:
            await otp.evaluate(
                f"""N = '{node.name}', Out = {{out, '{asker.name}'}},
                    Out ! {{net_kernel:connect_node(N), net_adm:ping(N), nodes(hidden)}},
                    erlang:monitor_node(N, true), Out ! watching,
                    receive {{nodedown, N}} -> Out ! nodedown end"""
            )
            connected, pong, hidden = await out.receive(timeout=10.0)
            assert (connected, pong) == (True, Atom("pong"))
            assert Atom(node.name) in hidden
            assert await out.receive(timeout=10.0) is Atom("watching")
        assert await out.receive(timeout=10.0) is Atom("nodedown")


@pytest.mark.parametrize("way", ["call", "erpc"])
async def test_a_call_of_otp_fails_by_the_exact_class(node: HiddenNode, otp: OtpNode, way: str) -> None:
    call = getattr(node, way)
    assert await call(otp.name, "lists", "sum", [[1, 2, 3]]) == 6
    with pytest.raises(RemoteRaisedError) as raised:
        await call(otp.name, "erlang", "hd", [[]])
    assert raised.value.reason is Atom("badarg")
    assert raised.value.stack[0][:2] == (Atom("erlang"), Atom("hd"))
    with pytest.raises(RemoteRaisedError) as undefined:
        await call(otp.name, "no_such_module", "f", [1])
    assert undefined.value.reason is Atom("undef")
    with pytest.raises(RemoteExitedError) as exited:
        await call(otp.name, "erlang", "exit", [(Atom("stone"), 1)])
    assert exited.value.reason == (Atom("stone"), 1)
    if way == "call":
        assert await call(otp.name, "erlang", "throw", [Atom("ball")]) is Atom("ball")
    else:
        with pytest.raises(RemoteThrewError) as threw:
            await call(otp.name, "erlang", "throw", [Atom("ball")])
        assert threw.value.reason is Atom("ball")
        # rpc cannot tell this exit from an error.
        with pytest.raises(RemoteExitedError):
            await call(otp.name, "erlang", "exit", [(Atom("a"), [(Atom("m"), Atom("f"), 1, [])])])


async def test_a_process_that_is_killed_in_the_middle_of_a_call_is_told(
    node: HiddenNode, otp: OtpNode
) -> None:
    calls = [
        asyncio.create_task(way(otp.name, "timer", "sleep", [60_000], timeout=60.0))
        for way in (node.call, node.erpc)
    ]
    await _evaluate(
        node,
        otp,
        """Sleepers = fun() -> [P || P <- processes(),
               {current_function, {timer, sleep, 1}} =:= process_info(P, current_function)] end,
           Wait = fun W() -> case Sleepers() of [_, _ | _] = S -> S; _ -> erlang:yield(), W() end end,
           [exit(P, kill) || P <- Wait()]""",
    )
    for call in calls:
        with pytest.raises(RemoteExitedError, match="killed"):
            await call


async def test_a_python_node_refuses_what_it_does_not_run(node: HiddenNode, mapper: PortMapper) -> None:
    async with HiddenNode("sim12@127.0.0.1", cookie=COOKIE, config=mapper.node_config()) as other:
        _expose(other)
        assert await node.erpc(other.name, "calculator", "add", [1, 2]) == 3
        assert await node.call(other.name, "calculator", "add", [1, 2]) == 3
        with pytest.raises(RemoteThrewError):
            await node.erpc(other.name, "calculator", "throw", [1])
        with pytest.raises(RemoteRaisedError, match="undef"):
            await node.erpc(other.name, "os", "cmd", [b"true"])


async def test_a_multicall_asks_all_at_once_and_hides_no_result(node: HiddenNode, mapper: PortMapper) -> None:
    _expose(node)
    async with otp_node(mapper, "mc1") as one, otp_node(mapper, "mc2") as two:
        names = [one.name, two.name, node.name, "gone@127.0.0.1", one.name]
        results = await node.multicall(names, "erlang", "node", [], timeout=5.0)
        assert list(results) == names[:4]
        assert results[one.name] is Atom(one.name)
        assert results[two.name] is Atom(two.name)
        assert isinstance(results[node.name], RemoteRaisedError)
        assert "registered" in str(results["gone@127.0.0.1"])
        with pytest.raises(ConfigurationError, match="no term"):
            await node.multicall(names, "erlang", "abs", [object()])
        two.pause()
        results = await node.multicall([one.name, two.name], "erlang", "node", [], timeout=0.5)
        assert results[one.name] is Atom(one.name)
        assert isinstance(results[two.name], DeadlineError)


async def test_gen_servers_of_otp_are_called(node: HiddenNode, otp: OtpNode) -> None:
    children = await node.gen_call(("kernel_sup", otp.name), Atom("which_children"))
    assert any(child[0] is Atom("code_server") for child in children)
    pid = await node.call(otp.name, "erlang", "whereis", [Atom("kernel_sup")])
    assert isinstance(pid, Pid)
    assert await node.gen_call(pid, Atom("which_children")) == children
    with pytest.raises(RemoteExitedError) as caught:
        await node.gen_call(("nobody", otp.name), 1)
    assert caught.value.reason is Atom("noproc")
    await node.gen_cast(("nobody", otp.name), 1)
    assert await _monitors(node, otp) == 0


async def _monitors(node: HiddenNode, otp: OtpNode) -> Any:
    """How many processes there are watched by a process here."""
    return await _evaluate(
        node,
        otp,
        """length([M || P <- processes(), {monitored_by, Ms} <- [process_info(P, monitored_by)],
                   M <- Ms, is_pid(M), node(M) =:= Py])""",
    )


@pytest.mark.parametrize("cancelled", [True, False])
async def test_giving_up_leaves_no_monitor_and_no_waiter(
    node: HiddenNode, otp: OtpNode, cancelled: bool
) -> None:
    await node.connect(otp.name)
    stuck = await node.call(otp.name, "erlang", "spawn", [Atom("timer"), Atom("sleep"), [60_000]])
    seconds = 60.0 if cancelled else 0.3
    tasks = [
        asyncio.create_task(node.call(otp.name, "timer", "sleep", [60_000], timeout=seconds)),
        asyncio.create_task(node.erpc(otp.name, "timer", "sleep", [60_000], timeout=seconds)),
        asyncio.create_task(node.gen_call(stuck, 1, timeout=seconds)),
    ]
    while cancelled and await _monitors(node, otp) < 2:
        await asyncio.sleep(0)
    if cancelled:
        multi = asyncio.create_task(node.multicall([otp.name], "timer", "sleep", [60_000], timeout=60.0))
        while await _monitors(node, otp) < 3:
            await asyncio.sleep(0)
        for task in (*tasks, multi):
            task.cancel()
        await asyncio.wait([multi])
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError if cancelled else DeadlineError}
    assert await _monitors(node, otp) == 0
    assert node.statistics().pending_calls == 0


async def test_the_death_of_a_node_reaches_every_waiter(node: HiddenNode, otp: OtpNode) -> None:
    box, mortal = node.mailbox(), node.mailbox(trap_exit=False)
    pid = await node.call(otp.name, "erlang", "spawn", [Atom("timer"), Atom("sleep"), [60_000]])
    watch, link = await node.monitor(pid, mailbox=box), await node.link(pid)
    await node.link(pid, mailbox=mortal)
    sleep = (otp.name, "timer", "sleep", [60_000])
    waiting = [
        asyncio.create_task(call)
        for call in (
            node.call(*sleep, timeout=60.0),
            node.erpc(*sleep, timeout=60.0),
            node.gen_call(pid, 1, timeout=60.0),
        )
    ]
    multi = asyncio.create_task(node.multicall([otp.name], *sleep[1:], timeout=60.0))
    while await _monitors(node, otp) < 4:
        await asyncio.sleep(0)
    await otp.kill()
    for task in waiting:
        with pytest.raises(NodeDownError):
            await task
    assert isinstance((await multi)[otp.name], NodeDownError)
    assert await watch.wait() is await link.wait() is Atom("noconnection")
    assert (await box.receive(timeout=5.0))[4] is Atom("noconnection")
    with pytest.raises(RemoteExitedError, match="noconnection"):
        await mortal.receive(timeout=5.0)


async def _answer(node: HiddenNode, box: Mailbox) -> None:
    told, asker = await box.receive()
    assert told == b"from Elixir"
    await node.send(asker, {Atom("from"): b"Python"})


async def test_an_elixir_node_finds_an_erlang_node(mapper: PortMapper) -> None:
    """Its assertions are in ``citizen.exs``."""
    async with HiddenNode("py@127.0.0.1", cookie=COOKIE, config=mapper.node_config()) as node:
        _expose(node)
        node.expose("Elixir.Greeter", "hello", lambda name: b"hello " + name)
        box = node.mailbox("inbox")
        async with node.serve("counter", _Counter()), node.serve("brief", _Counter()):
            process = await asyncio.create_subprocess_exec(
                "elixir",
                *("--name", "ex@127.0.0.1", "--cookie", COOKIE, "--erl"),
                "-start_epmd false -kernel prevent_overlapping_partitions false",
                *(str(_ELIXIR), node.name),
                env=mapper.environment(),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            answering = asyncio.create_task(_answer(node, box))
            try:
                async with asyncio.timeout(60.0):
                    output, _ = await process.communicate()
            finally:
                answering.cancel()
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        assert process.returncode == 0, output.decode()
        assert b"all is well" in output


def test_refusals_are_their_own_class() -> None:
    assert not issubclass(RemoteRefusedError, RemoteRaisedError)
