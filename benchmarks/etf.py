"""The term codec, against ``erlang_py``'s in the same run.

Prints one line of JSON. ``decode_mb_s`` and ``encode_mb_s`` are megabytes (10⁶ bytes of encoded term) per
second on a Khepri reply of 100 nodes; ``decode_x_erlang_py`` and ``encode_x_erlang_py`` are how many times
faster that is than ``erlang_py``; ``small_decode_us`` and ``small_encode_us`` are microseconds for the answer
to a small call. Time is processor time, which an idle machine spends as the clock goes. Rounds alternate
(A B A B) and medians are taken, so that other load hits both alike.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bridge.etf import Atom, ErlangMap, Reference, decode_term, encode_term

RESULTS: Final = Path(__file__).parent / "results" / "etf.json"

# Not an import statement: to the type checker the name is this project's folder of Erlang sources.
_erlang_py: Any = importlib.import_module("erlang")


def khepri_reply(nodes: int) -> Any:
    """``{Reference, {ok, #{Path => Properties}}}``, as ``khepri_adv:get_many`` answers through ``rex``.

    About 130 bytes a node: a native path of three components, a small map as data, and the properties. Each
    path and owner is its own, so nothing is gained by meeting it before.
    """
    rules = [Atom("ask"), Atom("allow"), Atom("deny")]
    entries = [
        (
            [Atom("kb"), Atom("entity"), b"e%07d" % n],
            {
                Atom("data"): {
                    Atom("owner"): b"player-%02d" % n,
                    Atom("server"): b"sim-%d" % (n % 5),
                    Atom("epoch"): n * 7,
                    Atom("rule"): rules[n % 3],
                },
                Atom("payload_version"): n % 12 + 1,
            },
        )
        for n in range(nodes)
    ]
    return Reference(Atom("homeserver1@127.0.0.1"), 1_700_000_000, (7, 131_073, 4_207)), (
        Atom("ok"),
        ErlangMap(entries),
    )


def _microseconds(work: Callable[[Any], Any], argument: Any, loops: int) -> float:
    start = time.process_time()
    for _ in range(loops):
        work(argument)
    return (time.process_time() - start) * 1e6 / loops


def measure(rounds: int, loops: int) -> dict[str, Any]:
    """Alternate the two codecs and take medians; ``load_before`` tells how busy the machine was."""
    load = round(os.getloadavg()[0], 1)
    raw = encode_term(khepri_reply(100))
    # Each codec encodes what it decoded, since the terms are its own classes.
    ours, theirs = decode_term(raw), _erlang_py.binary_to_term(raw)
    small = encode_term((ours[0], Atom("ok")))
    small_term = decode_term(small)
    if decode_term(_erlang_py.term_to_binary(theirs)) != ours:
        raise SystemExit("erlang_py reads another term")
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, work, argument, amount in (
            ("decode", decode_term, raw, loops),
            ("erlang_py_decode", _erlang_py.binary_to_term, raw, loops),
            ("encode", encode_term, ours, loops),
            ("erlang_py_encode", _erlang_py.term_to_binary, theirs, loops),
            ("small_decode", decode_term, small, 50 * loops),
            ("small_encode", encode_term, small_term, 50 * loops),
        ):
            times.setdefault(name, []).append(_microseconds(work, argument, amount))

    def median(name: str) -> float:
        return statistics.median(times[name])

    def ratio(ours_: str) -> float:
        pairs = zip(times[f"erlang_py_{ours_}"], times[ours_], strict=True)
        return round(statistics.median(them / us for them, us in pairs), 2)

    return {
        "benchmark": "etf",
        "python": platform.python_version(),
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "load_before": load,
        "rounds": rounds,
        "reply_bytes": len(raw),
        "decode_mb_s": round(len(raw) / median("decode"), 1),
        "encode_mb_s": round(len(raw) / median("encode"), 1),
        "decode_x_erlang_py": ratio("decode"),
        "encode_x_erlang_py": ratio("encode"),
        "decode_us": round(median("decode"), 1),
        "encode_us": round(median("encode"), 1),
        "small_decode_us": round(median("small_decode"), 2),
        "small_encode_us": round(median("small_encode"), 2),
        "versions": {"erlang_py": version("erlang_py")},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--loops", type=int, default=20, help="replies of 100 nodes per round and codec")
    parser.add_argument(
        "--keep", action="store_true", help=f"write the result to benchmarks/results/{RESULTS.name} too"
    )
    parser.add_argument("--json", action="store_true", help="JSON is what is printed in any case")
    arguments = parser.parse_args()
    result = measure(arguments.rounds, arguments.loops)
    if arguments.keep:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
