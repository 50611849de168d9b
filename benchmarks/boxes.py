"""Boxes and signatures against real erlang-jose and against the bare arithmetic; prints one line of JSON.

Both programs and the floors are measured in the same run, interleaved (A B A B), so that other load hits all
alike. ``seal_x_jose`` and ``open_x_jose`` are the medians of each round's ratio to erlang-jose, for a box of
1200 bytes on P-256 with a fresh key, in the flattened form that both call their own: below 1 is faster. The
floor is what ``cryptography`` alone takes, without encoding and checks: a key, its agreement, AES-GCM.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import IO, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bridge.jose import (
    Jwk,
    OpenedBox,
    box_decrypt,
    box_encrypt,
    open_signed_box,
    seal_signed_box,
    sign,
    verify,
)

PAYLOAD: Final = bytes(1200)
NOW_MS: Final = 1_700_000_000_000
RESULTS: Final = Path(__file__).parent / "results" / "boxes.json"
ALICE, BOB = Jwk.generate(), Jwk.generate()

Work = Callable[[], object]

_ECDSA = ec.ECDSA(hashes.SHA256())
_PRIVATE = ec.generate_private_key(ec.SECP256R1())
_PUBLIC = _PRIVATE.public_key()
_POINT = _PUBLIC.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
_IV = os.urandom(12)
_SIGNATURE = _PRIVATE.sign(PAYLOAD, _ECDSA)
_SEALED = AESGCM(_PRIVATE.exchange(ec.ECDH(), _PUBLIC)[:16]).encrypt(_IV, PAYLOAD, None)


def _bare_seal() -> bytes:
    fresh = ec.generate_private_key(ec.SECP256R1())
    return AESGCM(fresh.exchange(ec.ECDH(), _PUBLIC)[:16]).encrypt(_IV, PAYLOAD, None)


def _bare_open() -> bytes:
    sender = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), _POINT)
    return AESGCM(_PRIVATE.exchange(ec.ECDH(), sender)[:16]).decrypt(_IV, _SEALED, None)


def _seal_signed() -> str:
    return seal_signed_box(
        PAYLOAD,
        sender=ALICE,
        recipient=BOB,
        session=bytes(16),
        sequence=1,
        issued_at_ms=NOW_MS,
        lifetime_ms=5000,
        purpose="entity",
        direction="n",
    )


def _open_signed() -> OpenedBox:
    return open_signed_box(
        _SIGNED, recipient=BOB, sender=ALICE, purpose="entity", direction="n", now_ms=NOW_MS
    )


_BOX = box_encrypt(PAYLOAD, BOB)
_TOKEN = sign(PAYLOAD, ALICE)
_SIGNED = _seal_signed()

OURS: Final[dict[str, Work]] = {
    "seal": lambda: box_encrypt(PAYLOAD, BOB),
    "open": lambda: box_decrypt(_BOX, BOB),
    "sign": lambda: sign(PAYLOAD, ALICE),
    "verify": lambda: verify(_TOKEN, ALICE),
    "signed_seal": _seal_signed,
    "signed_open": _open_signed,
}
FLOORS: Final[dict[str, Work]] = {
    "seal": _bare_seal,
    "open": _bare_open,
    "sign": lambda: _PRIVATE.sign(PAYLOAD, _ECDSA),
    "verify": lambda: _PUBLIC.verify(_SIGNATURE, PAYLOAD, _ECDSA),
}
_JOSE = ("seal", "open", "sign", "verify")


class ErlangJose:
    """Real erlang-jose, in a process that waits for its turns."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._input: IO[str] | None = process.stdin
        self._output: IO[str] | None = process.stdout
        self.jose, self.otp = self._line().split()

    def microseconds(self, operation: str, calls: int) -> float:
        """Time a call of one of ``seal``, ``open``, ``sign`` and ``verify`` takes there."""
        assert self._input is not None
        self._input.write(f"{operation} {calls}\n")
        self._input.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self._output is not None
        line = self._output.readline()
        if not line:
            raise EOFError("erlang-jose does not answer")
        return line


@contextlib.contextmanager
def erlang_jose() -> Iterator[ErlangJose | None]:
    """Start the one of this machine; ``None``, and a line that says so, where there is none."""
    peer = None
    with contextlib.ExitStack() as stack:
        if shutil.which("escript") is not None:
            command = ["escript", str(Path(__file__).with_name("erlang_jose.escript"))]
            process = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            with contextlib.suppress(EOFError):
                peer = ErlangJose(process)
        if peer is None:
            print("boxes: no erlang-jose here, so nothing is compared: scripts/setup --dev", file=sys.stderr)
        yield peer


def _time_us(work: Work, calls: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(calls):
        work()
    return (time.perf_counter_ns() - start) / calls / 1000


def measure(rounds: int, calls: int, peer: ErlangJose | None) -> dict[str, object]:
    """Return times in microseconds a call and ratios, as ``main`` prints them."""
    load = round(os.getloadavg()[0], 1)
    times: dict[tuple[str, str], list[float]] = {}
    # The first round warms caches, and the code that the Erlang machine compiles as it goes.
    for turn in range(rounds + 1):
        for name, ours in OURS.items():
            taken = {"us": _time_us(ours, calls)}
            if peer is not None and name in _JOSE:
                taken["jose_us"] = peer.microseconds(name, calls)
            if name in FLOORS:
                taken["floor_us"] = _time_us(FLOORS[name], calls)
            for kind, us in taken.items():
                if turn:
                    times.setdefault((name, kind), []).append(us)

    def ratio(name: str) -> float | None:
        if peer is None:
            return None
        pairs = zip(times[name, "us"], times[name, "jose_us"], strict=True)
        return round(statistics.median(us / them for us, them in pairs), 3)

    return {
        "benchmark": "boxes",
        "python": platform.python_version(),
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "load_before": load,
        "rounds": rounds,
        "payload_bytes": len(PAYLOAD),
        **{f"{name}_x_jose": ratio(name) for name in _JOSE},
        **{f"{name}_{kind}": round(statistics.median(taken), 1) for (name, kind), taken in times.items()},
        "versions": {
            "cryptography": version("cryptography"),
            "erlang_jose": peer and peer.jose,
            "otp": peer and peer.otp,
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--calls", type=int, default=100, help="of each operation in a round")
    parser.add_argument(
        "--keep", action="store_true", help=f"write the result to benchmarks/results/{RESULTS.name} too"
    )
    parser.add_argument("--json", action="store_true", help="JSON is what is printed in any case")
    arguments = parser.parse_args()
    with erlang_jose() as peer:
        result = measure(arguments.rounds, arguments.calls, peer)
    if arguments.keep:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
