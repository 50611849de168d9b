"""A Khepri store through the homeservers of its cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

from bridge.errors import ConfigurationError
from bridge.etf import Atom
from bridge.khepri.adv import AdvCalls
from bridge.khepri.caller import Caller
from bridge.khepri.calls import API, StoreCalls
from bridge.khepri.cluster import Cluster
from bridge.khepri.config import KhepriConfig
from bridge.khepri.feed import Cursor, Feed
from bridge.khepri.health import MemberHealth
from bridge.khepri.node_caller import NodeCaller
from bridge.khepri.operations import OperationId
from bridge.khepri.paths import Pattern, wire_path
from bridge.khepri.procedures import Procedures
from bridge.khepri.projections import Projections
from bridge.khepri.reads import Reads
from bridge.khepri.transfer import Transfer
from bridge.khepri.writes import Writes
from bridge.node import Gateway, HiddenNode


class Khepri(Reads, Writes, Transfer):
    """Client of one store.

    Reads go to the member that the caller is connected to and survive its death. A plain ``put`` or
    ``delete`` whose answer is lost raises ``OutcomeUnknownError``; every other write carries an operation id
    and is repeated, through another member where need be, until it is known to have been applied once.

    Data are terms as ``bridge.etf`` maps them, and nothing is converted: a binary comes back as ``bytes``.

    Args:
        caller: what calls go through; it stays open when the client closes, so several may share it.
        store: the store's id.
        client: stable name for operation ids; by default the caller's name and a number.
        config: deadlines.

    Attributes:
        adv: reads and writes that tell properties of nodes.
        procedures: functions that run inside the store.
        projections: tables of part of the tree.
        cluster: members, leader, versions.
    """

    def __init__(
        self,
        caller: Caller,
        *,
        store: str = "homeserver",
        client: str | None = None,
        config: KhepriConfig | None = None,
    ) -> None:
        self.caller = caller
        self.store = Atom(store)
        self.config = config or KhepriConfig()
        self._owns_caller = False
        self._calls = StoreCalls(caller, self.store, client, self.config)
        self.adv = AdvCalls(self._calls)
        self.procedures = Procedures(self._calls)
        self.projections = Projections(self._calls)
        self.cluster = Cluster(self._calls)

    @classmethod
    def connect(
        cls,
        node: HiddenNode,
        members: str | Sequence[str] | Gateway,
        *,
        store: str = "homeserver",
        client: str | None = None,
        config: KhepriConfig | None = None,
    ) -> Self:
        """A client that calls from a hidden node; the first call dials.

        Args:
            node: stays open when the client closes.
            members: one or more node names of the cluster, or a ``Gateway`` that several clients share.
            store: as in the constructor, like the rest.
            client: stable name for operation ids; by default the node's name and a number.
            config: deadlines.
        """
        if isinstance(members, Gateway):
            return cls(NodeCaller(members), store=store, client=client, config=config)
        gateway = Gateway(node, [members] if isinstance(members, str) else members)
        made = cls(NodeCaller(gateway), store=store, client=client, config=config)
        made._owns_caller = True
        return made

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the client; a shared caller, and the node in any case, stay."""
        if self._owns_caller:
            await self.caller.close()

    async def health(self, *, timeout: float | None = None) -> MemberHealth:
        """What the bridge's application says of the store (``docs/protocol.md`` §1, ``kb_api``)."""
        return MemberHealth.from_term(await self._calls.ask(API, "health", [self.store], timeout))

    async def request(
        self,
        function: str,
        argument: Any,
        *,
        operation_id: OperationId | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Call a function of ``docs/protocol.md`` §7 with an operation id until its outcome is known.

        Args:
            function: of ``kb_api``.
            argument: the request, a map.
            operation_id: of an earlier try, or ``None`` for a new one.
            timeout: seconds for all attempts together.

        Raises:
            KhepriError: refused.
            OutcomeUnknownError: the deadline passed first.
        """
        return await self._calls.repeat(
            API, function, argument, operation_id=operation_id, timeout=timeout, options=False
        )

    @asynccontextmanager
    async def watch(
        self, *patterns: Pattern, since: Cursor | str | None = None, window: int = 1_000
    ) -> AsyncIterator[Feed]:
        """Changes of data; iterate over the feed inside the ``async with``.

        It begins with a ``Snapshot``, unless ``since`` can be gone on from. The guarantee:

        - While attached to one member: every applied change, in the order in which that member applied them,
          at least once. The connection to it may break and come back; what was missed follows, exactly.
        - When that member dies or restarts, installs a snapshot of its own, or this side falls more than
          20,000 changes behind, the feed goes on, at another member where need be, with a ``Snapshot`` that
          says ``gap``: intermediate values have collapsed, deletions show as absence, and a node deleted and
          made again with equal data cannot be told from one that stayed.
        - Never exactly once, and no order between what two members tell. Writes of equal data are told or
          not, as the store applies them.
        - A feed that is not iterated holds up nobody: a member sends ``window`` changes ahead and keeps the
          rest. While no member answers, iterating waits.

        Args:
            patterns: a path by names alone is watched with all below it; a pattern with wildcards, or
                conditions on names, is the nodes it matches. Up to 64.
            since: ``feed.cursor`` of an earlier watch of the same patterns, or its text.
            window: changes that may be on their way unacknowledged, 1 to 10,000.

        Raises:
            ConfigurationError: no pattern at all, or one that is none; a text that is no cursor.
            InvalidRequestError: a pattern that is none, or has conditions on more than names (on iterating).
        """
        if not patterns:
            raise ConfigurationError("nothing to watch: name a pattern, '/' for all of the store")
        cursor = Cursor.parse(since) if isinstance(since, str) else since
        if cursor is not None and not isinstance(cursor, Cursor):
            raise ConfigurationError(
                f"since is feed.cursor of an earlier watch, or its text, not {cursor!r:.100}"
            )
        wire = [wire_path(pattern) for pattern in patterns]
        feed = Feed(self.caller, self.store, wire, since=cursor, window=window)
        try:
            yield feed
        finally:
            await feed.close()
