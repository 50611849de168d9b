from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from bridge.errors import ClosedError, InvalidStateError
from bridge.khepri.loop_thread import LoopThread


class Log:
    """What a resource went through."""

    def __init__(self, *, on_enter: str = "", on_leave: str = "") -> None:
        self.lines: list[str] = []
        self._on_enter, self._on_leave = on_enter, on_leave

    @contextlib.asynccontextmanager
    async def resource(self) -> AsyncIterator[Log]:
        if self._on_enter:
            raise ValueError(self._on_enter)
        self.lines.append("entered")
        try:
            yield self
        finally:
            self.lines.append("left")
            if self._on_leave:
                raise ValueError(self._on_leave)

    async def wait(self, begun: Callable[[], object]) -> None:
        """Until it is cancelled."""
        begun()
        try:
            await asyncio.Event().wait()
        finally:
            self.lines.append("cancelled")


async def add(one: int, two: int) -> int:
    return one + two


async def refuse() -> None:
    raise ValueError("refused")


def test_coroutines_run_in_the_loop_while_the_resource_is_open() -> None:
    log = Log()
    thread = LoopThread(log.resource)
    assert thread.resource is log
    assert thread.run(add, 1, two=2) == 3
    with pytest.raises(ValueError, match="refused"):
        thread.run(refuse)
    assert log.lines == ["entered"]
    thread.close()
    thread.close()
    assert log.lines == ["entered", "left"]
    with pytest.raises(ClosedError):
        thread.run(add, 1, 2)


def test_many_threads_may_call_at_once() -> None:
    thread = LoopThread(Log().resource)
    with ThreadPoolExecutor(16) as pool:
        sums = list(pool.map(lambda number: thread.run(add, number, 1), range(200)))
    thread.close()
    assert sums == list(range(1, 201))


def test_what_entering_raises_is_raised_and_no_thread_is_left() -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="shut"):
        LoopThread(Log(on_enter="shut").resource)
    assert threading.active_count() == before


def test_what_leaving_raises_is_raised_once_and_the_thread_has_ended() -> None:
    before = threading.active_count()
    thread = LoopThread(Log(on_leave="stuck").resource)
    with pytest.raises(ValueError, match="stuck"):
        thread.close()
    thread.close()
    assert threading.active_count() == before


def test_closing_ends_a_call_that_waits() -> None:
    log = Log()
    thread = LoopThread(log.resource)
    begun = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(thread.run, log.wait, begun.set)
        begun.wait(10)
        thread.close()
        with pytest.raises(ClosedError, match="while this call waited"):
            waiting.result(10)
    assert log.lines == ["entered", "cancelled", "left"]


def test_ctrl_c_cancels_the_call_and_leaves_the_loop_usable() -> None:
    log = Log()
    thread = LoopThread(log.resource)
    with pytest.raises(KeyboardInterrupt):
        thread.run(log.wait, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert thread.run(add, 1, 2) == 3
    thread.close()
    assert log.lines == ["entered", "cancelled", "left"]


def test_ctrl_c_while_it_opens_ends_the_thread() -> None:
    @contextlib.asynccontextmanager
    async def opening() -> AsyncIterator[None]:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()
        yield

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        LoopThread(opening)
    assert threading.active_count() == before


async def test_it_refuses_to_stop_a_running_event_loop() -> None:
    with pytest.raises(InvalidStateError, match=r"bridge\.khepri\.Khepri"):
        LoopThread(Log().resource)
    thread = await asyncio.to_thread(LoopThread, Log().resource)
    with pytest.raises(InvalidStateError, match="to_thread"):
        thread.run(add, 1, 2)
    assert await asyncio.to_thread(thread.run, add, 1, 2) == 3
    await asyncio.to_thread(thread.close)


def test_a_function_in_the_loop_can_neither_call_nor_close() -> None:
    thread = LoopThread(Log().resource)

    async def call() -> None:
        thread.run(add, 1, 2)

    async def close() -> None:
        thread.close()

    for function in (call, close):
        with pytest.raises(InvalidStateError):
            thread.run(function)
    thread.close()


def program(body: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, since threads and forks do not mix with those of the tests."""
    head = (
        "import asyncio, contextlib, os\n"
        "from bridge.khepri.loop_thread import LoopThread\n"
        "@contextlib.asynccontextmanager\n"
        "async def resource():\n"
        "    yield\n"
        "    print('left', os.getpid() == parent, flush=True)\n"
        "parent = os.getpid()\n"
        "thread = LoopThread(resource)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", head + body], capture_output=True, text=True, timeout=60, check=True
    )


def test_a_program_that_forgets_to_close_ends_and_closes() -> None:
    assert program("").stdout == "left True\n"


def test_after_a_fork_the_child_is_told_and_its_close_does_nothing() -> None:
    done = program(
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try:\n"
        "        thread.run(asyncio.sleep, 0)\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__, error, flush=True)\n"
        "    thread.close()\n"
        "    raise SystemExit\n"
        "os.waitpid(child, 0)\n"
        "thread.run(asyncio.sleep, 0)\n"
    )
    assert done.stdout == (
        "InvalidStateError a client does not survive a fork: connect in the child\nleft True\n"
    )
