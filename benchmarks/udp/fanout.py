"""Fan-out: each tick one full datagram for each of a thousand peers, gathered from a world quantised once."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass

import numpy as np
import uvloop

from benchmarks.udp.bare_fanout import measure_bare_fan_out
from benchmarks.udp.crowd import OPTIONS, crowd_peers, generate_keys, run_crowd
from benchmarks.udp.processes import peer_process
from bridge.jose import Jwk
from bridge.udp import MAX_STATE_BYTES, UdpConfig, UdpEngine

PEERS = 1000
_PAUSE = 0.05
"""Seconds from a tick to the next: time for all answers to come."""
_RECORD_BYTES = 20
"""Of an entity, quantised."""
_ENTITIES = 20_000
_SEEN = MAX_STATE_BYTES // _RECORD_BYTES
"""Entities in a peer's datagram."""


@dataclass(frozen=True, slots=True)
class FanOut:
    """Milliseconds of one tick, medians; how many of the states arrived."""

    tick_ms: float
    """Gather, seal and send, for all peers."""
    tick_p99_ms: float
    tick_cpu_ms: float
    """Processor time of the same: what is left where others use the core too."""
    gather_ms: float
    answers_ms: float
    """Processor time between ticks: taking the peers' acknowledgements, and timers."""
    answer_us: float
    """The same for one of them."""
    whole_cpu_ms: float
    """Processor time of both, from one tick to the next: as many ticks a core can do."""
    loss: float
    bare_ms: float
    """The same datagrams gathered, sealed and sent without sessions: the limit of the machine."""


async def _run(
    keys: list[dict[str, object]], addresses: list[tuple[str, int]], identity: Jwk, ticks: int
) -> list[tuple[float, ...]]:
    random = np.random.default_rng(1)
    world = random.integers(0, 256, (_ENTITIES, _RECORD_BYTES), dtype=np.uint8)
    seen = random.integers(0, _ENTITIES, (PEERS, _SEEN))
    rows = np.zeros((PEERS, MAX_STATE_BYTES), dtype=np.uint8)
    times: list[tuple[float, ...]] = []
    async with UdpEngine(UdpConfig(**OPTIONS), identity=identity, on_event=lambda _event: None) as engine:
        for peer in crowd_peers(keys, addresses):
            engine.add_peer(peer)
        sessions = await asyncio.gather(*(engine.connect(f"peer{n}", timeout=60) for n in range(len(keys))))
        for _ in range(ticks):
            worked, heard = time.process_time(), engine.statistics().datagrams_received
            await asyncio.sleep(_PAUSE)
            answered = time.process_time() - worked
            answers = engine.statistics().datagrams_received - heard
            begun, worked = time.perf_counter(), time.process_time()
            rows[:, : _SEEN * _RECORD_BYTES] = world.take(seen, axis=0).reshape(PEERS, -1)
            gathered = time.perf_counter()
            engine.send_states(sessions, rows)
            whole, worked = time.perf_counter() - begun, time.process_time() - worked
            times.append((whole, worked, gathered - begun, answered, answered + worked, answers))
        await asyncio.sleep(0.5)
    return times


def measure_fan_out(ticks: int) -> FanOut:
    """Ticks for all peers, on one socket."""
    identity, keys = Jwk.generate(), generate_keys(PEERS)
    with peer_process(run_crowd, keys, identity.public().to_dict()) as pipe:
        times = uvloop.run(_run(keys, pipe.recv(), identity, ticks))
        pipe.send("states")
        states: int = pipe.recv()
        pipe.send("end")
    *columns, heard = zip(*times[1:], strict=True)
    whole, worked, gather, answers, total = (sorted(1000 * value for value in column) for column in columns)
    return FanOut(
        tick_ms=statistics.median(whole),
        tick_p99_ms=whole[int(len(whole) * 0.99)],
        tick_cpu_ms=statistics.median(worked),
        gather_ms=statistics.median(gather),
        answers_ms=statistics.median(answers),
        answer_us=1000 * sum(answers) / sum(heard),
        whole_cpu_ms=statistics.median(total),
        loss=1 - states / (PEERS * ticks),
        bare_ms=measure_bare_fan_out(
            ticks, peers=PEERS, entities=_ENTITIES, record_bytes=_RECORD_BYTES, pause=_PAUSE
        ),
    )
