"""A homeserver cluster on this machine: one port mapper and N BEAM nodes, all on 127.0.0.1."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bridge.cluster.build import build_release, require_erlang, workshop
from bridge.cluster.directory import holds_data, log_file, read_cookie, write_cookies
from bridge.cluster.epmd import HOST, free_port, start_epmd
from bridge.cluster.member import StartedMember, await_ready, settings_of, start_member
from bridge.cluster.processes import end_processes, is_running, marked_processes
from bridge.cluster.running import member_runs, running_cluster
from bridge.cluster.sources import Report
from bridge.cluster.state import (
    ENDED_FILE,
    STATE_FILE,
    ClusterState,
    NodeRecord,
    cluster_options,
    default_directory,
    exclusive,
    load_state,
    save_state,
)
from bridge.errors import ConfigurationError, InvalidStateError

DEFAULT_INSTANCE: Final = "local"
MAX_NODES: Final = 9
"""More members than this slow every write down and protect against nothing on one machine."""
_STOP_SECONDS: Final = 10.0
_EPMD_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalClusterConfig:
    """How a local cluster is started."""

    nodes: int = 3
    """Number of BEAM nodes, 1 to 9. An even number tolerates no more failures than the odd one below it."""
    directory: Path | None = None
    """Where its state lies. ``None``: the user's default when detached, else temporary, removed at last."""
    instance: str = DEFAULT_INSTANCE
    """Name of the logical homeserver; the default stands for that of the data where there is some."""
    store: str = "homeserver"
    """Name of the Khepri store."""
    epmd_port: int | None = None
    """Port of the port mapper; when ``None`` the one that this cluster had before, else a free one."""
    release: Path | None = None
    """The built release to run. ``None``: this installation's own, built first when it is out of date."""
    detached: bool = False
    """Whether the nodes outlive this process (`khepri-bridge up`) or end with it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """More variables for every node, such as ``KB_TLS_OPTFILE``; ``erlang/config/README.md`` lists them."""
    ready_seconds: float = 60.0
    """How long one node may take until it is a member with a known leader."""

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= MAX_NODES:
            raise ConfigurationError(f"the number of nodes must be 1 to {MAX_NODES}, not {self.nodes}")


class LocalCluster:
    """Starts, observes and ends a cluster on this machine.

    As a context manager it leaves no process behind, whatever ends the block; the kernel ends the nodes even
    when this process is killed. The starting thread must outlive the cluster, so do not start it in a pool.

    ::

        with LocalCluster(LocalClusterConfig(nodes=3)) as cluster:
            config = NodeConfig(epmd_port=cluster.epmd_port)
            node = HiddenNode("sim1@127.0.0.1", cookie=cluster.cookie, config=config)

    Args:
        config: how it is started.
        report: is told what happens, one line at a time.
    """

    def __init__(self, config: LocalClusterConfig | None = None, report: Report | None = None) -> None:
        self._config = config or LocalClusterConfig()
        self._report = report or _say_nothing
        self._temporary = self._config.directory is None and not self._config.detached
        self._directory = self._config.directory or default_directory()
        self._state: ClusterState | None = None

    @property
    def directory(self) -> Path:
        """Where state, logs and data lie."""
        return self._directory

    @property
    def state(self) -> ClusterState:
        """The cluster as last recorded.

        Raises:
            InvalidStateError: it was not started.
        """
        if self._state is None:
            raise InvalidStateError("the cluster is not running: start it first")
        return self._state

    @property
    def members(self) -> tuple[str, ...]:
        """Full names of the nodes."""
        return tuple(node.name for node in self.state.nodes)

    @property
    def epmd_port(self) -> int:
        """Port of the cluster's own port mapper on 127.0.0.1."""
        return self.state.epmd_port

    @property
    def store(self) -> str:
        """Name of the Khepri store."""
        return self.state.store

    @property
    def cookie(self) -> str:
        """The cluster's cookie."""
        return read_cookie(self._directory, self.state)

    def log(self, name: str) -> Path:
        """Log file of the node ``name`` (``hs1`` or ``hs1@127.0.0.1``)."""
        return log_file(self._directory, name)

    def start(self) -> ClusterState:
        """Start all nodes and wait until each is a member; nothing stays behind when one fails.

        Raises:
            ConfigurationError: it runs already, Erlang is missing, no release can be built, a port is taken,
                the directory cannot be used, or a node did not get ready (with what it said, and its log).
        """
        release = self._config.release or build_release(self._report)
        try:
            if self._temporary:
                self._directory = Path(tempfile.mkdtemp(prefix="khepri-bridge-"))
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with exclusive(self._directory):
                state = self._plan()
                try:
                    self._start_all(state, release)
                except BaseException:
                    self._end_everything()
                    raise
        except OSError as error:
            self._remove_temporary()
            raise ConfigurationError(f"{self._directory} cannot be used: {error.strerror}") from error
        except BaseException:
            self._remove_temporary()
            raise
        return self.state

    def stop(self) -> bool:
        """End every process of the cluster, also those of an interrupted start.

        Returns:
            Whether anything was running.

        Raises:
            ConfigurationError: another command is starting or stopping it.
        """
        if not self._directory.is_dir():
            return False
        with exclusive(self._directory):
            ended = self._end_everything()
        self._remove_temporary()
        return ended

    def kill_node(self, name: str) -> None:
        """Kill one node at once, as a crash of its host would."""
        node = self._node(name)
        if node.process is not None:
            end_processes([node.process], grace=0.0)
            self._record(self.state.with_node(replace(node, process=None)))

    def stop_node(self, name: str) -> None:
        """Let one node shut down in order."""
        node = self._node(name)
        if node.process is not None:
            end_processes([node.process], grace=_STOP_SECONDS)
            self._record(self.state.with_node(replace(node, process=None)))

    def start_node(self, name: str) -> None:
        """Start one node again with the data it has, and wait until it is a member."""
        node = self._node(name)
        if member_runs(node):
            raise InvalidStateError(f"{node.name} is running")
        release = self._config.release or workshop().release
        started = self._start(node, release, seed=self._seed_for(node))
        await_ready(started, time.monotonic() + self._config.ready_seconds)

    def start_missing(self, names: Sequence[str] = ()) -> tuple[str, ...]:
        """Start members of the running cluster that do not run, with their data and as the others were.

        Args:
            names: those, full or short; none: all that are missing.

        Returns:
            The members that were started, each ready.

        Raises:
            InvalidStateError: none of the cluster's members runs, or one of ``names`` does.
            ConfigurationError: no such member, another command is at it, a setting for members differs from
                that of those that run, or a member did not get ready (with what it said, and its log).
        """
        running_cluster(self._directory)
        release = self._config.release or build_release(self._report)
        with exclusive(self._directory):
            self._state = running_cluster(self._directory)
            alive = [node for node in self.state.nodes if member_runs(node)]
            if not alive:
                raise InvalidStateError(
                    f"no member of the cluster in {self._directory} runs: start all of them"
                )
            wanted = dict.fromkeys(self._node(name) for name in names)
            missing = list(wanted) or [node for node in self.state.nodes if not member_runs(node)]
            for node in missing:
                if member_runs(node):
                    raise InvalidStateError(f"{node.name} is running")
            settings = self._settings_like(alive[0])
            if self.state.epmd is None or not is_running(self.state.epmd):
                self._start_epmd_again()
            self._await_all(
                [self._start(node, release, seed=alive[0].name, settings=settings) for node in missing]
            )
        return tuple(node.name for node in missing)

    def _settings_like(self, node: NodeRecord) -> dict[str, str]:
        """Settings of a running member, which the configuration must not contradict."""
        shared = settings_of(node)
        for name, wanted in self._config.environment.items():
            if wanted and wanted != shared.get(name, ""):
                raise ConfigurationError(
                    f"members that run have {name}={shared.get(name, '')}: it is that of all of them until "
                    "`khepri-bridge down`"
                )
        return shared

    def _start_epmd_again(self) -> None:
        process = start_epmd(self.state.epmd_port, directory=self._directory, tied=not self._config.detached)
        if process is None:
            raise ConfigurationError(
                f"the port mapper at {HOST}:{self.state.epmd_port} is gone, and the port is taken"
            )
        self._record(replace(self.state, epmd=process))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _node(self, name: str) -> NodeRecord:
        for node in self.state.nodes:
            if name in (node.name, node.short):
                return node
        raise ConfigurationError(f"no node {name}: there are {', '.join(self.members)}")

    def _plan(self) -> ClusterState:
        """Decide what is started; refuses what cannot work before anything runs."""
        previous = None
        with contextlib.suppress(ConfigurationError):
            previous = load_state(self._directory)
        running = marked_processes(self._directory)
        # A port mapper that is left alone is no cluster: it is ended with what else is left.
        if previous is not None and any(member_runs(node) for node in previous.nodes):
            which = cluster_options(self._directory)
            raise ConfigurationError(
                f"the cluster in {self._directory} runs already: look with `khepri-bridge status{which}`, "
                f"end it with `khepri-bridge down{which}`"
            )
        if running:
            self._report(f"ending {len(running)} processes that an interrupted start left behind")
            end_processes(running, grace=_STOP_SECONDS)
        if previous is None:
            with contextlib.suppress(ConfigurationError):
                previous = load_state(self._directory, ENDED_FILE)
        names = [f"hs{number}@{HOST}" for number in range(1, self._config.nodes + 1)]
        founded = [path.name for path in self._directory.glob("hs[1-9]") if holds_data(path)]
        if len(founded) > len(names):
            raise ConfigurationError(
                f"{self._directory} holds the data of {len(founded)} nodes, fewer may have no majority: "
                f"use --nodes {len(founded)}, or drop the data with `khepri-bridge down --erase`"
            )
        before = previous if founded else None
        is_default = self._config.instance == DEFAULT_INSTANCE
        return ClusterState(
            instance=before.instance if before and is_default else self._config.instance,
            store=before.store if before else self._config.store,
            epmd_port=before.epmd_port if before else 0,
            epmd=None,
            nodes=tuple(NodeRecord(name=name) for name in names),
        )

    def _start_all(self, state: ClusterState, release: Path) -> None:
        self._record(state)
        self._start_epmd()
        write_cookies(self._directory, state)
        founded = [node for node in state.nodes if holds_data(self._directory / node.short)]
        # Members with data need each other for a majority, so they start together; a fresh cluster is founded
        # by its first node, which the others then find ready to be joined.
        first = founded or [state.nodes[0]]
        for group in (first, [node for node in state.nodes if node not in first]):
            self._await_all([self._start(node, release, seed=self._seed_for(node)) for node in group])

    def _seed_for(self, node: NodeRecord) -> str:
        """The node that ``node`` joins through: the first one, which founds the cluster itself."""
        first = self.state.nodes[0].name
        return "" if node.name == first else first

    def _start_epmd(self) -> None:
        require_erlang()
        for attempt in range(1, _EPMD_ATTEMPTS + 1):
            # Servers and services that joined before look for it where it was.
            former = self.state.epmd_port if attempt == 1 else 0
            port = self._config.epmd_port or former or free_port()
            process = start_epmd(port, directory=self._directory, tied=not self._config.detached)
            if process is not None:
                self._record(replace(self.state, epmd_port=port, epmd=process))
                return
            if self._config.epmd_port is not None or attempt == _EPMD_ATTEMPTS:
                raise ConfigurationError(f"port {port} on {HOST} is in use: choose another with --epmd-port")

    def _start(
        self, node: NodeRecord, release: Path, *, seed: str, settings: Mapping[str, str] | None = None
    ) -> StartedMember:
        """Start one node and record it.

        Args:
            settings: variables that members share; ``None``: those of the configuration.
        """
        started = start_member(
            node,
            self.state,
            directory=self._directory,
            release=release,
            seed=seed,
            settings=self._config.environment if settings is None else settings,
            tied=not self._config.detached,
        )
        self._record(self.state.with_node(replace(node, process=started.process)))
        return started

    def _await_all(self, members: Sequence[StartedMember]) -> None:
        deadline = time.monotonic() + self._config.ready_seconds
        for member in members:
            await_ready(member, deadline)
            self._report(f"{member.name} is ready")

    def _record(self, state: ClusterState) -> None:
        self._state = state
        save_state(self._directory, state)

    def _end_everything(self) -> bool:
        """End nodes before the port mapper, then whatever carries the marker; the data stays."""
        state = self._state
        with contextlib.suppress(ConfigurationError):
            state = load_state(self._directory) or state
        recorded = [process for process in (state.processes if state else []) if is_running(process)]
        strays = [process for process in marked_processes(self._directory) if process not in recorded]
        epmd = state.epmd if state else None
        end_processes([process for process in [*recorded, *strays] if process != epmd], grace=_STOP_SECONDS)
        end_processes([process for process in recorded if process == epmd], grace=_STOP_SECONDS)
        end_processes(marked_processes(self._directory), grace=0.0)
        with contextlib.suppress(FileNotFoundError):
            (self._directory / STATE_FILE).replace(self._directory / ENDED_FILE)
        self._state = None
        return bool(recorded or strays)

    def _remove_temporary(self) -> None:
        if self._temporary and self._directory.name.startswith("khepri-bridge-"):
            shutil.rmtree(self._directory, ignore_errors=True)


def _say_nothing(_line: str) -> None:
    return None
