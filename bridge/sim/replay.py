"""Replay of a match: every pass moves the ball's owner, and its authority when the servers differ.

A pass waits for the one before it. A pass that crosses is a push; a pass by somebody else than the last
receiver is an interception, and a pull where that player is on the other server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from bridge.authority import (
    Entry,
    Message,
    Violation,
    check,
    decode_entries,
    messages_per_transfer,
    transfers,
)
from bridge.errors import ConfigurationError, DeadlineError
from bridge.sim.driver import SimulationProcess
from bridge.sim.events import PeerSessionChanged, Problem, ServerEvent, StateAccepted
from bridge.sim.match import PITCH_METRES, Match, Pass, spread
from bridge.sim.stdio import Reported

BALL: Final = "ball"
_ACCEPT_SECONDS: Final = 60.0
"""how long a pass may take: a cluster that lost its leader or its network stands still for seconds"""
_CONNECT_SECONDS: Final = 30.0
_SETTLE_SECONDS: Final = 0.5
CENTRE: Final = (PITCH_METRES[0] / 2, PITCH_METRES[1] / 2)
"""metres; where players stand before the data says more about them"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a replay stands, for a progress line.

    Attributes:
        last_ms: latency of the newest transfer, milliseconds.
    """

    done: int
    total: int
    transfers: int
    last_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Milliseconds from a command to the first state accepted under the new authority; NaN without any."""

    p50_ms: float
    p95_ms: float
    p99_ms: float

    @classmethod
    def of(cls, samples: list[float]) -> Latencies:
        """Percentiles, interpolated linearly."""
        if not samples:
            return cls(p50_ms=float("nan"), p95_ms=float("nan"), p99_ms=float("nan"))
        p50, p95, p99 = np.percentile(np.array(samples), [50, 95, 99])
        return cls(p50_ms=float(p50), p95_ms=float(p95), p99_ms=float(p99))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a replay measured; the JSON object of the commands is made of it.

    Attributes:
        transfers: changes of server, interceptions included.
        passes_ms: of the passes that crossed.
        interceptions_ms: of the interceptions that crossed.
        double_holders: instants at which two servers acted for one entity, or epochs with two holders.
        lost_updates: acknowledged grants missing afterwards, reliable messages undelivered, and
            hand-overs whose state hash differs.
        violations: the counter-examples behind the two numbers above.
    """

    passes: int
    interceptions: int
    transfers: int
    messages_per_transfer: float
    passes_ms: Latencies
    interceptions_ms: Latencies
    late_refused: int
    double_holders: int
    lost_updates: int
    violations: tuple[Violation, ...]
    entries: tuple[Entry, ...]
    messages: tuple[Message, ...]


@dataclass(slots=True)
class _Samples:
    passes: list[float] = field(default_factory=list)
    interceptions: list[float] = field(default_factory=list)


class Replay:
    """One replay on running simulation servers.

    Args:
        match: what is played.
        speed: time lapse; 60 plays an hour in a minute.
        on_progress: called after each pass.
    """

    def __init__(self, match: Match, *, speed: float, on_progress: Callable[[Progress], None]) -> None:
        self._match = match
        self._speed = speed
        self._on_progress = on_progress
        self._servers: dict[str, SimulationProcess] = {}
        self._home: dict[str, str] = {}
        self._accepted: dict[int, int] = {}
        self._connected: set[str] = set()
        self._changed = asyncio.Event()
        self._samples = _Samples()
        self._transfers = 0
        self.problems: list[str] = []

    def on_event(self, server: str, event: ServerEvent) -> None:
        """Take an event of a server; to be given to its ``SimulationProcess``."""
        match event:
            case StateAccepted(entity=entity, epoch=epoch, at_ns=at_ns) if entity == BALL:
                self._accepted.setdefault(epoch, at_ns)
            case PeerSessionChanged(up=True):
                self._connected.add(server)
            case PeerSessionChanged(up=False):
                self._connected.discard(server)
            case Problem(text=text):
                self.problems.append(f"{server}: {text}")
            case _:
                pass
        self._changed.set()

    async def run(self, servers: dict[str, SimulationProcess]) -> None:
        """Play the match on two or more started servers.

        Raises:
            BridgeError: a server refused a command, ended, or a pass took more than a minute.
        """
        self._servers = servers
        self._home = spread(self._match.players, tuple(sorted(servers)))
        await self._until(lambda: len(self._connected) == len(servers), _CONNECT_SECONDS, "UDP sessions")
        await self._kick_off()
        loop = asyncio.get_running_loop()
        begin, first = loop.time(), self._match.passes[0].start
        holder = self._match.passes[0].passer
        for one in self._match.passes:
            await asyncio.sleep(begin + (one.start - first) / self._speed - loop.time())
            if one.passer != holder:
                await self._intercept(one, holder)
            last_ms = await self._pass(one)
            holder = one.receiver
            self._on_progress(
                Progress(
                    done=one.number,
                    total=len(self._match.passes),
                    transfers=self._transfers,
                    last_ms=last_ms,
                )
            )

    async def outcome(self, final_epochs: dict[str, int]) -> Outcome:
        """Collect the records of all servers and check them.

        Args:
            final_epochs: the homeserver's epoch of each entity, read after the last pass.

        Raises:
            ConfigurationError: a server did not keep its whole history.
        """
        # The last hand-over's late records must be refused before they are counted.
        await asyncio.sleep(_SETTLE_SECONDS)
        reports = {name: await server.report() for name, server in self._servers.items()}
        for name, report in reports.items():
            if report.dropped:
                raise ConfigurationError(
                    f"{name} has not kept {report.dropped} of its records: start it with --keep-history"
                )
        entries = decode_entries(line for report in reports.values() for line in report.history)
        messages = [message for report in reports.values() for message in report.messages]
        verdict = check(entries, final_epochs=final_epochs)
        grouped = [t for t in transfers(messages) if t.case != "other"]
        return Outcome(
            passes=len(self._match.passes),
            interceptions=self._match.interceptions,
            transfers=self._transfers,
            messages_per_transfer=messages_per_transfer(grouped),
            passes_ms=Latencies.of(self._samples.passes),
            interceptions_ms=Latencies.of(self._samples.interceptions),
            late_refused=sum(report.verdicts.get("late", 0) for report in reports.values()),
            double_holders=len(verdict.double_holders) + len(verdict.stale_acceptances),
            lost_updates=len(verdict.lost_grants) + len(verdict.changed_states) + undelivered(reports),
            violations=tuple(verdict.violations),
            entries=tuple(entries),
            messages=tuple(messages),
        )

    async def _kick_off(self) -> None:
        first = self._match.passes[0]
        x, y = first.origin
        await self._servers[self._home[first.passer]].spawn(BALL, owner=first.passer, position=(x, y, 0.0))
        await asyncio.gather(
            *(
                self._servers[self._home[player]].spawn(player, owner=player, position=(*CENTRE, 0.0))
                for player in self._match.players
            )
        )

    async def _intercept(self, one: Pass, holder: str) -> None:
        taker = self._home[one.passer]
        if taker == self._home[holder]:
            await self._kick(one, owner=one.passer, to=taker, velocity=(0.0, 0.0, 0.0))
            return
        begin_ns = time.monotonic_ns()
        epoch = await self._servers[taker].take(BALL, owner=one.passer)
        self._samples.interceptions.append(await self._first_state(epoch, begin_ns))
        self._transfers += 1

    async def _pass(self, one: Pass) -> float | None:
        to = self._home[one.receiver]
        begin_ns = time.monotonic_ns()
        epoch = await self._kick(one, owner=one.receiver, to=to, velocity=one.velocity)
        if to == self._home[one.passer]:
            return None
        last_ms = await self._first_state(epoch, begin_ns)
        self._samples.passes.append(last_ms)
        self._transfers += 1
        return last_ms

    async def _kick(self, one: Pass, *, owner: str, to: str, velocity: tuple[float, float, float]) -> int:
        x, y = one.origin
        server = self._servers[self._home[one.passer]]
        return await server.kick(BALL, owner=owner, to=to, position=(x, y, 0.0), velocity=velocity)

    async def _first_state(self, epoch: int, begin_ns: int) -> float:
        await self._until(lambda: epoch in self._accepted, _ACCEPT_SECONDS, f"state at epoch {epoch}")
        return (self._accepted[epoch] - begin_ns) / 1e6

    async def _until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            last = f" (last: {self.problems[-1]})" if self.problems else ""
            raise DeadlineError(f"no {what} within {seconds:.0f} s{last}") from None


def undelivered(reports: dict[str, Reported]) -> int:
    """Reliable messages that were sent and never arrived, from both ends' counts."""
    missing = 0
    for sender, report in reports.items():
        for receiver, sent in report.sent.items():
            if receiver in reports:
                missing += max(0, sent - reports[receiver].received.get(sender, 0))
    return missing
