"""A match on three homeservers and two simulation servers in containers: whole, with a death, with a cut.

The driver runs outside the containers. Time stamps compare all the same: CLOCK_MONOTONIC is the kernel's, and
containers of one host share it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from bridge.cli.record import write_record
from bridge.sim.driver import SimulationProcess
from bridge.sim.match import Match, generate_match
from bridge.sim.replay import Outcome, Progress, Replay
from tests.support.containers import CommandError, Homeservers, homeservers, node_name
from tests.support.docker import docker_client, homeserver_image, simulation_image

__all__ = ["docker_client", "homeserver_image", "homeservers", "simulation_image"]

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(300)]

MEMBERS: Final = ("hs1", "hs2", "hs3")
SIMULATIONS: Final = ("sim1", "sim2")
PASSES: Final = 60
SECONDS: Final = 8.0
CUT_SECONDS: Final = 16.0
"""long enough that the others give up the connection to a node that is cut off (KB_TICKTIME, 8 s)"""
DISTURBED_AT: Final = 12
"""passes played before something is taken away"""
HEALED_AT: Final = 40
"""passes played before it comes back: those between went on without it, each within the replay's own limit"""
AGREE_SECONDS: Final = 60.0
REPORT_SECONDS: Final = 60.0


class Stage:
    """The cluster, two idle containers for simulation servers, and where evidence is left."""

    def __init__(self, cluster: Homeservers, image: str, evidence: Path) -> None:
        self.cluster = cluster
        self.evidence = evidence
        cluster.start_cluster(*MEMBERS)
        for name in SIMULATIONS:
            # Idle: the driver starts the server in it, over pipes.
            environment = {"KB_COOKIE": cluster.cookie}
            cluster.run(name, image, ["infinity"], entrypoint=["sleep"], init=True, environment=environment)

        leader = cluster.leader(MEMBERS[0])
        # The leader first: it is sim1's gateway. The second one is sim2's.
        self.members = (leader, *(name for name in MEMBERS if name != leader))

    def command(self, name: str) -> list[str]:
        """Starts a simulation server in its container, for a driver.

        By the command ``docker``, not by its library: the driver wants a process with pipes, and those of
        ``docker exec`` close from both ends as a process's own do.
        """
        turn = SIMULATIONS.index(name)
        members = [node_name(member) for member in (*self.members[turn:], *self.members[:turn])]
        return [
            *("docker", "exec", "--interactive", self.cluster.containers[name].id, "simulation-entrypoint"),
            *("sim", "--name", name, "--node", node_name(name), "--host", self.cluster.address(name)),
            *(word for member in members for word in ("--member", member)),
            *("--linger-ms", "200", "--keep-history", "--commands"),
        ]

    def keep_evidence(self) -> None:
        """Leave the logs of all containers."""
        for name, container in self.cluster.containers.items():
            (self.evidence / f"{name}.log").write_text(container.logs())


@pytest.fixture
def stage(homeservers: Homeservers, simulation_image: str, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(homeservers, simulation_image, tmp_path)
    try:
        yield made
    finally:
        made.keep_evidence()


class Score:
    """How many passes have been played."""

    def __init__(self) -> None:
        self._done = 0
        self._changed = asyncio.Event()

    def take(self, progress: Progress) -> None:
        self._done = progress.done
        self._changed.set()

    async def reaches(self, passes: int) -> None:
        while self._done < passes:
            self._changed.clear()
            await self._changed.wait()


async def nothing(score: Score) -> None:
    del score


async def play(
    stage: Stage,
    match: Match,
    *,
    seconds: float,
    disturb: Callable[[Score], Coroutine[Any, Any, None]] = nothing,
) -> Outcome:
    """Play a match in so many seconds while ``disturb`` runs beside it, and leave the record as evidence."""
    score = Score()
    replay = Replay(match, speed=match.seconds / seconds, on_progress=score.take)
    async with AsyncExitStack() as stack:
        servers = {}
        for name in SIMULATIONS:
            servers[name] = SimulationProcess(name, stage.command(name), replay.on_event)
            stack.push_async_callback(servers[name].close)
        await asyncio.gather(*(server.start() for server in servers.values()))
        epochs: dict[str, int] = {}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(replay.run(servers))
                group.create_task(disturb(score))
            # Asked through the one that no test disturbs.
            epochs = await asyncio.to_thread(stage.cluster.epochs, stage.members[2])
        finally:
            async with asyncio.timeout(REPORT_SECONDS):
                outcome = await replay.outcome(epochs)
            write_record(stage.evidence, outcome.entries, outcome.messages)
            (stage.evidence / "problems.txt").write_text("\n".join(replay.problems))
    return outcome


def disagreement(stage: Stage) -> str:
    """What the homeservers do not agree on; empty where they do."""
    cluster = stage.cluster
    try:
        for name in MEMBERS:
            others = sorted(node_name(other) for other in MEMBERS if other != name)
            if (peers := cluster.peers(name)) != others:
                return f"{name} is connected to {peers}"
        leaders = {name: cluster.leader(name) for name in MEMBERS}
        if len(set(leaders.values())) != 1 or not set(leaders.values()) <= set(MEMBERS):
            return f"leaders: {leaders}"
        first, *rest = (set(cluster.entities(name).items()) for name in MEMBERS)
    except CommandError as error:
        return str(error)
    return "\n".join(f"{MEMBERS[0]} and another: {first ^ other}" for other in rest if other != first)


async def await_agreement(stage: Stage) -> None:
    """Wait until all three are connected, have one leader, and hold the same record of every entity."""
    found = ""
    try:
        async with asyncio.timeout(AGREE_SECONDS):
            while found := await asyncio.to_thread(disagreement, stage):
                await asyncio.sleep(0.2)
    except TimeoutError:
        pytest.fail(f"no agreement within {AGREE_SECONDS:.0f} s: {found}")


def assert_nothing_was_lost(outcome: Outcome) -> None:
    assert outcome.violations == ()
    assert (outcome.double_holders, outcome.lost_updates) == (0, 0)
    assert outcome.transfers > 0


@pytest.fixture
def match() -> Match:
    return generate_match(passes=PASSES, seconds=PASSES * 7.0, seed=7)


async def test_a_match_in_containers_keeps_every_promise(stage: Stage, match: Match) -> None:
    outcome = await play(stage, match, seconds=SECONDS)
    assert_nothing_was_lost(outcome)
    assert outcome.passes == PASSES
    assert outcome.messages_per_transfer == 4.0
    assert outcome.late_refused > 0
    assert sorted(stage.cluster.health("hs1")["members"]) == [node_name(name) for name in MEMBERS]


async def test_passes_go_on_when_the_leader_is_killed_and_it_rejoins(stage: Stage, match: Match) -> None:
    """R0-25 and R0-26: the leader, at the same time one simulation server's gateway, dies without a word."""
    leader = stage.members[0]

    async def kill_and_start(score: Score) -> None:
        await score.reaches(DISTURBED_AT)
        await asyncio.to_thread(stage.cluster.containers[leader].kill)
        await score.reaches(HEALED_AT)
        await asyncio.to_thread(stage.cluster.containers[leader].start)
        await asyncio.to_thread(stage.cluster.await_ready, leader, times=2)

    outcome = await play(stage, match, seconds=SECONDS, disturb=kill_and_start)
    assert_nothing_was_lost(outcome)
    await await_agreement(stage)


@pytest.mark.parametrize("turn", [0, 1], ids=["leader", "follower"])
async def test_passes_go_on_when_a_homeserver_is_cut_off_and_it_catches_up(
    stage: Stage, match: Match, turn: int
) -> None:
    """A cut is worse than a death: sockets stay open, and what is behind them goes on running.

    Either of the two is the gateway of a simulation server.
    """
    cut, witness = stage.members[turn], stage.members[2]
    leaders: list[str] = []

    async def cut_and_reconnect(score: Score) -> None:
        await score.reaches(DISTURBED_AT)
        await asyncio.to_thread(stage.cluster.cut_off, cut)
        await score.reaches(HEALED_AT)
        # Only now is it certain that both sides must find each other again.
        while node_name(cut) in await asyncio.to_thread(stage.cluster.peers, witness):
            await asyncio.sleep(0.1)
        leaders.append(await asyncio.to_thread(stage.cluster.leader, witness))
        await asyncio.to_thread(stage.cluster.reconnect, cut)

    outcome = await play(stage, match, seconds=CUT_SECONDS, disturb=cut_and_reconnect)
    assert_nothing_was_lost(outcome)
    assert leaders[0] != cut
    await await_agreement(stage)
    # Erlang's own words for a lost connection; that of the two members that were never cut must have held. A
    # simulation server that has gone on to another member leaves an idle connection, which that one ends.
    lost = set(re.findall(r"Node '([^']+)' not responding", stage.cluster.containers[witness].logs()))
    assert lost & {node_name(member) for member in stage.members} <= {node_name(cut)}
