"""Damaged state datagrams: records, or ``DecodeError``; what decodes encodes to the same bytes.

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
    MAX_RECORDS,
    decode_records_untrusted,
    decode_state_untrusted,
    dequantise,
    encode_records,
    encode_state,
    quantise,
    state_hash,
)


def payload(source: random.Random) -> bytes:
    """A datagram's payload as a server makes it, of any state that a runaway simulation may have."""
    count = source.randrange(MAX_RECORDS + 1)
    scale = 10.0 ** source.randrange(-3, 300)
    values = np.array([source.uniform(-scale, scale) for _ in range(6 * count)]).reshape(count, 6)
    if count and source.random() < 0.1:
        values[source.randrange(count), source.randrange(6)] = source.choice((np.nan, np.inf, -np.inf))
    numbers = [source.randrange(2**16) for _ in range(count)]
    return encode_records(quantise(numbers, numbers, numbers, values[:, :3], values[:, 3:]))


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
        records = decode_records_untrusted(data)
    except DecodeError:
        return False
    if encode_records(records) != data:
        raise SystemExit(f"finding: other bytes: {data.hex()}")
    for record in records:
        state = dequantise(record)
        if state_hash(decode_state_untrusted(encode_state(state))) != state_hash(state):
            raise SystemExit(f"finding: another hash after a hand-over: {data.hex()}")
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
    end = time.monotonic() + options.seconds
    tried = valid = 0
    while time.monotonic() < end:
        data = damage(source, payload(source))
        tried += 1
        valid += check_records(data)
        check_state(data[4 : 4 + source.choice((25, 26, 26, 26, 27))])
        check_state(bytes(4) + source.randbytes(22))
    sys.stdout.write(f"{tried} payloads, {valid} of them valid, no finding\n")


if __name__ == "__main__":
    main()
