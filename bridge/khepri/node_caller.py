"""Calls through a hidden node and its gateway."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from bridge.node import Gateway, Mailbox


class NodeCaller:
    """A ``Caller`` over a gateway, which several clients may share.

    Args:
        gateway: ``close`` closes it; its node stays.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    @property
    def name(self) -> str:
        """The node's name."""
        return self.gateway.node.name

    @property
    def current(self) -> str | None:
        """The member connected now, or ``None``."""
        return self.gateway.current

    def call(
        self, module: str, function: str, args: Sequence[Any], *, timeout: float, idempotent: bool
    ) -> Coroutine[Any, Any, Any]:
        """As ``Gateway.call``."""
        return self.gateway.call(module, function, args, timeout=timeout, idempotent=idempotent)

    async def cast(self, member: str, module: str, function: str, args: Sequence[Any]) -> None:
        """As ``HiddenNode.cast``."""
        await self.gateway.node.cast(member, module, function, args)

    def mailbox(self) -> Mailbox:
        """As ``HiddenNode.mailbox``."""
        return self.gateway.node.mailbox()

    def on_change(self, callback: Callable[[str | None], None]) -> None:
        """As ``Gateway.on_change``."""
        self.gateway.on_change(callback)

    def off_change(self, callback: Callable[[str | None], None]) -> None:
        """As ``Gateway.off_change``."""
        self.gateway.off_change(callback)

    def suspect(self, member: str) -> None:
        """As ``Gateway.suspect``."""
        self.gateway.suspect(member)

    async def close(self) -> None:
        """Close the gateway; the node stays."""
        await self.gateway.close()
