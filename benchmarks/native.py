"""A native hidden Erlang node beside homeservers: the peer that the Python client is measured against."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from bridge.cluster.local import LocalCluster
from bridge.etf import Atom
from bridge.node import HiddenNode
from tests.support.otp import PortMapper, otp_node

_NODE: Final = "native@127.0.0.1"
# Compiled, since the shell's interpreter would slow it down. The answer is microseconds per call.
_SOURCE: Final = """
-module(bench_native).
-export([run/4]).

run(What, Calls, AtOnce, Details) ->
    Counter = atomics:new(1, []),
    {Wall, ok} = timer:tc(fun() -> spread(What, Calls div AtOnce, AtOnce, Details#{counter => Counter}) end),
    Wall / Calls.

spread(What, Calls, AtOnce, Details) ->
    Workers = [spawn_monitor(fun() -> calls(What, Calls, Details#{worker => integer_to_binary(N)}) end)
               || N <- lists:seq(1, AtOnce)],
    [receive {'DOWN', Ref, process, Pid, Reason} -> normal = Reason end || {Pid, Ref} <- Workers],
    ok.

calls(_, 0, _) -> ok;
calls(What, Calls, Details) ->
    call(What, Details),
    calls(What, Calls - 1, Details).

call(call, #{node := Node}) ->
    Node = erpc:call(Node, erlang, node, [], 5000);
call(get, #{node := Node, store := Store, path := Path}) ->
    {ok, _} = erpc:call(Node, khepri, get, [Store, Path], 5000);
call(put, #{node := Node, store := Store, path := Path, data := Data, worker := Worker}) ->
    ok = erpc:call(Node, khepri, put, [Store, Path ++ [Worker], Data], 5000);
call(tx, #{node := Node, store := Store, worker := Worker, procedure := Procedure, counter := Counter,
           client := Client, instructions := All}) ->
    #{Worker := Instructions} = All,
    Number = atomics:add_get(Counter, 1, 1),
    Op = {Client, 1, Number, max(0, Number - 160)},
    {ok, {kb_tx, {ok, [ok]}}} =
        erpc:call(Node, khepri, transaction,
                  [Store, Procedure, [Op, {operations, Instructions}], rw,
                   #{timeout => 5000, protect_against_dups => false}], 6000).
"""


class Native:
    """Runs the loops on the native node.

    Args:
        node: a Python node connected to the native one.
        details: what a call needs: ``node``, and for calls of the store ``store``, ``path``, ``data``,
            ``procedure``, ``instructions`` by worker.
    """

    def __init__(self, node: HiddenNode, details: dict[str, Any]) -> None:
        self._node = node
        self._details = {Atom(key): value for key, value in details.items()}
        self._runs = 0

    async def run(self, what: str, calls: int, at_once: int) -> float:
        """Microseconds of wall time per call.

        Its processor time is left out: ``statistics(runtime)`` leaves out what the kernel does for it.
        """
        self._runs += 1
        # A client of its own for each run: its sequence begins anew.
        details = {**self._details, Atom("client"): f"native{self._runs}"}
        arguments = [Atom(what), calls, at_once, details]
        return float(await self._node.call(_NODE, "bench_native", "run", arguments, timeout=60.0))


@asynccontextmanager
async def native_node(
    cluster: LocalCluster, node: HiddenNode, details: dict[str, Any]
) -> AsyncIterator[Native]:
    """The native node in the cluster's namespace, with its loops loaded."""
    with tempfile.TemporaryDirectory(prefix="native-") as home:
        source = Path(home) / "bench_native.erl"
        source.write_text(_SOURCE)
        mapper = PortMapper(cluster.epmd_port, Path(home))
        flags = ("-hidden", "-setcookie", cluster.cookie)
        async with otp_node(mapper, _NODE.partition("@")[0], flags=flags):
            options = [Atom("binary"), Atom("report")]
            path = list(str(source).encode())
            _, module, binary = await node.call(_NODE, "compile", "file", [path, options], timeout=30.0)
            await node.call(_NODE, "code", "load_binary", [module, list(b"bench_native.erl"), binary])
            yield Native(node, details)
