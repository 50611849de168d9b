"""Damaged messages between simulation servers: a message, or ``DecodeError``; encoded again it is the same.

Run as ``python tests/fuzz/fuzz_messages.py --seconds 60 --seed 1``.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import msgspec

from bridge.authority import decode_message_untrusted, decode_release_untrusted, encode_message
from bridge.errors import DecodeError

_TRACE = bytes(range(16))
_FIELDS: dict[str, list[Any]] = {
    "released": [_TRACE, 2, "ball", 7, "a.b"],
    "accepted": [_TRACE, 2, "ball", 7],
    "offer": [_TRACE, 0, "ball", 7, "Player1", "a.b"],
    "bind": [65_535, "ball", 7],
    "release": ["ball", 7, bytes(26)],
    "nonsense": [1, 2],
}


def value(source: random.Random, depth: int = 0) -> Any:
    """A field that may fit."""
    kinds: list[Any] = [
        source.randbytes(source.choice((0, 15, 16, 16, 17, 26))),
        source.choice(("ball", "", "b" * 255, "b" * 256, "\0", "ö")),
        source.choice((0, 1, 64, 65, -1, 65_535, 65_536, 2**63, 2**64 - 1)),
        source.random(),
        source.choice((True, None)),
    ]
    if depth < 3:
        kinds.append([value(source, depth + 1) for _ in range(source.randrange(4))])
        kinds.append({"type": "bind", "x": value(source, depth + 1)})
    return source.choice(kinds)


def payload(source: random.Random) -> bytes:
    """An array that is nearly a message."""
    kind = source.choice(list(_FIELDS))
    fields = [value(source) if source.random() < 0.1 else good for good in _FIELDS[kind]]
    if source.random() < 0.1:
        fields = fields[:-1] if source.random() < 0.5 else [*fields, value(source)]
    data = bytearray(msgspec.msgpack.encode([kind, *fields]))
    for _ in range(source.choice((0, 0, 1, 3))):
        data[source.randrange(len(data))] = source.randrange(256)
    if source.random() < 0.1:
        del data[source.randrange(len(data)) :]
    if source.random() < 0.001:
        data[0:0] = b"\x91" * source.randrange(5_000)
    return bytes(data)


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
        data = payload(source)
        tried += 1
        for decode in (decode_message_untrusted, decode_release_untrusted):
            try:
                message = decode(data)
            except DecodeError:
                continue
            valid += 1
            if decode(encode_message(message)) != message:
                raise SystemExit(f"finding: another message: {data.hex()}")
    sys.stdout.write(f"{tried} payloads, {valid} of them valid, no finding\n")


if __name__ == "__main__":
    main()
