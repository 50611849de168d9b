"""An event loop in a thread of its own, for programs without asyncio."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import math
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from time import monotonic
from typing import Any, Final, Generic, ParamSpec, TypeVar

import uvloop

from bridge.errors import ClosedError, InvalidStateError

_GLANCE: Final = 0.5
"""seconds after which a waiting thread looks for signals"""
Resource = TypeVar("Resource")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


class LoopThread(Generic[Resource]):
    """Keeps a resource open in an event loop of its own, and runs coroutines there for any thread.

    The thread is a daemon: a program that forgets to close ends all the same, and closes then.

    Args:
        opening: gives the context manager of the resource; called, entered and left in the loop.

    Raises:
        InvalidStateError: made in a thread whose event loop runs.
        BaseException: whatever entering raises.

    Attributes:
        resource: what entering gave; to be used in the loop only.
    """

    resource: Resource

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[Resource]]) -> None:
        refuse_in_loop()
        self._opening = opening
        self._process = os.getpid()
        self._opened: concurrent.futures.Future[Resource] = concurrent.futures.Future()
        # Reentrant: a finalizer may submit while its thread is in here already.
        self._lock = threading.RLock()
        self._waiting: set[concurrent.futures.Future[Any]] = set()
        self._closing = False
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._stop = asyncio.Event()
        self._main = self._loop.create_task(self._live())
        self._thread = threading.Thread(target=self._run, name="khepri-loop", daemon=True)
        try:
            self._thread.start()
            wait_for(self._opened, None)
            self.resource = self._opened.result()
        except BaseException:
            # It failed, and its thread ends by itself; or Ctrl-C ended the wait, even that for the thread.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._main.cancel)
            with contextlib.suppress(RuntimeError):
                self._thread.join()
            raise
        atexit.register(self._close_at_exit)

    def run(
        self,
        function: Callable[Arguments, Coroutine[Any, Any, Result]],
        /,
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Call a coroutine function in the loop, and wait for what it returns or raises.

        Whatever ends the wait, Ctrl-C among them, cancels the coroutine.

        Raises:
            ClosedError: it was closed, before or meanwhile.
            InvalidStateError: called in a thread whose event loop runs, or after a fork.
        """
        self.check_here()
        future = self.submit(function, *args, **kwargs)
        try:
            wait_for(future, None)
            return future.result()
        except concurrent.futures.CancelledError:
            raise ClosedError("the client was closed while this call waited") from None
        except BaseException:
            future.cancel()
            raise

    def submit(
        self,
        function: Callable[Arguments, Coroutine[Any, Any, Result]],
        /,
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> concurrent.futures.Future[Result]:
        """Call a coroutine function in the loop without waiting; closing cancels the future.

        Raises:
            ClosedError: it was closed.
            InvalidStateError: called after a fork, in the child.
        """
        self._check_process()
        with self._lock:
            if self._closing:
                raise ClosedError("the client was closed")
            future = asyncio.run_coroutine_threadsafe(function(*args, **kwargs), self._loop)
            self._waiting.add(future)
        future.add_done_callback(self._done)
        return future

    def check_here(self) -> None:
        """Refuse to wait where that would never end.

        Raises:
            InvalidStateError: in a thread whose event loop runs, or after a fork, in the child.
        """
        refuse_in_loop()
        self._check_process()

    def close(self) -> None:
        """Cancel what waits, leave the resource and end the thread; harmless twice, and in a forked child.

        Raises:
            InvalidStateError: called in the loop's own thread.
            BaseException: whatever leaving raises.
        """
        if os.getpid() != self._process:
            return
        if threading.current_thread() is self._thread:
            raise InvalidStateError("a client cannot be closed by a function that it calls itself")
        with self._lock:
            first, self._closing = not self._closing, True
            waiting = list(self._waiting)
        for future in waiting:
            future.cancel()
        if first:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        atexit.unregister(self._close_at_exit)
        if first and self._failure is not None:
            raise self._failure

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise InvalidStateError("a client does not survive a fork: connect in the child")

    def _close_at_exit(self) -> None:
        # The interpreter ends: nobody is left to tell, and some of what closing needs may be gone.
        with contextlib.suppress(Exception):
            self.close()

    def _done(self, future: concurrent.futures.Future[Any]) -> None:
        with self._lock:
            self._waiting.discard(future)

    async def _live(self) -> None:
        async with self._opening() as resource:
            self._opened.set_result(resource)
            await self._stop.wait()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.get_loop().run_until_complete(self._main)
            except BaseException as error:
                if self._opened.done():
                    self._failure = error
                else:
                    self._opened.set_exception(error)


def wait_for(future: concurrent.futures.Future[Any], timeout: float | None) -> bool:
    """Wait until a future is done, in a way that Ctrl-C ends; tells whether it is.

    Args:
        future: of a ``LoopThread``.
        timeout: seconds; ``None``: as long as it takes.
    """
    deadline = math.inf if timeout is None else monotonic() + timeout
    while True:
        # A signal that comes just before a wait begins does not end it, so no wait is long.
        done, _ = concurrent.futures.wait([future], max(0.0, min(_GLANCE, deadline - monotonic())))
        if done or monotonic() >= deadline:
            return bool(done)


def refuse_in_loop() -> None:
    """Refuse a thread whose event loop runs: waiting there would stop it.

    Raises:
        InvalidStateError: it is one.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise InvalidStateError(
        "a blocking client would stop this thread's event loop: use bridge.khepri.Khepri here, "
        "or call from another thread (asyncio.to_thread)"
    )
