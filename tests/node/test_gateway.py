"""Failing over between members: in memory where order matters, with BEAMs that are killed and stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

import pytest

from bridge.errors import (
    ClosedError,
    ConfigurationError,
    DeadlineError,
    HandshakeError,
    OutcomeUnknownError,
    RemoteError,
)
from bridge.etf import Atom
from bridge.node import Gateway, GatewayConfig, HiddenNode
from tests.support.otp import COOKIE, OtpNode, PortMapper, otp_node
from tests.support.port_mapper import LoopPortMapper

_real = pytest.mark.erlang
_QUICK = GatewayConfig(connect_timeout=0.2, first_retry_delay=0.001, max_retry_delay=0.005)


class _Changes:
    """The members that a gateway announced."""

    def __init__(self, gateway: Gateway) -> None:
        self.members: list[str | None] = []
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()
        gateway.on_change(self._note)

    def _note(self, member: str | None) -> None:
        self.members.append(member)
        self._queue.put_nowait(member)

    async def until(self, wanted: Callable[[str | None], bool]) -> None:
        async with asyncio.timeout(10.0):
            while not wanted(await self._queue.get()):
                pass


def _hidden(names: LoopPortMapper, alive: str, cookie: str = COOKIE) -> HiddenNode:
    return HiddenNode(f"{alive}@127.0.0.1", cookie=cookie, config=names.config())


async def test_one_round_tells_a_refusal_at_once(names: LoopPortMapper) -> None:
    async with (
        _hidden(names, "me", cookie="other") as me,
        _hidden(names, "m1"),
        Gateway(me, ["gone@127.0.0.1", "m1@127.0.0.1"]) as gateway,
    ):
        with pytest.raises(HandshakeError, match="cookie"):
            # Longer than the test may take.
            await gateway.connect(timeout=3600.0, rounds=1)


async def test_members_are_tried_in_turn_and_the_next_one_follows_the_last(names: LoopPortMapper) -> None:
    async with (
        _hidden(names, "me") as me,
        _hidden(names, "m1") as m1,
        _hidden(names, "m2") as m2,
        Gateway(me, ["gone@127.0.0.1", m1.name, m2.name], _QUICK) as gateway,
    ):
        changes = _Changes(gateway)
        assert gateway.current is None
        assert await gateway.connect(timeout=5.0) == m1.name
        assert await gateway.connect(timeout=5.0) == m1.name
        await m1.close()
        await changes.until(lambda member: member == m2.name)
        assert changes.members == [m1.name, None, m2.name]
        assert gateway.current == m2.name


async def test_a_suspected_member_is_left_without_being_asked(names: LoopPortMapper) -> None:
    async with (
        _hidden(names, "me") as me,
        _hidden(names, "m1") as m1,
        _hidden(names, "m2") as m2,
        Gateway(me, [m1.name, m2.name], _QUICK) as gateway,
    ):
        await gateway.connect(timeout=5.0)
        changes = _Changes(gateway)
        gateway.suspect(m2.name)  # not the current one
        assert changes.members == []
        gateway.suspect(m1.name)
        await changes.until(lambda member: member == m2.name)
        # It is another member that is used now; the connection to the first stands for others.
        assert set(me.connected) == {m1.name, m2.name}


async def test_the_only_member_is_never_suspected(names: LoopPortMapper) -> None:
    async with (
        _hidden(names, "me") as me,
        _hidden(names, "m1") as m1,
        Gateway(me, [m1.name, m1.name], _QUICK) as gateway,
    ):
        assert gateway.members == (m1.name,)
        await gateway.connect(timeout=5.0)
        gateway.suspect(m1.name)
        assert gateway.current == m1.name


async def test_no_reachable_member_tells_the_last_reason(names: LoopPortMapper) -> None:
    async with _hidden(names, "me") as me, Gateway(me, ["gone@127.0.0.1"], _QUICK) as gateway:
        with pytest.raises((HandshakeError, DeadlineError), match="gone@127"):
            await gateway.connect(timeout=0.1)
        with pytest.raises((HandshakeError, DeadlineError)):
            await gateway.call("m", "f", [], timeout=0.05, idempotent=False)


async def test_a_member_that_comes_back_late_is_found_without_a_call(
    names: LoopPortMapper, caplog: pytest.LogCaptureFixture
) -> None:
    config = GatewayConfig(
        connect_timeout=0.01,
        first_retry_delay=0.001,
        max_retry_delay=0.005,
        probe_interval=0.01,
        probe_timeout=60,
    )
    async with _hidden(names, "me") as me, Gateway(me, ["m1@127.0.0.1"], config) as gateway:
        async with _hidden(names, "m1"):
            await gateway.connect(timeout=5.0)
        changes = _Changes(gateway)
        while "no member is reachable" not in caplog.text:
            await asyncio.sleep(0.01)
        async with _hidden(names, "m1") as again:
            await changes.until(lambda member: member == again.name)


async def test_a_wrong_cookie_is_named(names: LoopPortMapper) -> None:
    async with (
        _hidden(names, "m1") as m1,
        _hidden(names, "me", cookie="wrong") as me,
        Gateway(me, [m1.name], _QUICK) as gateway,
    ):
        with pytest.raises(HandshakeError, match="cookie"):
            await gateway.connect(timeout=0.1)


async def test_a_callback_that_fails_stops_nobody(
    names: LoopPortMapper, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        _hidden(names, "me") as me,
        _hidden(names, "m1") as m1,
        Gateway(me, [m1.name], _QUICK) as gateway,
    ):

        def fail(_: str | None) -> None:
            raise RuntimeError("a caller's own mistake")

        gateway.on_change(fail)
        changes = _Changes(gateway)
        await gateway.connect(timeout=5.0)
        assert changes.members == [m1.name]
        assert "callback failed" in caplog.text
        gateway.off_change(fail)
        gateway.off_change(fail)


async def test_a_call_goes_on_to_the_next_member_when_the_current_one_cannot_be_reached(
    names: LoopPortMapper,
) -> None:
    """Nothing was sent, so even a call that must not run twice may go elsewhere."""

    class Scripted(HiddenNode):
        asked: ClassVar[list[str]] = []

        async def call(self, node: str, module: str, *_: object, **__: object) -> object:
            if module == "erlang":
                return None
            self.asked.append(node)
            if len(self.asked) == 1:
                raise HandshakeError("gone")
            return b"answer"

    async with (
        Scripted("me@127.0.0.1", cookie=COOKIE, config=names.config()) as me,
        _hidden(names, "m1") as m1,
        _hidden(names, "m2") as m2,
        Gateway(me, [m1.name, m2.name], _QUICK) as gateway,
    ):
        assert await gateway.call("m", "f", [], timeout=5.0, idempotent=False) == b"answer"
        assert me.asked == [m1.name, m2.name]


async def test_no_member_in_time_is_told_as_a_deadline(names: LoopPortMapper) -> None:
    names.silent = True
    me = HiddenNode("me@127.0.0.1", cookie=COOKIE, config=names.config(register=False))
    async with me, Gateway(me, ["m1@127.0.0.1", "m2@127.0.0.1"]) as gateway:
        with pytest.raises(DeadlineError, match=r"no member of m1@127\.0\.0\.1, m2@127\.0\.0\.1"):
            await gateway.connect(timeout=0.05)


async def test_a_closed_gateway_says_so_and_leaves_the_node_open(names: LoopPortMapper) -> None:
    async with _hidden(names, "me") as me, _hidden(names, "m1") as m1:
        async with Gateway(me, [m1.name], _QUICK) as gateway:
            pass
        with pytest.raises(ClosedError):
            await gateway.connect(timeout=1.0)
        await me.connect(m1.name)


async def test_a_gateway_without_members_is_refused(names: LoopPortMapper) -> None:
    async with _hidden(names, "me") as me:
        with pytest.raises(ConfigurationError, match="at least one member"):
            Gateway(me, [])


@_real
@pytest.mark.slow
async def test_a_killed_member_is_replaced_and_repeatable_calls_with_it(
    node: HiddenNode, mapper: PortMapper, otp: OtpNode
) -> None:
    async with otp_node(mapper, "hs2") as other, Gateway(node, [otp.name, other.name]) as gateway:
        changes = _Changes(gateway)
        assert await gateway.call("erlang", "node", [], timeout=5.0, idempotent=True) == Atom(otp.name)
        repeated = asyncio.create_task(gateway.call("timer", "sleep", [300], timeout=10.0, idempotent=True))
        once = asyncio.create_task(gateway.call("timer", "sleep", [60_000], timeout=10.0, idempotent=False))
        await gateway.call("erlang", "node", [], timeout=5.0, idempotent=True)
        await otp.kill()
        await changes.until(lambda member: member == other.name)
        assert await repeated is Atom("ok")
        with pytest.raises(OutcomeUnknownError, match=r"timer:sleep was sent to hs1@.* may have run"):
            await once
        assert changes.members == [otp.name, None, other.name]


@_real
@pytest.mark.slow
async def test_a_hung_member_is_left_and_its_calls_go_elsewhere(
    node: HiddenNode, mapper: PortMapper, otp: OtpNode
) -> None:
    """A stopped process keeps its sockets open: only its silence tells."""
    async with otp_node(mapper, "hs2") as other, Gateway(node, [otp.name, other.name]) as gateway:
        changes = _Changes(gateway)
        await gateway.connect(timeout=5.0)
        otp.pause()
        repeated = asyncio.create_task(gateway.call("erlang", "node", [], timeout=30.0, idempotent=True))
        once = asyncio.create_task(gateway.call("erlang", "node", [], timeout=30.0, idempotent=False))
        await changes.until(lambda member: member == other.name)
        assert await repeated == Atom(other.name)
        with pytest.raises(OutcomeUnknownError):
            await once
        assert node.connected == (other.name,)


@_real
@pytest.mark.slow
async def test_a_member_that_hung_for_a_while_is_found_again(node: HiddenNode, otp: OtpNode) -> None:
    async with Gateway(node, [otp.name], GatewayConfig(connect_timeout=0.5)) as gateway:
        changes = _Changes(gateway)
        await gateway.connect(timeout=5.0)
        otp.pause()
        await changes.until(lambda member: member is None)
        otp.resume()
        await changes.until(lambda member: member == otp.name)
        assert await gateway.call("erlang", "node", [], timeout=5.0, idempotent=True) == Atom(otp.name)


class _Deaf(HiddenNode):
    """Its calls are never answered; bytes of the peer come as long as ``heard``."""

    heard = True

    async def call(self, *_: object, **__: object) -> object:
        self.asked.put_nowait(None)
        raise DeadlineError("no answer")

    def heard_from(self, node: str) -> float | None:
        del node
        return asyncio.get_running_loop().time() if self.heard else 0.0

    def __init__(self, names: LoopPortMapper) -> None:
        super().__init__("me@127.0.0.1", cookie=COOKIE, config=names.config())
        self.asked: asyncio.Queue[None] = asyncio.Queue()


async def test_a_member_whose_answer_is_late_but_whose_bytes_come_is_kept(names: LoopPortMapper) -> None:
    """Its answer waits behind a large one, or this process itself stood still."""
    config = GatewayConfig(probe_interval=0.001, probe_timeout=0.001)
    async with (
        _Deaf(names) as me,
        _hidden(names, "m1") as m1,
        _hidden(names, "m2") as m2,
        Gateway(me, [m1.name, m2.name], config) as gateway,
    ):
        changes = _Changes(gateway)
        await gateway.connect(timeout=5.0)
        for _ in range(5):
            await me.asked.get()
        assert changes.members == [m1.name]
        me.heard = False
        await changes.until(lambda member: member == m2.name)
        assert changes.members[:3] == [m1.name, None, m2.name]


@_real
@pytest.mark.slow
async def test_errors_of_the_function_and_deadlines_are_passed_on(node: HiddenNode, otp: OtpNode) -> None:
    async with Gateway(node, [otp.name]) as gateway:
        with pytest.raises(RemoteError, match="undef"):
            await gateway.call("no_module", "f", [], timeout=5.0, idempotent=True)
        with pytest.raises(DeadlineError) as caught:
            await gateway.call("timer", "sleep", [60_000], timeout=0.1, idempotent=True)
        assert not isinstance(caught.value, OutcomeUnknownError)
        with pytest.raises(OutcomeUnknownError):
            await gateway.call("timer", "sleep", [60_000], timeout=0.1, idempotent=False)
        assert gateway.current == otp.name


async def test_nothing_is_tried_any_more_once_the_node_is_closed(
    names: LoopPortMapper, caplog: pytest.LogCaptureFixture
) -> None:
    config = GatewayConfig(probe_interval=0.001)
    async with (
        _hidden(names, "m1") as m1,
        _hidden(names, "me") as me,
        Gateway(me, [m1.name], config) as gateway,
    ):
        await gateway.connect(timeout=5.0)
        before = asyncio.all_tasks()
        await me.close()
        async with asyncio.timeout(10.0):
            while any("Gateway" in repr(task) for task in asyncio.all_tasks()):
                await asyncio.sleep(0.001)
        assert any("Gateway" in repr(task) for task in before)
        assert "no member is reachable" not in caplog.text
