"""Where a run plays: what every stage can do, and the one of host processes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol

from bridge.cluster.local import LocalCluster
from bridge.cluster.processes import is_running
from bridge.errors import ConfigurationError, InvalidStateError
from bridge.node import NodeConfig
from tests.nemesis.schedule import SIGNALS, Fault, Kind

CONTROL: Final = "control"
DATA_PLANE: Final = "data plane"
OTHER: Final = "other"
_SPAWN_SECONDS: Final = 0.3


class Stage(Protocol):
    """Three homeservers and three simulation servers that can be broken. Its methods block."""

    kinds: tuple[Kind, ...]
    members: tuple[str, ...]
    servers: tuple[str, ...]
    cookie: str
    store: str
    records: Path

    def node_config(self) -> NodeConfig:
        """For a hidden node of this process."""

    def command(self, server: str) -> list[str]:
        """Starts a simulation server, for a driver; its host is made ready."""

    def begin(self, fault: Fault, leader: int) -> None:
        """Break something."""

    def end(self, fault: Fault) -> None:
        """Mend it."""

    def heal(self) -> None:
        """Mend everything, whatever was broken; everything but simulation servers runs again."""


def send(pids: Sequence[int], number: signal.Signals) -> None:
    """Send a signal to processes, some of which may have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kind_of(arguments: str) -> str | None:
    """Which process of a simulation server a command line is; ``None``: none."""
    if "bridge.sim.dataplane.process" in arguments:
        return DATA_PLANE
    if "bridge.sim.guardian" in arguments:
        return OTHER
    return CONTROL if " sim --name " in arguments and "python" in arguments else None


def chosen(fault: Fault, processes: Mapping[int, str]) -> list[int]:
    """The processes of a simulation server that a fault is for."""
    match fault.kind:
        case Kind.KILL_CONTROL | Kind.STOP_CONTROL:
            wanted = {CONTROL}
        case Kind.KILL_DATA_PLANE | Kind.STOP_DATA_PLANE:
            wanted = {DATA_PLANE}
        case _:
            wanted = {CONTROL, DATA_PLANE, OTHER}
    return [pid for pid, kind in processes.items() if kind in wanted]


class LocalStage:
    """Homeservers of this machine and simulation servers as its processes: signals only.

    Args:
        cluster: runs already.
        records: directory for the records of servers.
    """

    kinds: tuple[Kind, ...] = SIGNALS
    servers: tuple[str, ...] = ("sim1", "sim2", "sim3")

    def __init__(self, cluster: LocalCluster, records: Path) -> None:
        self.members = cluster.members
        self.cookie = cluster.cookie
        self.store = cluster.store
        self.records = records
        self._cluster = cluster
        # Its threads stay: nodes end with the thread that started them.
        self._pool = ThreadPoolExecutor(max_workers=len(cluster.members))

    def node_config(self) -> NodeConfig:
        return NodeConfig(epmd_port=self._cluster.epmd_port, register=False)

    def command(self, server: str) -> list[str]:
        return [
            *(sys.executable, "-m", "bridge.cli", "sim", "--name", server),
            *("--dir", str(self._cluster.directory)),
            *("--record-dir", str(self.records), "--commands"),
        ]

    def begin(self, fault: Fault, leader: int) -> None:
        match fault.kind:
            case Kind.KILL_LEADER:
                self._cluster.kill_node(self.members[leader])
            case Kind.KILL_HOMESERVER:
                self._cluster.kill_node(self.members[fault.target])
            case Kind.KILL_HOMESERVERS:
                self._kill_members()
            case Kind.KILL_EVERYTHING:
                self._kill_members()
                for server in self.servers:
                    send(list(self._processes(server)), signal.SIGKILL)
            case Kind.STOP_HOMESERVER:
                send(self._pids(fault.target), signal.SIGSTOP)
            case Kind.STOP_LEADER:
                send(self._pids(leader), signal.SIGSTOP)
            case Kind.KILL_CONTROL | Kind.KILL_DATA_PLANE | Kind.KILL_SERVER:
                send(self._chosen(fault), signal.SIGKILL)
            case _:
                send(self._chosen(fault), signal.SIGSTOP)

    def end(self, fault: Fault) -> None:
        del fault
        self.heal()

    def heal(self) -> None:
        for number in range(len(self.members)):
            send(self._pids(number), signal.SIGCONT)
        for server in self.servers:
            send(list(self._processes(server)), signal.SIGCONT)
        # Members with data need each other for a majority, so nobody waits for one alone.
        started = []
        for node in self._cluster.state.nodes:
            if node.process is None or not is_running(node.process):
                started.append(self._pool.submit(self._cluster.start_node, node.name))
                # The state of the cluster is written when a node is spawned, one after the other.
                time.sleep(_SPAWN_SECONDS)
        for future in started:
            # Another fault may kill it while it starts.
            with contextlib.suppress(ConfigurationError, InvalidStateError):
                future.result()

    def _kill_members(self) -> None:
        for member in self.members:
            self._cluster.kill_node(member)

    def _pids(self, number: int) -> list[int]:
        process = self._cluster.state.nodes[number].process
        return [] if process is None else [process.pid]

    def _chosen(self, fault: Fault) -> list[int]:
        return chosen(fault, self._processes(self.servers[fault.target]))

    def _processes(self, server: str) -> dict[int, str]:
        """Processes of one simulation server that this process started, by their kind."""
        found = {}
        for pid, arguments in descendants(os.getpid()):
            if f"sim --name {server} " in arguments and "bridge.cli" in arguments:
                found[pid] = CONTROL
                found |= {child: kind_of(words) or OTHER for child, words in descendants(pid)}
        return found


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """Processes below another one, with their command lines."""
    for task in _listed(Path(f"/proc/{pid}/task")):
        with contextlib.suppress(OSError):
            for child in map(int, (task / "children").read_text().split()):
                words = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ")
                yield child, words.decode(errors="replace")
                yield from descendants(child)


def _listed(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []
