"""Random bytes for the term decoder: any exception but the promised two is a finding.

Run as ``python tests/fuzz/fuzz_etf_decode.py --seconds 60 --seed 1``.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from bridge.errors import DecodeError, LimitExceededError
from bridge.etf import decode_term, encode_term

_VECTORS = Path(__file__).parents[1] / "vectors" / "etf" / "otp25.tsv"


def mutate(seed: bytes, source: random.Random) -> bytes:
    """A few bytes changed, cut, doubled or put in."""
    raw = bytearray(seed)
    for _ in range(source.randint(1, 6)):
        place = source.randrange(len(raw) + 1)
        match source.randrange(4):
            case 0 if place < len(raw):
                raw[place] = source.choice((source.randrange(256), 0, 255, 97, 104, 108, 109, 116, 119))
            case 1:
                del raw[place : place + source.randint(1, 4)]
            case 2:
                raw[place:place] = raw[: source.randint(0, 30)]
            case _:
                raw[place:place] = source.randbytes(source.randint(1, 4))
    return bytes(raw)


def main() -> None:
    """Fuzz for as long as asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    source = random.Random(options.seed)
    lines = [line.split("\t") for line in _VECTORS.read_text().splitlines() if not line.startswith("#")]
    seeds = [bytes.fromhex(line[1]) for line in lines]
    end = time.monotonic() + options.seconds
    tried = decoded = 0
    while time.monotonic() < end:
        raw = mutate(source.choice(seeds), source)
        tried += 1
        try:
            term = decode_term(raw)
        except (DecodeError, LimitExceededError):
            continue
        except BaseException:
            sys.stderr.write(f"finding: {raw.hex()}\n")
            raise
        decoded += 1
        if decode_term(encode_term(term)) != term:
            raise SystemExit(f"finding (unequal): {raw.hex()}")
    sys.stdout.write(f"{tried} tried, {decoded} decoded, no finding\n")


if __name__ == "__main__":
    main()
