"""State payloads: rates of the layouts, and 901 cubes at 60 Hz as differences; prints one line of JSON.

The cubes are a synthetic scene (``benchmarks/cubes.py``). They are streamed to one player over a link with a
round trip and loss, acknowledgements taken as the datagram session tells them. ``kbit_s`` counts all that is
on the wire: payload, frame, box, UDP and IP; ``kbit_s_payload`` the payloads alone. Entropy coders are tried
on the same numbers: ``zstandard`` over the payloads with a dictionary trained on another run, and
``constriction``'s range coder with tables from another run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final

import constriction  # type: ignore[import-untyped]  # it has no stubs
import numpy as np
import numpy.typing as npt
import zstandard

from benchmarks.cubes import CUBES, TICK_RATE, Cubes
from bridge.replication import (
    Records,
    SnapshotReceiver,
    SnapshotSender,
    States,
    View,
    compact_records,
    decode_payloads_untrusted,
    encode_payloads,
    full_records,
    records_per_payload,
)
from bridge.replication.bits import bit_lengths
from bridge.replication.delta import Differences, FieldBits, differences
from bridge.replication.seats import COLUMNS, GROUP_SEATS, Rows, empty_rows, handles_of, rows_of, seen_states

CELL_SIDE: Final = 10
"""small cubes along one side of a group"""
GROUPS: Final = 9
RAW_BITS: Final = 321
"""of a cube as doubles of half size: position 96, rotation 128, velocity 96, at rest 1 (Fiedler)"""
FRAME_BYTES: Final = 9
"""STATE: type, stream, number, length"""
BOX_BYTES: Final = 13 + 10 + 16
"""header, time stamps, tag"""
UDP_IP_BYTES: Final = 8 + 20
PAYLOAD_HEADER_BYTES: Final = 8
SECTION_HEADER_BYTES: Final = 6
ACK_TICKS: Final = 2
"""25 ms that a receiver may hold back an acknowledgement"""
PEERS: Final = 1_000
PEER_ENTITIES: Final = 57
_SETTLE_TICKS: Final = TICK_RATE
"""the first second tells everything once"""


@dataclass
class Streamed:
    """What a run of the scene took, without its first second."""

    payload_bytes: int = 0
    payloads: int = 0
    ticks: int = 0
    awake: list[int] = field(default_factory=list)
    bits: list[int] = field(default_factory=lambda: [0] * len(FieldBits._fields))
    encode_seconds: list[float] = field(default_factory=list)
    decode_seconds: list[float] = field(default_factory=list)
    samples: list[bytes] = field(default_factory=list)
    said: list[Differences] = field(default_factory=list)


def stream(*, seed: int, seconds: float, rtt: float, loss: float) -> Streamed:
    """Stream the scene to one player; checks that the player shows what was sent."""
    scene = Cubes(seed)
    order = scene.groups(CELL_SIDE)
    small = np.arange(CUBES - 1)
    seats = np.append(small // 100 * GROUP_SEATS + small % 100, GROUPS * GROUP_SEATS - 1)
    sender, receiver, view = SnapshotSender(groups=GROUPS, rate=TICK_RATE), SnapshotReceiver(), View()
    handles = np.arange(CUBES)
    lost = np.random.default_rng(seed)
    away: list[tuple[int, int, int]] = []
    result, number, delay = Streamed(), 0, round(rtt * TICK_RATE) + ACK_TICKS
    snapshots: dict[int, Rows] = {}
    for tick in range(round(seconds * TICK_RATE) + _SETTLE_TICKS):
        scene.step()
        states = scene.states()
        settled = tick >= _SETTLE_TICKS
        while away and away[0][0] <= tick:
            _, stream_, acknowledged = away.pop(0)
            view.acknowledged(stream_, acknowledged)
        before = sender.bits
        started = time.perf_counter()
        rows = empty_rows(GROUPS * GROUP_SEATS)
        rows[seats] = rows_of(handles, 0, states)[order]
        sender.publish(scene.tick, rows)
        baselines = [view.baseline(group) for group in range(GROUPS)]
        (outgoing,) = sender.payloads([view])
        encoded = time.perf_counter() - started
        snapshots[scene.tick] = rows.reshape(GROUPS, GROUP_SEATS, COLUMNS)
        snapshots.pop(scene.tick - 256, None)
        decoded = 0.0
        for stream_, one in enumerate(outgoing):
            number += 1
            view.sent(stream_, number, one)
            if lost.random() < loss:
                continue
            away.append((tick + delay, stream_, number))
            started = time.perf_counter()
            received = receiver.receive_untrusted(one.payload)
            shown = seen_states(received.rows, received.tick)
            decoded += time.perf_counter() - started
            _check(received.rows, shown, states, received.missing)
        if not settled:
            continue
        result.ticks += 1
        result.encode_seconds.append(encoded)
        result.decode_seconds.append(decoded)
        result.payloads += len(outgoing)
        result.payload_bytes += sum(len(one.payload) for one in outgoing)
        result.samples += [one.payload for one in outgoing]
        result.awake.append(int(scene.awake.sum()))
        result.bits = [a + b - c for a, b, c in zip(result.bits, sender.bits, before, strict=True)]
        result.said.append(
            _said(snapshots, scene.tick, baselines, [t.group for o in outgoing for t in o.told])
        )
    return result


def _check(rows: Rows, shown: States, states: States, missing: tuple[int, ...]) -> None:
    cubes = handles_of(rows)[0]
    off = np.abs(shown.positions - states.positions[cubes]).max(initial=0.0)
    if missing or off > 0.0011:
        raise SystemExit(f"the player shows a cube {off} m from where it is, or lacks {missing}")


def _said(
    snapshots: dict[int, Rows], tick: int, baselines: list[int | None], groups: list[int]
) -> Differences:
    now = snapshots[tick][groups]
    base = np.stack(
        [empty_rows(GROUP_SEATS) if (t := baselines[g]) is None else snapshots[t][g] for g in groups]
    )
    ages = np.array([0 if (t := baselines[g]) is None else tick - t for g in groups])
    return differences(now, base, (now != base).any(axis=2), ages=ages, rate=TICK_RATE)


Symbols = dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]]


def _symbols(said: Differences) -> tuple[Symbols, int]:
    """Symbols to be coded, by table and with the section of each; and the bits that stay as they are."""
    found = {
        "kinds": (said.owner, said.kinds),
        "flags": (said.live, said.flags),
        "turned": (said.live, said.turned),
    }
    plain = 32 * len(said.occupants) + 8 * len(said.told)
    for name, (owner, vectors) in said.fields.items():
        lengths = bit_lengths(vectors)
        # Tables for each axis, as there are orders for each axis.
        found |= {f"{name}{axis}": (owner, lengths[:, axis]) for axis in range(3)}
        plain += int(np.maximum(lengths - 1, 0).sum())
    gaps = np.diff(said.seat, prepend=-1) - 1
    gaps = bit_lengths(np.where(gaps < 0, said.seat, gaps))
    plain += int(np.maximum(gaps - 1, 0).sum())
    found["gaps"] = (said.owner, gaps)
    return {name: (owner, values.astype(np.int32)) for name, (owner, values) in found.items()}, plain


def range_coded_bytes(
    said: list[Differences], trained_on: list[Differences], *, by_section: bool
) -> tuple[float, float]:
    """Bytes a tick with a range coder for classes, and microseconds a cube that the coder alone takes.

    Args:
        by_section: whether each section is coded by itself, so that peers with one baseline share its bytes.
    """
    counts: dict[str, Counter[int]] = {}
    for one in trained_on:
        for name, (_, values) in _symbols(one)[0].items():
            counts.setdefault(name, Counter()).update(values.tolist())
    models = {}
    for name, seen in counts.items():
        weights = np.array([seen[symbol] + 0.5 for symbol in range(36)], dtype=np.float32)
        models[name] = constriction.stream.model.Categorical(weights / weights.sum(), perfect=False)
    total, spent = 0, 0.0
    for one in said:
        symbols, plain = _symbols(one)
        for section in range(len(one.told)) if by_section else [None]:
            columns = [
                (models[name], values if section is None else values[owner == section])
                for name, (owner, values) in symbols.items()
            ]
            started = time.perf_counter()
            coder = constriction.stream.queue.RangeEncoder()
            for model, values in columns:
                coder.encode(values, model)
            total += 4 * len(coder.get_compressed())
            spent += time.perf_counter() - started
        total += (plain + 7) // 8 + PAYLOAD_HEADER_BYTES + SECTION_HEADER_BYTES * len(one.told)
    return total / len(said), spent / len(said) / CUBES * 1e6


def zstandard_bytes(samples: list[bytes], trained_on: list[bytes]) -> float:
    """Bytes a tick when every payload is compressed by itself, with a dictionary."""
    dictionary = zstandard.train_dictionary(16_384, [*trained_on])
    packer = zstandard.ZstdCompressor(
        level=19, dict_data=dictionary, write_content_size=False, write_dict_id=False
    )
    return statistics.mean(min(len(packer.compress(one)), len(one) + 1) for one in samples)


def _seconds(work: Callable[[], object], rounds: int) -> float:
    work()
    best = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        best.append(time.perf_counter() - started)
    return statistics.median(best)


def layout_rates(rounds: int) -> dict[str, float]:
    """Entities a second that one core rounds, packs, unpacks and turns into states again."""
    source = np.random.default_rng(1)
    rates: dict[str, float] = {}
    for name, make in (("compact", compact_records), ("full", full_records)):
        per = records_per_payload(make(0, 0, _some(source, 1)).dtype)
        count = 50 * per
        states, numbers = _some(source, count), np.arange(count)

        def there_and_back(
            make: Callable[..., Records] = make,
            states: States = states,
            numbers: npt.NDArray[np.int64] = numbers,
            per: int = per,
        ) -> None:
            payloads = encode_payloads(make(numbers, numbers, states).reshape(-1, per), tick=1)
            decode_payloads_untrusted(payloads)[0][0].states()

        rates[f"{name}_entities_per_s"] = round(count / _seconds(there_and_back, rounds))
    return rates


def fan_out_ms(rounds: int) -> float:
    """Milliseconds to round a world of 10,000 once, and to make one payload for each of a thousand peers."""
    source = np.random.default_rng(2)
    states, numbers = _some(source, 10_000), np.arange(10_000)
    picks = source.integers(0, 10_000, (PEERS, PEER_ENTITIES))
    return (
        _seconds(
            lambda: encode_payloads(compact_records(numbers, numbers, states).take(picks), tick=1), rounds
        )
        * 1e3
    )


def _some(source: np.random.Generator, count: int) -> States:
    rotations = source.normal(size=(count, 4))
    return States(
        ticks=np.ones(count, dtype=np.uint64),
        positions=source.normal(size=(count, 3)) * 100,
        rotations=rotations / np.linalg.norm(rotations, axis=1)[:, None],
        velocities=source.normal(size=(count, 3)),
        angular_velocities=source.normal(size=(count, 3)),
        flags=np.zeros(count, dtype=np.uint8),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON, which is all there is")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rtt", type=float, default=0.1)
    parser.add_argument("--loss", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    link = {"seconds": options.seconds, "rtt": options.rtt, "loss": options.loss}
    run, other = stream(seed=options.seed, **link), stream(seed=options.seed + 1, **link)
    overhead = FRAME_BYTES + BOX_BYTES + UDP_IP_BYTES
    a_second = TICK_RATE * 8 / 1_000
    payload = run.payload_bytes / run.ticks
    coded, coder_us = range_coded_bytes(run.said, other.said, by_section=False)
    shared, _ = range_coded_bytes(run.said, other.said, by_section=True)
    fields = {
        name: round(bits / run.ticks / CUBES, 3)
        for name, bits in zip(FieldBits._fields, run.bits, strict=True)
    }
    fields["headers"] = round(payload * 8 / CUBES - sum(fields.values()), 3)
    result: dict[str, Any] = {
        "benchmark": "state",
        "kbit_s": round((payload + overhead * run.payloads / run.ticks) * a_second, 1),
        "kbit_s_payload": round(payload * a_second, 1),
        "kbit_s_raw": RAW_BITS * CUBES * TICK_RATE / 1_000,
        "counted": f"payload, frame {FRAME_BYTES}, box {BOX_BYTES}, UDP and IP {UDP_IP_BYTES} B",
        "bits_per_cube": fields,
        "payloads_per_tick": round(run.payloads / run.ticks, 3),
        "scene": {
            "synthetic": True,
            "cubes": CUBES,
            "awake_mean": round(statistics.mean(run.awake), 1),
            "awake_max": max(run.awake),
            **link,
        },
        "encode_us_per_cube": round(statistics.median(run.encode_seconds) / CUBES * 1e6, 2),
        "decode_us_per_cube": round(statistics.median(run.decode_seconds) / CUBES * 1e6, 2),
        "entropy": {
            "bits_kbit_s_payload": round(payload * a_second, 1),
            "constriction_by_payload_kbit_s_payload": round(coded * a_second, 1),
            "constriction_by_section_kbit_s_payload": round(shared * a_second, 1),
            "constriction_encode_us_per_cube": round(coder_us, 2),
            "zstandard_kbit_s_payload": round(zstandard_bytes(run.samples, other.samples) * a_second, 1),
        },
        **layout_rates(options.rounds),
        "fan_out_1000_peers_ms": round(fan_out_ms(options.rounds), 2),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("constriction", "numpy", "zstandard")},
        "processors": os.cpu_count(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
