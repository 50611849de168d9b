"""Random bytes for a distribution connection: it may end, it must not raise.

Run as ``python tests/fuzz/fuzz_dist_connection.py --seconds 60 --seed 1``.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from bridge.dist import Disconnected, HandshakeFailed, Received
from bridge.etf import Atom, Pid, Reference, encode_term
from tests.support.pair import drain_events, pair, roundtrip_until_quiet


def packet(source: random.Random) -> bytes:
    """A packet around a control tuple that is nearly right."""
    node = Atom("a@h")
    fields = [Pid(node, 1, 0, 5), Reference(node, 5, (1,)), Atom("rex"), 1, 0, [], (node, node, 1), b"x"]
    control = (source.randrange(38), *(source.choice(fields) for _ in range(source.randrange(7))))
    body = bytearray(
        b"p" + encode_term(control) + (encode_term(source.choice(fields)) if source.random() < 0.6 else b"")
    )
    if source.random() < 0.3:
        body[source.randrange(len(body))] = source.randrange(256)
    return len(body).to_bytes(4, "big") + body


def main() -> None:
    """Fuzz for as long as asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    source = random.Random(options.seed)
    end = time.monotonic() + options.seconds
    tried = received = 0
    while time.monotonic() < end:
        a, b = pair()
        if source.random() < 0.3:
            data = bytearray(b"".join(a.data_to_send()))
            data[source.randrange(len(data))] = source.randrange(256)
            b.receive_data(bytes(data) + source.randbytes(source.randrange(30)), now=0.0)
        else:
            roundtrip_until_quiet(a, b, now=0.0)
            b.receive_data(b"".join(packet(source) for _ in range(4)), now=1.0)
        tried += 1
        events = drain_events(b)
        received += sum(isinstance(event, Received) for event in events)
        ended = [event for event in events if isinstance(event, Disconnected | HandshakeFailed)]
        if len(ended) > 1:
            raise SystemExit("finding: a connection ended twice")
    sys.stdout.write(f"{tried} connections, {received} messages, no finding\n")


if __name__ == "__main__":
    main()
