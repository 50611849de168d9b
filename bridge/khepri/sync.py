"""Khepri for programs without asyncio: the same names, and each call waits for its answer.

::

    from bridge.khepri.sync import connect

    with connect(["hs1@127.0.0.1", "hs2@127.0.0.1"], name="shop@127.0.0.1") as store:
        store.put("/:stock/wood", 3)
        for change in store.watch("/:stock"):
            print(change)

Each client has an event loop in a thread of its own; any number of threads may call it at once. Every call
has its own deadline there, as in ``bridge.khepri.Khepri``. Ctrl-C during a call cancels it, and closing the
client ends calls that wait with ``ClosedError``; a write among them may have been applied. A client does not
survive a fork: connect in the child. Inside a running event loop it refuses to be used.

Methods are not written out a second time, nor generated: each is one line that wraps the asynchronous one.
``ParamSpec`` gives the type checker its whole signature, type variables included, and ``functools.wraps``
gives ``help()`` its text. A generated file would have to be kept up to date and would tell no more; a proxy
that looks names up when they are asked for would have no types. A test holds that no method is missing.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from bridge.errors import BridgeError, ClosedError, DeadlineError, InvalidStateError
from bridge.khepri.adv import AdvCalls
from bridge.khepri.client import Khepri
from bridge.khepri.cluster import Cluster
from bridge.khepri.config import KhepriConfig
from bridge.khepri.feed import Change, Cursor, Feed
from bridge.khepri.loop_thread import LoopThread, wait_for
from bridge.khepri.paths import Pattern
from bridge.khepri.procedures import Procedures
from bridge.khepri.projections import Projections
from bridge.node import Gateway, HiddenNode, NodeConfig

__all__ = ["BlockingKhepri", "Watch", "blocking", "connect"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def connect(
    members: str | Sequence[str],
    *,
    name: str,
    cookie: str | None = None,
    store: str = "homeserver",
    client: str | None = None,
    config: KhepriConfig | None = None,
    node: NodeConfig | None = None,
) -> BlockingKhepri:
    """A client of a cluster, connected by a hidden node of its own; close it, or use it by ``with``.

    Args:
        members: one or more node names of the cluster.
        name: of the hidden node, ``name@host``. Keep it from run to run, and let no two programs have the
            same at once: each new one is an atom in every member for ever.
        cookie: of the cluster; ``None``: that of ``~/.erlang.cookie``.
        store: the store's id.
        client: as for ``Khepri``.
        config: deadlines.
        node: how it finds the members, TLS among it; by default by the port mapper of each member's host,
            and without registering there: nobody calls it.

    Raises:
        HandshakeError, ConnectionLostError, DeadlineError: each member was tried once, and none was reached.
        ConfigurationError: no node name, or no cookie.
        InvalidStateError: called inside a running event loop.
    """
    deadlines = config or KhepriConfig()

    @contextlib.asynccontextmanager
    async def opening() -> AsyncIterator[Khepri]:
        names = [members] if isinstance(members, str) else members
        async with (
            HiddenNode(name, cookie=cookie, config=node or NodeConfig(register=False)) as hidden,
            Gateway(hidden, names) as gateway,
            Khepri.connect(hidden, gateway, store=store, client=client, config=deadlines) as made,
        ):
            await gateway.connect(timeout=deadlines.timeout, rounds=1)
            yield made

    return blocking(opening)


def blocking(opening: Callable[[], AbstractAsyncContextManager[Khepri]]) -> BlockingKhepri:
    """A blocking client of whatever gives an asynchronous one.

    A store of the program's own, say: ``blocking(embedded_store)`` (``bridge.cluster.embedded``).

    Args:
        opening: gives the context manager of a ``Khepri``; entered and left in the client's own event loop.

    Raises:
        InvalidStateError: called inside a running event loop.
        BaseException: whatever entering raises.
    """
    return BlockingKhepri(LoopThread(opening))


class _Family:
    """Methods of one asynchronous object.

    Args:
        thread: where its loop runs.
        target: the object; used in the loop only.
    """

    def __init__(self, thread: LoopThread[Khepri], target: Any) -> None:
        self._thread = thread
        self._target = target


def _waits(
    function: Callable[Concatenate[Any, Arguments], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate[Any, Arguments], Result]:
    """The method of a ``_Family`` that runs an asynchronous one in the loop."""

    @functools.wraps(function)
    def call(self: Any, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Any:
        return self._thread.run(function, self._target, *args, **kwargs)

    return call


def _in_loop(
    function: Callable[Concatenate[Any, Arguments], Result],
) -> Callable[Concatenate[Any, Arguments], Result]:
    """The same for a plain method that shares its object's state with asynchronous ones."""

    async def called(target: Any, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return function(target, *args, **kwargs)

    @functools.wraps(function)
    def call(self: Any, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Any:
        return self._thread.run(called, self._target, *args, **kwargs)

    return call


def _combines(
    function: Callable[Concatenate[Any, Arguments], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate[Any, Arguments], Result]:
    """The same for a method that fetches by ``adv.get_many`` and then calls a function of the caller's.

    That function is called here, in the caller's thread, and may use the client again. So the coroutine runs
    here too, to its end in one step, since all that it awaits is ``_Here``.
    """

    @functools.wraps(function)
    def call(self: BlockingKhepri, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Any:
        try:
            function(_Here(self), *args, **kwargs).send(None)
        except StopIteration as done:
            return done.value
        raise AssertionError(f"{function.__qualname__} awaits more than adv.get_many")

    return call


class _Here:
    """What such a method sees as its object: its coroutines block instead of suspending."""

    def __init__(self, store: BlockingKhepri) -> None:
        self.adv = self
        self._store = store

    async def get_many(self, pattern: Pattern, **options: Any) -> Any:
        return self._store.adv.get_many(pattern, **options)


class BlockingAdv(_Family):
    """``store.adv``: every verb gives properties by native path; see ``bridge.khepri.adv.AdvCalls``."""

    get = _waits(AdvCalls.get)
    get_many = _waits(AdvCalls.get_many)
    put = _waits(AdvCalls.put)
    put_many = _waits(AdvCalls.put_many)
    create = _waits(AdvCalls.create)
    update = _waits(AdvCalls.update)
    compare_and_swap = _waits(AdvCalls.compare_and_swap)
    delete = _waits(AdvCalls.delete)
    delete_many = _waits(AdvCalls.delete_many)
    clear_payload = _waits(AdvCalls.clear_payload)
    clear_many_payloads = _waits(AdvCalls.clear_many_payloads)


class BlockingProcedures(_Family):
    """``store.procedures``: what runs inside the store; see ``bridge.khepri.procedures.Procedures``."""

    functions = _waits(Procedures.functions)
    transaction = _waits(Procedures.transaction)
    put = _waits(Procedures.put)
    run = _waits(Procedures.run)
    fold = _waits(Procedures.fold)
    for_each = _waits(Procedures.for_each)
    map = _waits(Procedures.map)
    filter = _waits(Procedures.filter)
    register_trigger = _waits(Procedures.register_trigger)


class BlockingProjections(_Family):
    """``store.projections``; see ``bridge.khepri.projections.Projections``."""

    register = _waits(Projections.register)
    unregister = _waits(Projections.unregister)
    unregister_all = _waits(Projections.unregister_all)
    has = _waits(Projections.has)
    lookup = _waits(Projections.lookup)
    objects = _waits(Projections.objects)


class BlockingCluster(_Family):
    """``store.cluster``; see ``bridge.khepri.cluster.Cluster``."""

    members = _waits(Cluster.members)
    leader = _waits(Cluster.leader)
    wait_for_leader = _waits(Cluster.wait_for_leader)
    is_running = _waits(Cluster.is_running)
    stores = _waits(Cluster.stores)
    versions = _waits(Cluster.versions)
    info = _waits(Cluster.info)


class BlockingKhepri(_Family):
    """``bridge.khepri.Khepri`` for programs without asyncio; made by ``connect`` and ``blocking``.

    Attributes:
        adv: reads and writes that tell properties of nodes.
        procedures: functions that run inside the store.
        projections: tables of part of the tree.
        cluster: members, leader, versions.
    """

    def __init__(self, thread: LoopThread[Khepri]) -> None:
        target = thread.resource
        super().__init__(thread, target)
        self.adv = BlockingAdv(thread, target.adv)
        self.procedures = BlockingProcedures(thread, target.procedures)
        self.projections = BlockingProjections(thread, target.projections)
        self.cluster = BlockingCluster(thread, target.cluster)

    get = _waits(Khepri.get)
    get_or = _waits(Khepri.get_or)
    get_many = _waits(Khepri.get_many)
    get_many_or = _waits(Khepri.get_many_or)
    exists = _waits(Khepri.exists)
    has_data = _waits(Khepri.has_data)
    is_sproc = _waits(Khepri.is_sproc)
    count = _waits(Khepri.count)
    is_empty = _waits(Khepri.is_empty)
    fold = _combines(Khepri.fold)
    for_each = _combines(Khepri.for_each)
    map = _combines(Khepri.map)
    filter = _combines(Khepri.filter)
    put = _waits(Khepri.put)
    put_once = _waits(Khepri.put_once)
    put_many = _waits(Khepri.put_many)
    create = _waits(Khepri.create)
    update = _waits(Khepri.update)
    compare_and_swap = _waits(Khepri.compare_and_swap)
    delete = _waits(Khepri.delete)
    delete_many = _waits(Khepri.delete_many)
    clear_payload = _waits(Khepri.clear_payload)
    clear_many_payloads = _waits(Khepri.clear_many_payloads)
    transaction = _waits(Khepri.transaction)
    pipeline = _waits(Khepri.pipeline)
    fence = _waits(Khepri.fence)
    new_operation = _in_loop(Khepri.new_operation)
    forget_operation = _in_loop(Khepri.forget_operation)
    export_bytes = _waits(Khepri.export_bytes)
    export_to = _waits(Khepri.export_to)
    import_bytes = _waits(Khepri.import_bytes)
    import_from = _waits(Khepri.import_from)
    backup_to = _waits(Khepri.backup_to)
    restore_from = _waits(Khepri.restore_from)
    health = _waits(Khepri.health)
    request = _waits(Khepri.request)

    def watch(
        self,
        *patterns: Pattern,
        since: Cursor | str | None = None,
        window: int = 1_000,
        timeout: float | None = None,
    ) -> Watch:
        """Changes of data, to iterate over; ``Khepri.watch`` says what they guarantee.

        Args:
            patterns: as for ``Khepri.watch``.
            since: as there.
            window: as there.
            timeout: seconds that iterating, and ``Watch.next``, wait for the next change; ``None``: as long
                as it takes.

        Raises:
            ConfigurationError: no pattern, no cursor.
        """
        return Watch(self._thread, lambda: self._target.watch(*patterns, since=since, window=window), timeout)

    def close(self) -> None:
        """End the client and what it opened; calls and watches that wait end with ``ClosedError``."""
        self._thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Watch:
    """Changes, one after another; made by ``BlockingKhepri.watch``.

    Close it, use it by ``with``, or drop it. One thread at a time iterates; another one may close it.
    """

    def __init__(
        self,
        thread: LoopThread[Khepri],
        opening: Callable[[], AbstractAsyncContextManager[Feed]],
        timeout: float | None,
    ) -> None:
        self._closed = True  # until there is something to close
        self._thread = thread
        self._timeout = timeout
        self._reading = threading.Lock()
        self._pending: concurrent.futures.Future[Change | None] | None = None
        self._source = thread.run(_Source.open, opening)
        self._closed = False

    @property
    def cursor(self) -> Cursor | None:
        """Where to go on from, as ``Feed.cursor`` tells it."""
        return self._source.feed.cursor

    def next(self, *, timeout: float | None = None) -> Change:
        """The next change.

        Args:
            timeout: seconds to wait; ``None``: as the watch was made with, ``math.inf``: as long as it takes.

        Raises:
            DeadlineError: none came in time; nothing is lost, ask again.
            ClosedError: the watch or its client was closed.
            InvalidStateError: another thread waits for the next change; or as for every call.
            InvalidRequestError: see ``Khepri.watch``.
        """
        self._thread.check_here()
        if not self._reading.acquire(blocking=False):
            raise InvalidStateError("one thread at a time reads a watch: give each its own")
        try:
            if self._closed:
                raise ClosedError("the watch was closed")
            # One that was not waited for to its end is the next one still: a deadline or Ctrl-C loses none.
            self._pending = self._pending or self._thread.submit(self._source.next)
            seconds = self._timeout if timeout is None else timeout
            if not wait_for(self._pending, seconds):
                raise DeadlineError(f"no change within {seconds:g} s")
            pending, self._pending = self._pending, None
            change = pending.result()
        except concurrent.futures.CancelledError:
            raise ClosedError("the watch was closed, or its client") from None
        finally:
            self._reading.release()
        if change is None:
            raise ClosedError("the watch was closed, or its client")
        return change

    def __iter__(self) -> Iterator[Change]:
        return self

    def __next__(self) -> Change:
        try:
            return self.next()
        except ClosedError:
            if self._closed:
                raise StopIteration from None
            raise

    def close(self) -> None:
        """End the watch, and whoever iterates over it; harmless twice, and after its client was closed."""
        if self._closed:
            return
        self._closed = True
        pending = self._pending
        if pending is not None:
            pending.cancel()
        with contextlib.suppress(ClosedError):
            self._thread.run(self._source.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A loop left by ``break`` drops it. Nobody waits here: a finalizer runs in any thread.
        if not self._closed:
            self._closed = True
            with contextlib.suppress(BridgeError):
                self._thread.submit(self._source.close)


class _Source:
    """The part of a watch that lives in the loop."""

    def __init__(self, context: AbstractAsyncContextManager[Feed], feed: Feed) -> None:
        self._context = context
        self.feed = feed
        self._changes = aiter(feed)
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, opening: Callable[[], AbstractAsyncContextManager[Feed]]) -> Self:
        context = opening()
        return cls(context, await context.__aenter__())

    async def next(self) -> Change | None:
        """The next change, or ``None`` at the end."""
        async with self._turn:
            return await anext(self._changes, None)

    async def close(self) -> None:
        await self._context.__aexit__(None, None, None)
        # The end of the feed reaches whoever awaits its next change.
        async with self._turn:
            if isinstance(self._changes, AsyncGenerator):
                await self._changes.aclose()
