"""Pinned processes with pipes between them."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import TypeVar

from bridge.udp import keep_freed_memory

Result = TypeVar("Result")

_CONTEXT = multiprocessing.get_context("fork")
_FRESH = multiprocessing.get_context("spawn")
_CORES = sorted(os.sched_getaffinity(0))
OUR_CORE = _CORES[0]
"""Of the measuring process; it sends."""
THEIR_CORE = _CORES[-1]
"""Of its peer."""


def pin(core: int) -> None:
    """Keep this process on one core, and its freed memory to itself, as a data plane does."""
    os.sched_setaffinity(0, {core})
    keep_freed_memory()


def in_fresh_process(function: Callable[..., Result], *args: object) -> Result:
    """What the function gives in a process on our core that has measured nothing before."""
    ours, theirs = _FRESH.Pipe()
    child = _FRESH.Process(target=_answer, args=(function, theirs, *args))
    child.start()
    theirs.close()
    try:
        result: Result = ours.recv()
    except EOFError:
        raise RuntimeError(f"{function.__name__} failed; see above") from None
    finally:
        child.join()
        ours.close()
    return result


def _answer(function: Callable[..., object], pipe: Connection, *args: object) -> None:
    pin(OUR_CORE)
    pipe.send(function(*args))


@contextmanager
def peer_process(function: Callable[..., None], *args: object) -> Iterator[Connection]:
    """Run ``function(pipe, *args)`` in a process on the other core; its end is waited for."""
    ours, theirs = _CONTEXT.Pipe()
    child = _CONTEXT.Process(target=_run, args=(function, theirs, ours, *args), daemon=True)
    child.start()
    theirs.close()
    try:
        yield ours
        child.join(20)
    finally:
        if child.is_alive():
            child.terminate()
            child.join()
        ours.close()


def _run(function: Callable[..., None], theirs: Connection, ours: Connection, *args: object) -> None:
    ours.close()
    pin(THEIR_CORE)
    function(theirs, *args)


def note(text: str) -> None:
    """Tell people how far the run is."""
    print(text, file=sys.stderr, flush=True)
