"""Damaged state payloads: records or snapshots, or ``DecodeError``; records encode to the same bytes again.

Run as ``python tests/fuzz/fuzz_state.py --seconds 60 --seed 1``.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from bridge.errors import DecodeError
from bridge.replication import (
    GROUP_SEATS,
    SnapshotReceiver,
    SnapshotSender,
    States,
    View,
    compact_records,
    decode_payloads_untrusted,
    decode_records_untrusted,
    decode_state_untrusted,
    empty_rows,
    encode_payloads,
    encode_state,
    full_records,
    rows_of,
    seen_states,
    state_hash,
)


def wild_states(source: random.Random, count: int, scale: float | None = None) -> States:
    """Any states that a runaway simulation may have."""
    scale = 10.0 ** source.randrange(-3, 300) if scale is None else scale
    values = np.array([source.uniform(-scale, scale) for _ in range(13 * count)]).reshape(count, 13)
    if count and source.random() < 0.1:
        values[source.randrange(count), source.randrange(13)] = source.choice((np.nan, np.inf, -np.inf))
    with np.errstate(over="ignore"):
        return States(
            ticks=np.full(count, source.randrange(2**32), dtype=np.uint64),
            positions=values[:, :3],
            rotations=values[:, 3:7],
            velocities=values[:, 7:10],
            angular_velocities=values[:, 10:],
            flags=np.array([source.randrange(8) for _ in range(count)], dtype=np.uint8),
        )


def payload(source: random.Random) -> bytes:
    """A payload as a server makes it."""
    make, most = source.choice(((compact_records, 57), (full_records, 31)))
    count = source.randrange(most + 1)
    numbers = np.array([source.randrange(2**16) for _ in range(count)])
    digests = np.zeros((1, 16), dtype=np.uint8) if source.random() < 0.3 and count < most else None
    records = make(numbers, numbers, wild_states(source, count))
    return encode_payloads(records[None, :], tick=source.randrange(2**32), digests=digests).tobytes()


def damage(source: random.Random, data: bytes) -> bytes:
    """Change, cut or lengthen."""
    changed = bytearray(data)
    for _ in range(source.choice((0, 1, 2, 30))):
        if changed:
            changed[source.randrange(min(len(changed), source.choice((4, 1_200))))] = source.randrange(256)
    if source.random() < 0.3:
        del changed[source.randrange(len(changed) + 1) :]
    if source.random() < 0.1:
        changed += source.randbytes(source.randrange(1_300))
    return bytes(changed)


def check_records(data: bytes) -> bool:
    """Whether it decodes; stops the run where the promise does not hold."""
    try:
        decoded = decode_records_untrusted(data)
    except DecodeError:
        return False
    again = encode_payloads(decoded.records, tick=int(decoded.ticks[0]), digests=decoded.digests)
    if again.tobytes() != data:
        raise SystemExit(f"finding: other bytes: {data.hex()}")
    states = decoded.states()
    for index in range(0, len(states), 7):
        state = states[index]
        if state_hash(decode_state_untrusted(encode_state(state))) != state_hash(state):
            raise SystemExit(f"finding: another hash after a hand-over: {data.hex()}")
    return True


def check_batch(rows: list[bytes]) -> None:
    """A batch holds what its payloads hold alone."""
    size = min(map(len, rows))
    cut = [row[:size] for row in rows]
    alone = sum(check_records(row) for row in cut)
    _, malformed = decode_payloads_untrusted(np.frombuffer(b"".join(cut), dtype=np.uint8).reshape(-1, size))
    if alone != len(cut) - malformed:
        raise SystemExit(f"finding: together {malformed} malformed: {[row.hex() for row in cut]}")


def snapshots(source: random.Random) -> tuple[bytes, list[bytes]]:
    """A payload that tells everything, and what is told of later ticks to one who has it."""
    sender, view = SnapshotSender(groups=2, rate=source.randrange(1, 256)), View()
    count = source.randrange(1, 12)
    seats = source.sample(range(2 * GROUP_SEATS), count)
    tick = source.randrange(2**32)
    whole: list[bytes] = []
    for later in range(4):
        rows = empty_rows(2 * GROUP_SEATS)
        present = seats if later != 2 else seats[: count // 2]
        scale = 10.0 ** source.randrange(-3, 7)
        rows[present] = rows_of(np.arange(len(present)), tick, wild_states(source, len(present), scale))
        sender.publish(tick + later, rows)
        (outgoing,) = sender.payloads([view])
        whole += [one.payload for one in outgoing]
        if later == 0:
            view.sent(0, 1, outgoing[0])
            view.acknowledged(0, 1)
    return whole[0], whole[1:]


def check_snapshots(first: bytes, data: bytes) -> bool:
    """Whether what was damaged is read by one who has the baseline."""
    receiver = SnapshotReceiver(max_groups=8)
    receiver.receive_untrusted(first)
    try:
        received = receiver.receive_untrusted(data)
    except DecodeError:
        return False
    states = seen_states(received.rows, received.tick)
    if not (np.isfinite(states.positions).all() and np.isfinite(states.rotations).all()):
        raise SystemExit(f"finding: no numbers: {data.hex()} after {first.hex()}")
    return True


def check_state(data: bytes) -> None:
    """The last state of a release."""
    try:
        state = decode_state_untrusted(data)
    except DecodeError:
        return
    if encode_state(state) != data:
        raise SystemExit(f"finding: other bytes of one state: {data.hex()}")


def main() -> None:
    """Fuzz for as long as asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    source = random.Random(options.seed)
    np.seterr(over="ignore", invalid="ignore")
    end = time.monotonic() + options.seconds
    tried = valid = 0
    first, later = snapshots(source)
    while time.monotonic() < end:
        data = damage(source, payload(source))
        tried += 1
        valid += check_records(data)
        if data and source.random() < 0.2:
            check_batch([data, damage(source, data) or data, data])
        one = encode_state(wild_states(source, 1)[0])
        check_state(damage(source, one))
        check_state(one[:12] + source.randbytes(32))
        if source.random() < 0.05:
            first, later = snapshots(source)
        for _ in range(2):
            tried += 1
            valid += check_snapshots(first, damage(source, source.choice(later)))
    sys.stdout.write(f"{tried} payloads, {valid} of them valid, no finding\n")


if __name__ == "__main__":
    main()
