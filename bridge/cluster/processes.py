"""Processes of a local cluster: how one is started, recognised again later, and ended.

A process is recognised by its number *and* the tick at which the kernel started it, in this boot, because
numbers are used again. Each one also carries the marker ``KB_CLUSTER_DIR`` in its environment, so that those
are found too whose number never reached the state file, because the launcher itself was killed in between.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge.errors import ConfigurationError

MARKER: Final = "KB_CLUSTER_DIR"
_PROC: Final = Path("/proc")
_KEPT: Final = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """A process of this boot that is never confused with a later one of the same number."""

    pid: int
    started: int
    """Clock ticks between boot and its start, as the kernel counts them."""
    boot: str
    """The kernel's random identifier of this boot."""


def identify(pid: int) -> ProcessIdentity | None:
    """Identity of the running process ``pid``, or ``None`` when there is none, or only its zombie."""
    try:
        status = (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    # The second field is the name in parentheses and may itself hold spaces and parentheses.
    fields = status.rpartition(")")[2].split()
    if fields[0] in ("Z", "X"):
        return None
    return ProcessIdentity(pid=pid, started=int(fields[19]), boot=boot)


def is_running(process: ProcessIdentity) -> bool:
    """Whether exactly this process still runs."""
    return identify(process.pid) == process


def marked_processes(directory: Path | None = None) -> dict[ProcessIdentity, Path]:
    """Processes of this user that carry the marker, with the cluster directory it names.

    Args:
        directory: only those of this cluster directory; all of them when ``None``.
    """
    return {
        process: marked
        for process, marked in _marked()
        if directory is None or marked == directory.absolute()
    }


def _marked() -> Iterator[tuple[ProcessIdentity, Path]]:
    prefix = f"{MARKER}=".encode()
    for entry in _PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        value = next((item[len(prefix) :] for item in variables if item.startswith(prefix)), None)
        if value is not None and (process := identify(int(entry.name))) is not None:
            yield process, Path(os.fsdecode(value))


def plain_environment() -> dict[str, str]:
    """What an Erlang node gets of this process's environment, before settings of its own.

    Only what it needs: other variables (ERL_FLAGS, KB_*) would change its meaning unseen.
    """
    kept = {key: os.environ[key] for key in _KEPT if key in os.environ}
    return {"LANG": "C.UTF-8", **kept, "ERL_CRASH_DUMP_BYTES": "0"}


def spawn(
    command: list[str], *, directory: Path, environment: Mapping[str, str], log: Path, tied: bool
) -> int:
    """Start a process of the cluster in ``directory`` in a session of its own.

    Its own, so that Ctrl-C in a terminal reaches the launcher alone, which then ends the nodes in order.

    Args:
        command: program and arguments.
        directory: the cluster directory, written into the marker.
        environment: the whole environment, without the marker.
        log: file that receives both outputs, appended to.
        tied: whether the kernel kills it when the thread that starts it ends (``PR_SET_PDEATHSIG``).

    Returns:
        Its process number. The process is this one's child: `reap` collects it.

    Raises:
        ConfigurationError: the program cannot be run.
    """
    if tied and (setpriv := shutil.which("setpriv")) is not None:
        # By a program, since a `preexec_fn` may deadlock beside other threads.
        command = [setpriv, "--pdeathsig", "KILL", "--", *command]
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        # Not `subprocess`: its handle warns when it is dropped, and a detached node outlives it on purpose.
        return os.posix_spawnp(
            command[0],
            command,
            {**environment, MARKER: str(directory.absolute())},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
            ],
            setsid=True,
        )
    except OSError as error:
        raise ConfigurationError(f"{command[0]} cannot be started: {error.strerror}") from None
    finally:
        os.close(output)


def reap(pid: int) -> None:
    """Collect a child that has ended; does nothing for a running one, and for another's child."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def end_processes(processes: Iterable[ProcessIdentity], *, grace: float) -> None:
    """Ask processes to stop (SIGTERM), and kill those that still run after ``grace`` seconds.

    With a grace of 0 they are killed without being asked, as a crash would.
    """
    remaining = [process for process in processes if is_running(process)]
    if grace > 0:
        _signal(remaining, signal.SIGTERM)
        remaining = wait_until_gone(remaining, timeout=grace)
    _signal(remaining, signal.SIGKILL)
    wait_until_gone(remaining, timeout=5.0)


def _signal(processes: Iterable[ProcessIdentity], number: signal.Signals) -> None:
    for process in processes:
        if is_running(process):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, number)


def wait_until_gone(processes: Iterable[ProcessIdentity], *, timeout: float) -> list[ProcessIdentity]:
    """Wait for the end of processes and reap them; returns those that still run after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    survivors: list[ProcessIdentity] = []
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(process.pid)
            try:
                left = max(0.0, deadline - time.monotonic())
                if is_running(process) and not select.select([descriptor], [], [], left)[0]:
                    survivors.append(process)
            finally:
                os.close(descriptor)
        reap(process.pid)
    return survivors
