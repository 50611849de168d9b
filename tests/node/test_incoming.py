"""What other nodes ask of this one: pings, rpc and erpc of exposed functions, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.dist import (
    AliasSend,
    DemonitorP,
    Exit,
    Exit2,
    MonitorPExit,
    RegSend,
    Send,
    SpawnReply,
    SpawnRequest,
)
from bridge.errors import RemoteError, RemoteExitedError, RemoteThrewError
from bridge.etf import Atom, ImproperList, Pid, Reference
from bridge.node.functions import Functions
from bridge.node.incoming import Incoming
from bridge.node.processes import Processes
from tests.support.peer import RecordingPeer

_ME, _PEER = Atom("me@h"), Atom("peer@h")
_THEIRS = Pid(_PEER, 9, 0, 3)
_REF, _TAG = Reference(_PEER, 3, (1, 2, 3)), Reference(_PEER, 3, (2, 2, 3))
_M, _F = Atom("m"), Atom("f")
_CALL = (Atom("erpc"), Atom("execute_call"), 4)
_CAST = (Atom("erpc"), Atom("execute_cast"), 3)
_MONITOR, _LINK = Atom("monitor"), Atom("link")


class _Side:
    """A node that one peer asks, with ``m:f`` exposed."""

    def __init__(self, maximum: int = 2, seconds: float = 60.0) -> None:
        self.peer = RecordingPeer()
        self.functions = Functions()
        self.processes = Processes(_ME, 7, 100, {"peer@h": self.peer}.get)
        self.incoming = Incoming(self.functions, self.processes, maximum=maximum, seconds=seconds)
        self.called: list[Any] = []
        self.functions.expose("m", "f", self._f)
        self.functions.expose("m", "wait", self._wait)
        self.go = asyncio.Event()

    def _f(self, value: Any) -> Any:
        self.called.append(value)
        if isinstance(value, Exception):
            raise value
        return value

    async def _wait(self) -> Any:
        await self.go.wait()
        return Atom("done")

    def spawn(self, args: Any, mfa: tuple[Any, ...] = _CALL, options: Any = (_MONITOR,)) -> SpawnReply:
        request = SpawnRequest(
            request=_REF, source=_THEIRS, group_leader=_THEIRS, mfa=mfa, options=list(options)
        )
        self.incoming.spawn(self.peer, request, args)
        reply = self.peer.take()
        assert isinstance(reply, SpawnReply)
        assert (reply.request, reply.to) == (_REF, _THEIRS)
        return reply

    def rex(self, payload: Any) -> None:
        self.processes.receive(self.peer, _reg("rex"), payload)

    async def settled(self) -> None:
        while len(self.incoming):
            await asyncio.sleep(0)


def _reg(name: str) -> Any:
    return RegSend(source=_THEIRS, to=Atom(name))


@asynccontextmanager
async def _side(**settings: Any) -> AsyncIterator[_Side]:
    side = _Side(**settings)
    yield side
    side.processes.close()
    await side.incoming.close()


async def test_erpc_runs_a_function_and_answers_by_the_end_of_its_process() -> None:
    async with _side() as side:
        reply = side.spawn([_TAG, _M, _F, [{b"k": 1}]])
        assert reply.flags == 2
        await side.settled()
        reason = (_TAG, Atom("return"), {b"k": 1})
        assert side.peer.sent == [
            MonitorPExit(source=reply.result, to=_THEIRS, reference=_REF, reason=reason)
        ]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no"), (Atom("error"), (Atom("python"), b"ValueError", b"no"))),
        (RemoteThrewError("", reason=7), (Atom("throw"), 7)),
        (RemoteExitedError("", reason=7), (Atom("exit"), 7)),
    ],
)
async def test_erpc_is_told_what_a_function_raised(error: Exception, told: tuple[Any, ...]) -> None:
    async with _side() as side:
        side.functions.expose("m", "raise", lambda: side._f(error))
        side.spawn([_TAG, _M, Atom("raise"), []])
        await side.settled()
        reason = side.peer.take().reason
        assert reason[:3] == (_TAG, *told)
        assert len(reason) == 3 or reason[3] == [(_M, Atom("raise"), [], [])]


async def test_erpc_of_what_is_not_exposed_is_undefined() -> None:
    async with _side() as side:
        side.spawn([_TAG, Atom("os"), Atom("cmd"), [b"true"]])
        await side.settled()
        stack: list[Any] = [(Atom("os"), Atom("cmd"), [b"true"], [])]
        assert side.peer.take().reason == (_TAG, Atom("error"), Atom("undef"), stack)


async def test_a_result_that_is_no_term_is_an_error_that_says_so() -> None:
    async with _side() as side:
        side.functions.expose("m", "none", lambda: None)
        side.spawn([_TAG, _M, Atom("none"), []])
        await side.settled()
        tag, kind, reason, _ = side.peer.take().reason
        assert (tag, kind, reason[1]) == (_TAG, Atom("error"), b"ConfigurationError")
        side.rex((Atom("$gen_call"), (_THEIRS, _REF), (Atom("call"), _M, Atom("none"), [], Atom("user"))))
        await side.settled()
        _, (_, (badrpc, (_, (reason, _)))) = side.peer.take()
        assert (badrpc, reason[1]) == (Atom("badrpc"), b"ConfigurationError")


@pytest.mark.parametrize("kind", [RemoteThrewError, RemoteExitedError])
async def test_what_a_function_throws_or_exits_with_is_a_term_too(kind: type[RemoteError]) -> None:
    async with _side() as side:
        error = kind("", reason=object())
        side.functions.expose("m", "raise", lambda: side._f(error))
        side.spawn([_TAG, _M, Atom("raise"), []])
        side.rex((Atom("$gen_call"), (_THEIRS, _REF), (Atom("call"), _M, Atom("raise"), [], Atom("user"))))
        await side.settled()
        erpc, (_, (_, (badrpc, (_, (rpc, _))))) = side.peer.sent
        assert badrpc is Atom("badrpc")
        assert erpc.reason[2][:2] == rpc[:2] == (Atom("python"), b"ConfigurationError")


async def test_a_function_that_takes_too_long_is_cancelled_and_its_caller_told() -> None:
    async with _side(seconds=0.01) as side:
        side.spawn([_TAG, _M, Atom("wait"), []])
        await side.settled()
        reason = side.peer.take().reason[2]
        assert reason[1] == b"TimeoutError"
        assert b"incoming_call_timeout=0.01" in reason[2]


async def test_a_time_out_inside_a_function_is_its_own() -> None:
    async with _side() as side:
        side.functions.expose("m", "late", lambda: side._f(TimeoutError("mine")))
        side.spawn([_TAG, _M, Atom("late"), []])
        await side.settled()
        assert side.peer.take().reason[2] == (Atom("python"), b"TimeoutError", b"mine")


async def test_as_many_calls_run_as_are_allowed_and_not_one_more() -> None:
    async with _side(maximum=2) as side:
        for _ in range(2):
            assert isinstance(side.spawn([_TAG, _M, Atom("wait"), []]).result, Pid)
        assert side.spawn([_TAG, _M, _F, [1]]).result is Atom("system_limit")
        request = (Atom("call"), _M, _F, [1], Atom("user"))
        side.rex((Atom("$gen_call"), (_THEIRS, _REF), request))
        refusal = (Atom("badrpc"), (Atom("EXIT"), Atom("system_limit")))
        assert side.peer.take() == (Send(to=_THEIRS), (_REF, refusal))
        side.rex((Atom("$gen_cast"), (Atom("cast"), _M, _F, [1], Atom("user"))))
        side.go.set()
        await side.settled()
        side.peer.sent.clear()
        assert side.called == []
        assert isinstance(side.spawn([_TAG, _M, _F, [1]]).result, Pid)


async def test_a_cast_is_run_and_answered_by_nothing() -> None:
    async with _side() as side:
        assert side.spawn([_M, _F, [1]], _CAST, []).flags == 0
        side.rex((Atom("$gen_cast"), (Atom("cast"), _M, _F, [2], Atom("user"))))
        side.rex((Atom("$gen_cast"), (Atom("cast"), _M, Atom("nope"), [], Atom("user"))))
        await side.settled()
        assert side.called == [1, 2]
        assert side.peer.sent == []
        watched = side.spawn([_M, Atom("nope"), []], _CAST)
        await side.settled()
        assert side.peer.take().source == watched.result


async def test_only_erpcs_two_functions_are_spawned() -> None:
    async with _side() as side:
        for mfa, args in (
            ((Atom("os"), Atom("cmd"), 1), [b"true"]),
            ((_M, _F, 1), [1]),
            ((Atom("erpc"), Atom("execute_call"), 3), [_M, _F, [1]]),
            (_CALL, 7),
        ):
            assert side.spawn(args, mfa).result is Atom("notsup")
        assert side.spawn([_TAG, _M, _F], _CALL).result is Atom("badarg")
        assert side.called == []


async def test_a_linked_caller_gets_the_exit_and_its_end_ends_the_call() -> None:
    async with _side() as side:
        reply = side.spawn([_TAG, _M, Atom("wait"), []], options=[_LINK, (_MONITOR, [])])
        assert reply.flags == 3
        assert isinstance(reply.result, Pid)
        side.processes.receive(side.peer, Exit(source=_THEIRS, to=reply.result, reason=Atom("stone")), None)
        assert side.peer.take().reason is Atom("stone")
        await side.settled()
        assert side.peer.sent == []


async def test_an_exit_signal_ends_a_call_and_normal_does_not() -> None:
    async with _side() as side:
        pid = side.spawn([_TAG, _M, Atom("wait"), []]).result
        assert isinstance(pid, Pid)
        side.processes.deliver(pid, b"nobody reads this")
        side.processes.receive(side.peer, Exit2(source=_THEIRS, to=pid, reason=Atom("normal")), None)
        assert side.peer.sent == []
        side.processes.receive(side.peer, Exit2(source=_THEIRS, to=pid, reason=Atom("kill")), None)
        assert side.peer.take().reason is Atom("killed")
        await side.settled()
        assert side.peer.sent == []


async def test_a_caller_that_gave_up_hears_nothing() -> None:
    async with _side() as side:
        pid = side.spawn([_TAG, _M, Atom("wait"), []]).result
        side.processes.receive(side.peer, DemonitorP(source=_THEIRS, to=pid, reference=_REF), None)
        side.go.set()
        await side.settled()
        assert side.peer.sent == []


@pytest.mark.parametrize("kind", ["call", "block_call"])
async def test_rex_answers_by_alias_or_by_pid(kind: str) -> None:
    async with _side() as side:
        alias = ImproperList([Atom("alias")], _REF)
        for tag in (_REF, alias):
            side.rex((Atom("$gen_call"), (_THEIRS, tag), (Atom(kind), _M, _F, [5], _THEIRS)))
        await side.settled()
        assert side.peer.sent == [
            (Send(to=_THEIRS), (_REF, 5)),
            (AliasSend(source=side.processes.caller, alias=_REF), (alias, 5)),
        ]


async def test_a_ping_is_answered_by_alias_or_by_pid() -> None:
    async with _side() as side:
        question = (Atom("is_auth"), _PEER)
        alias = ImproperList([Atom("alias")], _REF)
        for tag in (_REF, alias):
            asked = (Atom("$gen_call"), (_THEIRS, tag), question)
            side.processes.receive(side.peer, _reg("net_kernel"), asked)
        assert side.peer.sent == [
            (Send(to=_THEIRS), (_REF, Atom("yes"))),
            (AliasSend(source=side.processes.caller, alias=_REF), (alias, Atom("yes"))),
        ]
        for other in ((Atom("$gen_call"), (_THEIRS, _REF), (Atom("stop"), _PEER)), Atom("is_auth"), ()):
            side.processes.receive(side.peer, _reg("net_kernel"), other)
        assert side.processes.undelivered == 3


async def test_a_caller_that_does_not_read_is_waited_for_and_others_are_not() -> None:
    async with _side() as side:
        side.peer.hold()
        side.spawn([_TAG, _M, _F, [1]])
        assert (side.called, len(side.incoming)) == ([1], 1)
        await asyncio.sleep(0)
        assert side.peer.sent == []
        side.peer.hold(False)
        await side.settled()
        assert side.peer.take().reason == (_TAG, Atom("return"), 1)


async def test_a_plain_function_is_over_when_it_was_asked_for() -> None:
    async with _side(maximum=1) as side:
        for number in range(100):
            assert isinstance(side.spawn([_TAG, _M, _F, [number]]).result, Pid)
            assert side.peer.take().reason[2] == number


async def test_closing_cancels_what_runs() -> None:
    side = _Side()
    side.spawn([_TAG, _M, Atom("wait"), []])
    side.rex((Atom("$gen_call"), (_THEIRS, _REF), (Atom("call"), _M, Atom("wait"), [], Atom("user"))))
    side.processes.close()
    await side.incoming.close()
    assert len(side.incoming) == 0
    assert [type(message) for message in side.peer.sent] == [MonitorPExit]


_terms = st.recursive(
    st.integers()
    | st.binary(max_size=3)
    | st.sampled_from(
        [
            Atom(text)
            for text in ("$gen_call", "$gen_cast", "call", "cast", "m", "f", "erpc", "user", "is_auth")
        ]
        + [_THEIRS, _REF]
    ),
    lambda inner: st.lists(inner, max_size=5) | st.lists(inner, max_size=5).map(tuple),
    max_leaves=12,
)


@given(_terms, st.sampled_from([_CALL, _CAST, (1, 2, 3)]), _terms)
def test_no_request_brings_the_node_down(payload: Any, mfa: tuple[Any, ...], options: Any) -> None:
    async def play() -> None:
        async with _side() as side:
            for name in ("rex", "net_kernel"):
                side.processes.receive(side.peer, _reg(name), payload)
                request = (Atom("$gen_call"), (_THEIRS, _REF), payload)
                side.processes.receive(side.peer, _reg(name), request)
            spawn = SpawnRequest(request=_REF, source=_THEIRS, group_leader=_THEIRS, mfa=mfa, options=options)
            side.incoming.spawn(side.peer, spawn, payload)
            await side.settled()
            assert all(value != b"never" for value in side.called)

    asyncio.run(play())
