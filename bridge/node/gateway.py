"""One live connection to some member of a cluster, and the way to another one when it dies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self

from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    stop_any,
    wait_random_exponential,
)

from bridge.errors import (
    BridgeError,
    ClosedError,
    ConfigurationError,
    ConnectionLostError,
    DeadlineError,
    HandshakeError,
    OutcomeUnknownError,
)
from bridge.node.config import GatewayConfig
from bridge.node.node import HiddenNode

_log = logging.getLogger("bridge.node")

_UNREACHABLE: Final = (HandshakeError, ConnectionLostError, DeadlineError)


class Gateway:
    """Calls that reach whichever member is alive.

    The first call connects. When the member's connection ends, another one is dialled at once, before
    anybody asks for it, and the ``on_change`` callbacks hear of it.

    Args:
        node: this side; it stays open when the gateway closes.
        members: node names, tried in turn.
        config: see ``GatewayConfig``.

    Raises:
        ConfigurationError: no members.
    """

    def __init__(self, node: HiddenNode, members: Sequence[str], config: GatewayConfig | None = None) -> None:
        if not members:
            raise ConfigurationError("a gateway needs at least one member")
        self.node = node
        self.members = tuple(dict.fromkeys(members))
        self._config = config or GatewayConfig()
        self._current: str | None = None
        self._next = 0
        self._refused: Exception | None = None
        self._lock = asyncio.Lock()
        self._callbacks: list[Callable[[str | None], None]] = []
        self._reconnecting: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._closed = False
        self._forget = node.on_node_down(self._node_down)

    @property
    def current(self) -> str | None:
        """The member connected now, or ``None``."""
        return self._current

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def on_change(self, callback: Callable[[str | None], None]) -> None:
        """Call ``callback(member)`` when another member is connected, and with ``None`` when none is."""
        self._callbacks.append(callback)

    def off_change(self, callback: Callable[[str | None], None]) -> None:
        """Undo ``on_change``; harmless twice."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    async def close(self) -> None:
        """Stop failing over; the node keeps its connections."""
        self._closed = True
        self._forget()
        for task in (self._reconnecting, self._probing):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task])

    async def connect(self, *, timeout: float, rounds: int | None = None) -> str:  # the contract's name
        """The connected member, dialling until one answers.

        Args:
            timeout: seconds for all of it.
            rounds: how often every member is tried; ``None``: until the time is over, since on the wire a
                wrong cookie looks like a member that dies. One round tells it at once.

        Raises:
            HandshakeError: none could be reached; the last one's reason.
            DeadlineError: none answered in time.
            ClosedError: the gateway was closed.
        """
        if self._current is not None:
            return self._current
        late = stop_after_delay(timeout)
        try:
            async with asyncio.timeout(timeout), self._lock:
                retrying = AsyncRetrying(
                    stop=late if rounds is None else stop_any(late, stop_after_attempt(rounds)),
                    wait=wait_random_exponential(
                        multiplier=self._config.first_retry_delay, max=self._config.max_retry_delay
                    ),
                    retry=retry_if_exception_type(_UNREACHABLE),
                    reraise=True,
                )
                return await retrying(self._round)
        except TimeoutError as error:
            if isinstance(error, DeadlineError):
                raise
            if isinstance(self._refused, HandshakeError):
                # What a member said helps more than that none said yes.
                raise self._refused from None
            raise DeadlineError(f"no member of {', '.join(self.members)} answered in {timeout:g} s") from None

    async def call(
        self,
        module: str,
        function: str,
        args: Sequence[Any],
        *,
        timeout: float,  # the contract's name
        idempotent: bool,
    ) -> Any:
        """Call a function on the connected member.

        Args:
            module: name of the module.
            function: name of the function.
            args: terms.
            timeout: seconds for all of it, failing over included.
            idempotent: whether running it twice does no harm; only then is it repeated on another member.

        Raises:
            RemoteError: the function raised.
            OutcomeUnknownError: not idempotent, sent, and the answer was lost.
            DeadlineError: no answer in time (idempotent), or no member was reached (nothing was sent).
            HandshakeError: no member was reached; nothing was sent.
        """
        deadline = monotonic() + timeout
        left = timeout
        while True:
            member = self._current
            if member is None:
                member = await self.connect(timeout=max(0.0, left))
                left = deadline - monotonic()
            if left <= 0:
                raise DeadlineError(f"no time left to call {module}:{function}")
            try:
                return await self.node.call(member, module, function, args, timeout=left)
            except (ConnectionLostError, DeadlineError) as error:
                if not idempotent:
                    raise OutcomeUnknownError(
                        f"{module}:{function} was sent to {member} and its answer was lost; "
                        f"it may have run ({error})"
                    ) from error
                if isinstance(error, DeadlineError):
                    raise
                self._lost(member)
            except HandshakeError:
                self._lost(member)
            left = deadline - monotonic()

    def suspect(self, member: str) -> None:
        """Leave a member that answers, but not usefully: one that is cut off from its cluster, say.

        The next member is dialled at once. Nothing happens where ``member`` is not the current one, or is
        the only one.
        """
        if member == self._current and len(self.members) > 1:
            _log.warning("gateway: %s is left for another member", member)
            self._node_down(member)

    async def _round(self) -> str:
        """Try every member once, beginning with the one after the last."""
        if self._closed:
            raise ClosedError("the gateway was closed")
        if self._current is not None:
            return self._current
        last: Exception | None = None
        for step in range(len(self.members)):
            place = (self._next + step) % len(self.members)
            member = self.members[place]
            try:
                await self.node.connect(member, timeout=self._config.connect_timeout)
            except _UNREACHABLE as error:
                _log.info("gateway: %s is not reachable: %s", member, error)
                last = self._refused = error
                continue
            self._next = (place + 1) % len(self.members)
            self._current = member
            self._refused = None
            if self._probing is None or self._probing.done():
                self._probing = asyncio.get_running_loop().create_task(self._probe())
            self._announce()
            return member
        assert last is not None
        raise last

    def _lost(self, member: str) -> None:
        if self._current == member:
            self._current = None
            self._announce()

    def _node_down(self, node: str) -> None:
        if node != self._current or self._closed:
            return
        self._lost(node)
        self._reconnect_soon()

    def _reconnect_soon(self) -> None:
        if self._reconnecting is None or self._reconnecting.done():
            self._reconnecting = asyncio.get_running_loop().create_task(self._reconnect())

    async def _probe(self) -> None:
        config = self._config
        while not self._closed:
            await asyncio.sleep(config.probe_interval)
            member = self._current
            if member is None:
                # An earlier attempt may have given up, and whoever only listens makes no call to start one.
                self._reconnect_soon()
                continue
            asked = asyncio.get_running_loop().time()
            try:
                await self.node.call(member, "erlang", "node", [], timeout=config.probe_timeout)
            except DeadlineError:
                # After this process itself stood still, or while a large answer comes in, the timer fires
                # before the bytes that wait in the socket are read: look at those too.
                await asyncio.sleep(config.probe_timeout / 10)
                if (self.node.heard_from(member) or 0.0) >= asked:
                    continue
                _log.warning("gateway: %s does not answer", member)
                # Calls that wait for it fail now and go elsewhere; and a new round finds it unreachable,
                # where the connection that stands would look as good as ever.
                await self.node.disconnect(member, timeout=0.0)
            except (ConnectionLostError, HandshakeError):
                self._node_down(member)
            except ClosedError:
                return
            except BridgeError:
                # It refused, so it lives; or too many calls wait already, which says nothing about it.
                continue

    async def _reconnect(self) -> None:
        try:
            await self.connect(timeout=10 * self._config.connect_timeout)
        except ClosedError:
            # The node or the gateway; neither opens again.
            if self._probing is not None:
                self._probing.cancel()
        except _UNREACHABLE as error:
            # The next call tries again, and so does the next probe.
            _log.warning("gateway: no member is reachable: %s", error)

    def _announce(self) -> None:
        for callback in list(self._callbacks):
            try:
                callback(self._current)
            except Exception:
                _log.exception("an on_change callback failed")
