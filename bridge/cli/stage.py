"""The stage of a replay: a cluster, two simulation servers, the match on them, and the table at the end."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections.abc import Container, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge.cli.connection import store_client
from bridge.cli.output import emit, progress
from bridge.cli.record import make_directory, write_record
from bridge.cli.score import result_object, result_table
from bridge.cluster.directory import read_cookie
from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.cluster.running import running_cluster
from bridge.cluster.state import cluster_options
from bridge.errors import BridgeError, ConfigurationError
from bridge.khepri import Khepri
from bridge.registry import EntityRecord, Rule
from bridge.sim.driver import SimulationProcess
from bridge.sim.match import Match
from bridge.sim.replay import BALL, Progress, Replay
from bridge.udp import NetworkConditions

SERVERS: Final = ("sim1", "sim2")
_PROGRESS_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where a match is played: a cluster of this machine."""

    directory: Path
    members: tuple[str, ...]
    cookie: str
    epmd_port: int
    store: str


async def play(
    match: Match,
    *,
    speed: float,
    linger_ms: int,
    network: NetworkConditions | None,
    directory: Path | None,
    lease_ms: int | None,
    sims: tuple[str, ...],
    record: Path | None,
    as_json: bool,
) -> None:
    """Replay a match and print what came of it.

    Args:
        match: what is played.
        speed: time lapse.
        linger_ms: how long former holders send on.
        network: what datagrams between the two servers on this machine go through, both ways.
        directory: of a running cluster; ``None`` starts one of three nodes for this replay.
        lease_ms: of sessions, where a cluster is started.
        sims: ``NAME=COMMAND`` of simulation servers to use instead of two on this machine.
        record: where to leave history and messages.
        as_json: print one object instead of the table.

    Raises:
        BridgeError: the cluster or a server could not start, or a pass failed for good.
    """
    if record is not None:
        make_directory(record)
    with cluster_stage(directory, lease_ms=lease_ms) as stage:
        progress(
            f"{match.source}: {len(match.passes)} passes of {len(match.players)} players in "
            f"{match.seconds / speed:.0f} s, two servers, {len(stage.members)} homeservers"
            f"{'' if network is None else f', network {network}'}"
        )
        replay = Replay(match, speed=speed, on_progress=_Ticker())
        commands = simulation_commands(stage, sims, linger_ms=linger_ms, network=network)
        if directory is not None:
            async with store_client(directory, running_cluster(directory)) as store:
                refuse_others(await _entities(store), {BALL, *match.players}, commands, directory)
        async with AsyncExitStack() as stack:
            servers = {}
            for name, command in commands.items():
                servers[name] = SimulationProcess(name, command, replay.on_event)
                stack.push_async_callback(servers[name].close)
            await asyncio.gather(*(server.start() for server in servers.values()))
            began = time.monotonic()
            await replay.run(servers)
            seconds = time.monotonic() - began
            async with store_client(stage.directory, running_cluster(stage.directory)) as store:
                health = await store.health(timeout=10.0)
                outcome = await replay.outcome(await _final_epochs(store))
        if record is not None:
            write_record(record, outcome.entries, outcome.messages)
        for violation in outcome.violations:
            progress(f"VIOLATED {violation.rule}: {violation.text}")
        result = result_object(outcome, health, match=match, seconds=seconds)
        emit(result, as_json=as_json, text=result_table(outcome, health, match=match, seconds=seconds))
    if outcome.double_holders or outcome.lost_updates:
        raise BridgeError(f"{outcome.double_holders} double holders, {outcome.lost_updates} lost updates")


class _Ticker:
    """Prints a line of progress at most once a second."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, now: Progress) -> None:
        clock = time.monotonic()
        if clock - self._last < _PROGRESS_SECONDS and now.done < now.total:
            return
        self._last = clock
        latency = "" if now.last_ms is None else f", last {now.last_ms:.1f} ms"
        progress(f"pass {now.done}/{now.total}, {now.transfers} transfers{latency}")


@contextmanager
def cluster_stage(directory: Path | None, *, lease_ms: int | None = None) -> Iterator[Stage]:
    """The running cluster of a directory; without one, a cluster of three nodes that ends with the block."""
    if directory is not None:
        yield _running(directory)
        return
    config = LocalClusterConfig(
        nodes=3, environment={"KB_LEASE_MS": "" if lease_ms is None else str(lease_ms)}
    )
    with LocalCluster(config, progress) as cluster:
        yield _running(cluster.directory)


def _running(directory: Path) -> Stage:
    state = running_cluster(directory)
    return Stage(
        directory=directory,
        members=tuple(node.name for node in state.nodes),
        cookie=read_cookie(directory, state),
        epmd_port=state.epmd_port,
        store=state.store,
    )


def simulation_commands(
    stage: Stage, sims: tuple[str, ...], *, linger_ms: int, network: NetworkConditions | None
) -> dict[str, list[str]]:
    """Command line of each simulation server, by name.

    Args:
        stage: the cluster of this machine that servers without a command of their own join.
        sims: ``NAME=COMMAND`` of servers elsewhere, two or more; none starts two here.
        linger_ms: how long former holders send on; a ``COMMAND`` says it for itself.
        network: what the two servers here send through; a ``COMMAND`` says it for itself.

    Raises:
        ConfigurationError: fewer than two, one that does not parse, or a network for servers elsewhere.
    """
    if not sims:
        base = [sys.executable, "-m", "bridge.cli", "sim", "--dir", str(stage.directory), "--commands"]
        base += ["--keep-history"]
        base += ["--linger-ms", str(linger_ms)]
        if network is not None:
            base += ["--network", str(network)]
        return {name: [*base, "--name", name] for name in SERVERS}
    if network is not None:
        raise ConfigurationError("--network is for servers started here: write it into each COMMAND of --sim")
    commands = {}
    for sim in sims:
        name, _, command = sim.partition("=")
        try:
            commands[name] = shlex.split(command)
        except ValueError as error:
            raise ConfigurationError(f"--sim {sim!r}: {error}") from error
        if not commands[name]:
            raise ConfigurationError(f"--sim {sim!r}: write NAME=COMMAND")
    if len(commands) < 2:
        raise ConfigurationError("a replay needs two simulation servers: give --sim twice")
    return commands


def refuse_others(
    records: Iterable[EntityRecord], names: Container[str], servers: Container[str], directory: Path
) -> None:
    """A match takes entities of its names; that they are somebody's would show only in the middle of it.

    Args:
        records: of all entities of the cluster.
        names: that the match uses.
        servers: that play it.
        directory: of the cluster.

    Raises:
        ConfigurationError: one is held by another server, or has a rule that lets nobody take it.
    """
    for record in records:
        is_held = record.server is not None and record.server not in servers
        if record.entity in names and (is_held or record.rule is not Rule.ALLOW):
            command = f"khepri-bridge entity delete {shlex.quote(record.entity)}{cluster_options(directory)}"
            raise ConfigurationError(
                f"the match needs the name {record.entity!r}, which an entity of somebody else has in this "
                f"cluster: `{command}`, or name another cluster with --name"
            )


async def _final_epochs(store: Khepri) -> dict[str, int]:
    return {record.entity: record.epoch for record in await _entities(store)}


async def _entities(store: Khepri) -> list[EntityRecord]:
    # "consistency" asks the leader, so that an acknowledged grant cannot be missing from a slow follower.
    nodes = await store.get_many("/:bridge/:entities/*", favor="consistency", timeout=20.0)
    return [EntityRecord.from_term(data) for data in nodes.values() if data is not None]
