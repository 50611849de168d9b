"""A thousand players in one world of 100,000 moving entities, served by one core.

Each tick the world moves, is rounded once, and each player is sent its nearest entities in full, and one
datagram of compact records of those that follow them: as many of these as make the far budget, each twice a
second. Who is nearest is found anew for each player twice a second, for another part of the players in each
tick. Everything is sealed for its player and sent to a socket of its own, in a process on the other core.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import uvloop

from benchmarks.state import BOX_BYTES, FRAME_BYTES, UDP_IP_BYTES
from benchmarks.udp.crowd import OPTIONS, crowd_peers, generate_keys, run_crowd
from benchmarks.udp.processes import peer_process
from bridge.jose import Jwk
from bridge.replication import (
    COMPACT,
    FULL,
    NearestGrid,
    Payloads,
    Records,
    States,
    World,
    compact_records,
    encode_payloads,
    full_records,
    records_per_payload,
)
from bridge.udp import Session, UdpConfig, UdpEngine

NEAR: Final = 1_000
"""entities that a player is told in full"""
FAR_HZ: Final = 2
"""how often a player is told of each of the far ones"""
FAR_BITS: Final = 100_000
"""a second for those, of each player"""
_AROUND: Final = FRAME_BYTES + BOX_BYTES + UDP_IP_BYTES
"""bytes of a datagram beside its payload"""
_EXTENT: Final = 2_000.0
"""metres: the world reaches so far each way"""
_TOWNS: Final = 20
_TOWN_SIZE: Final = 80.0
_CELL: Final = 40.0
_SPEED: Final = 5.0
_TOGETHER: Final = 50
"""players whose datagrams are packed, sealed and sent at once: what they take stays in the core's cache"""
_LOOK: Final = 0.05
"""seconds between questions to the players how much has come"""
_QUIET: Final = 1.0
_PATIENCE: Final = 30.0
"""seconds without anything, and in all, until what players have not received counts as lost"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What fits the far budget of a player, in whole datagrams.

    Attributes:
        rate_hz: ticks a second.
        cycle: ticks in which each far entity comes once.
        far_per_tick: far entities in a player's datagram; one goes in each tick.
        far: far entities of a player.
    """

    rate_hz: int
    cycle: int
    far_per_tick: int
    far: int

    @classmethod
    def of(cls, rate_hz: int) -> Plan:
        """For so many ticks a second, of which each carries one datagram of far entities."""
        room = FAR_BITS / 8 / rate_hz - _AROUND - 8
        per = min(records_per_payload(COMPACT), int(room) // COMPACT.itemsize)
        cycle = rate_hz // FAR_HZ
        return cls(rate_hz=rate_hz, cycle=cycle, far_per_tick=per, far=per * cycle)


class _Steps:
    """Milliseconds of processor time of each step, a sum for each tick."""

    def __init__(self) -> None:
        self.ticks: list[dict[str, float]] = []

    def begin(self) -> None:
        self.ticks.append({})

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        begun = time.process_time()
        yield
        tick = self.ticks[-1]
        tick[name] = tick.get(name, 0.0) + 1000 * (time.process_time() - begun)

    def medians(self, skipped: int) -> dict[str, float]:
        """Without the first ticks: who is nearest is found for all players then."""
        ticks = self.ticks[skipped:]
        return {name: round(statistics.median(tick[name] for tick in ticks), 2) for name in ticks[0]}


class _Scene:
    """Entities and players that walk about, half of each in towns.

    A handle has 16 bits, so that those of more entities than 65,536 are used twice; the bytes are the same.
    """

    def __init__(self, entities: int, players: int) -> None:
        random = np.random.default_rng(5)
        towns = random.uniform(-0.9 * _EXTENT, 0.9 * _EXTENT, (_TOWNS, 2))
        self._all = np.arange(entities)
        self._handles = (self._all & 0xFFFF).astype(np.uint16)
        self._epochs = np.full(entities, 7, dtype=np.uint64)
        self._positions = _places(random, towns, entities)
        self._velocities = np.append(
            random.uniform(-_SPEED, _SPEED, (entities, 2)), np.zeros((entities, 1)), axis=1
        )
        rotations = random.normal(size=(entities, 4))
        self._rotations = rotations / np.linalg.norm(rotations, axis=1, keepdims=True)
        self._spins = random.normal(0, 1, (entities, 3))
        self._world = World(bytearray(World.size(entities)), entities)
        # Players walk with one of the entities each.
        self._players = np.linspace(0, entities - 1, players).astype(np.intp)
        self._tick = 0

    def move(self, seconds: float) -> None:
        self._tick += 1
        self._positions += self._velocities * seconds
        beyond = np.abs(self._positions) > _EXTENT
        self._velocities[beyond] *= -1
        self._world.store(
            self._all,
            States(
                ticks=np.full(len(self._all), self._tick, dtype=np.uint64),
                positions=self._positions,
                rotations=self._rotations,
                velocities=self._velocities,
                angular_velocities=self._spins,
                flags=np.zeros(len(self._all), dtype=np.uint8),
            ),
        )

    def records(self) -> tuple[Records, Records]:
        """The world rounded, in full and compact."""
        states = self._world.gather(self._all)
        return full_records(self._handles, self._epochs, states), compact_records(
            self._handles, self._epochs, states
        )

    def nearest(self, players: npt.NDArray[np.intp], count: int, divide: int) -> npt.NDArray[np.intp]:
        """The nearest ``count`` entities to each of these players."""
        grid = NearestGrid(self._positions, side=_CELL)
        return grid.nearest(self._positions[self._players[players]], count, divide=divide)

    @property
    def tick(self) -> int:
        return self._tick


def _places(random: np.random.Generator, towns: npt.NDArray[np.float64], count: int) -> Any:
    """Half of them anywhere, half in towns; up to 30 m high."""
    ground = random.uniform(-_EXTENT, _EXTENT, (count, 2))
    inside = random.random(count) < 0.5
    in_town = towns[random.integers(0, _TOWNS, count)] + random.normal(0, _TOWN_SIZE, (count, 2))
    ground[inside] = np.clip(in_town[inside], -_EXTENT, _EXTENT)
    return np.append(ground, random.uniform(0, 30, (count, 1)), axis=1)


class _Serving:
    """What one core does in a tick."""

    def __init__(self, scene: _Scene, plan: Plan, sessions: list[Session], near: int, steps: _Steps) -> None:
        self._scene = scene
        self._plan = plan
        self._sessions = sessions
        self._steps = steps
        self._players = np.arange(len(sessions))
        self._near = np.zeros((len(sessions), near), dtype=np.intp)
        self._far = np.zeros((len(sessions), plan.far), dtype=np.intp)
        self._is_first = True
        self.datagrams = 0

    def tick(self, engine: UdpEngine) -> None:
        steps, scene, plan = self._steps, self._scene, self._plan
        steps.begin()
        with steps.step("move"):
            scene.move(1 / plan.rate_hz)
        with steps.step("quantise"):
            full, compact = scene.records()
        turns = (scene.tick + self._players) % plan.cycle
        with steps.step("select"):
            self._select(self._players if self._is_first else np.flatnonzero(turns == 0))
        self._is_first = False
        for start in range(0, len(self._sessions), _TOGETHER):
            some = self._players[start : start + _TOGETHER]
            with steps.step("pack"):
                batches = self._pack(full, compact, some, turns[some])
            with steps.step("send"):
                self._send(engine, some, batches)

    def _select(self, players: npt.NDArray[np.intp]) -> None:
        near = self._near.shape[1]
        found = self._scene.nearest(players, near + self._plan.far, near)
        self._near[players], self._far[players] = found[:, :near], found[:, near:]

    def _pack(
        self,
        full: Records,
        compact: Records,
        players: npt.NDArray[np.intp],
        turns: npt.NDArray[np.intp],
    ) -> list[Payloads]:
        """Payloads of these players, shape (players, datagrams, bytes): full ones, the rest, far ones."""
        tick, per = self._scene.tick, records_per_payload(FULL)
        near = full.take(self._near[players])
        whole = near.shape[1] // per * per
        window = turns[:, None] * self._plan.far_per_tick + np.arange(self._plan.far_per_tick)
        far = compact.take(np.take_along_axis(self._far[players], window, axis=1))
        parts = [near[:, :whole].reshape(-1, per), near[:, whole:], far]
        return [
            encode_payloads(part, tick=tick).reshape(len(players), -1, 8 + part.shape[1] * part.itemsize)
            for part in parts
            if part.size
        ]

    def _send(self, engine: UdpEngine, players: npt.NDArray[np.intp], batches: list[Payloads]) -> None:
        sessions = [self._sessions[player] for player in players.tolist()]
        stream = 0
        for batch in batches:
            if batch.shape[1] == 1:
                engine.send_states(sessions, batch[:, 0], stream)
            else:
                for session, payloads in zip(sessions, batch, strict=True):
                    session.send_state(payloads, stream)
                engine.flush()
            stream += batch.shape[1]
        self.datagrams += stream * len(sessions)


async def _run(
    pipe: Connection,
    keys: list[dict[str, Any]],
    identity: Jwk,
    scene: _Scene,
    plan: Plan,
    ticks: int,
    near: int,
) -> dict[str, Any]:
    addresses: list[tuple[str, int]] = pipe.recv()
    steps = _Steps()
    waits = 0
    async with UdpEngine(UdpConfig(**OPTIONS), identity=identity, on_event=lambda _event: None) as engine:
        for peer in crowd_peers(keys, addresses):
            engine.add_peer(peer)
        sessions = await asyncio.gather(*(engine.connect(f"peer{n}", timeout=60) for n in range(len(keys))))
        before = sum(session.statistics().bytes_sent for session in sessions)
        serving = _Serving(scene, plan, sessions, near, steps)
        arrived = 0
        for _ in range(plan.cycle + ticks):
            serving.tick(engine)
            waits += sum(session.states_waiting for session in sessions)
            with steps.step("answers"):
                arrived = await _arrived(pipe, serving.datagrams, arrived)
        sent = sum(session.statistics().bytes_sent for session in sessions) - before
    return {
        "steps": steps.medians(plan.cycle),
        "first_select_ms": round(steps.ticks[0]["select"], 1),
        "udp_bytes_per_tick": sent / len(sessions) / (plan.cycle + ticks),
        "datagrams_per_tick": serving.datagrams // (plan.cycle + ticks),
        "states_held_back": waits,
        "loss": 1 - arrived / serving.datagrams,
    }


async def _arrived(pipe: Connection, sent: int, before: int) -> int:
    """How many states the players have once they have all of them, or no more come."""
    begun = last = time.monotonic()
    arrived = before
    while arrived < sent and time.monotonic() - last < _QUIET and last - begun < _PATIENCE:
        await asyncio.sleep(_LOOK)
        pipe.send("states")
        await _readable(pipe)
        now: int = pipe.recv()
        if now > arrived:
            arrived, last = now, time.monotonic()
    return arrived


async def _readable(pipe: Connection) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pipe.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(pipe.fileno())


def measure_crowd(
    *, entities: int = 100_000, players: int = 1_000, near: int = NEAR, rate_hz: int = 10, ticks: int = 15
) -> dict[str, Any]:
    """Milliseconds of a tick on one core, and bytes of a player and an entity.

    Args:
        entities: in the world, all of them moving.
        players: each with a socket of its own.
        near: entities that each is told in full.
        rate_hz: ticks a second that the amounts are for.
        ticks: measured ones; those of one cycle go before them.
    """
    plan = Plan.of(rate_hz)
    identity, keys = Jwk.generate(), generate_keys(players)
    streams = math.ceil(near / records_per_payload(FULL)) + 1
    with peer_process(run_crowd, keys, identity.public().to_dict(), streams) as pipe:
        scene = _Scene(entities, players)
        measured = uvloop.run(_run(pipe, keys, identity, scene, plan, ticks, near))
        pipe.send("end")
    return _result(measured, plan, entities=entities, players=players, near=near, ticks=ticks)


def _players_at_rate(steps: dict[str, float], plan: Plan, players: int) -> int:
    """How many one core would serve at the rate; moving and rounding the world costs the same for any."""
    fixed = steps["move"] + steps["quantise"]
    each = (sum(steps.values()) - fixed) / players
    return max(0, int((1000 / plan.rate_hz - fixed) / each))


def _result(
    measured: dict[str, Any], plan: Plan, *, entities: int, players: int, near: int, ticks: int
) -> dict[str, Any]:
    steps = measured["steps"]
    tick_ms = sum(steps.values())
    per = records_per_payload(FULL)
    near_bytes = near * FULL.itemsize + math.ceil(near / per) * (8 + _AROUND)
    far_bytes = plan.far_per_tick * COMPACT.itemsize + 8 + _AROUND
    others = entities - near
    far_bytes_each = far_bytes / plan.far_per_tick
    kilobits = 8 * plan.rate_hz / 1000
    return {
        "entities": entities,
        "players": players,
        "rate_hz": plan.rate_hz,
        "ticks": ticks,
        "steps_ms": steps,
        "tick_ms": round(tick_ms, 1),
        "ticks_per_s_one_core": round(1000 / tick_ms, 2),
        "players_at_rate": _players_at_rate(steps, plan, players),
        "first_select_ms": measured["first_select_ms"],
        "datagrams_per_player": round(measured["datagrams_per_tick"] / players, 2),
        "near": {
            "entities": near,
            "bytes_per_entity": round(near_bytes / near, 1),
            "kbit_s": round(near_bytes * kilobits, 1),
        },
        "far": {
            "entities": plan.far,
            "hz": FAR_HZ,
            "bytes_per_entity": round(far_bytes_each, 1),
            "kbit_s": round(far_bytes * kilobits, 1),
            "share_of_others": round(plan.far / others, 5),
            "kbit_s_for_all_others": round(others * far_bytes_each * 8 * FAR_HZ / 1000),
            "seconds_to_tell_all_others_once": round(others / (plan.far_per_tick * plan.rate_hz)),
        },
        "kbit_s_counted": round(
            (measured["udp_bytes_per_tick"] + UDP_IP_BYTES * measured["datagrams_per_tick"] / players)
            * kilobits,
            1,
        ),
        "states_held_back": measured["states_held_back"],
        "loss": round(measured["loss"], 5),
    }
