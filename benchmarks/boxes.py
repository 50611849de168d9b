"""Boxes against the bare operations of ``cryptography`` they are made of; prints one line of JSON.

Times are medians in microseconds over interleaved rounds (A B A B), so that other load hits both alike. The
ratio says what checking, encoding and parsing cost on top of the arithmetic.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

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

PAYLOAD = bytes(1200)
NOW_MS = 1_700_000_000_000
ALICE, BOB = Jwk.generate(), Jwk.generate()

_ECDSA = ec.ECDSA(hashes.SHA256())
_PRIVATE = ec.generate_private_key(ec.SECP256R1())
_PUBLIC = _PRIVATE.public_key()
_POINT = (
    bytes.fromhex("04") + _PUBLIC.public_numbers().x.to_bytes(32) + _PUBLIC.public_numbers().y.to_bytes(32)
)
_IV = os.urandom(12)
_SIGNATURE = _PRIVATE.sign(PAYLOAD, _ECDSA)


def _bare_seal() -> tuple[bytes, bytes]:
    fresh = ec.generate_private_key(ec.SECP256R1())
    key = fresh.exchange(ec.ECDH(), _PUBLIC)[:16]
    return key, AESGCM(key).encrypt(_IV, PAYLOAD, None)


def _bare_open() -> bytes:
    sender = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), _POINT)
    key = _PRIVATE.exchange(ec.ECDH(), sender)[:16]
    return AESGCM(key).decrypt(_IV, _SEALED, None)


_SEALED = AESGCM(_PRIVATE.exchange(ec.ECDH(), _PUBLIC)[:16]).encrypt(_IV, PAYLOAD, None)


def _bare_sign() -> bytes:
    return _PRIVATE.sign(PAYLOAD, _ECDSA)


def _bare_verify() -> None:
    _PUBLIC.verify(_SIGNATURE, PAYLOAD, _ECDSA)


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

CASES: dict[str, tuple[Callable[[], object], tuple[Callable[[], object], ...]]] = {
    "box_seal": (lambda: box_encrypt(PAYLOAD, BOB), (_bare_seal,)),
    "box_open": (lambda: box_decrypt(_BOX, BOB), (_bare_open,)),
    "sign": (lambda: sign(PAYLOAD, ALICE), (_bare_sign,)),
    "verify": (lambda: verify(_TOKEN, ALICE), (_bare_verify,)),
    "signed_box_seal": (_seal_signed, (_bare_seal, _bare_sign)),
    "signed_box_open": (
        _open_signed,
        (_bare_verify, _bare_open),
    ),
}


def _time_us(function: Callable[[], object], calls: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(calls):
        function()
    return (time.perf_counter_ns() - start) / calls / 1000


def measure(rounds: int, calls: int) -> dict[str, dict[str, float]]:
    """Return for each case ``us``, ``bare_us`` and their ``ratio``."""
    results = {}
    for name, (ours, bare) in CASES.items():
        times = [(_time_us(ours, calls), sum(_time_us(part, calls) for part in bare)) for _ in range(rounds)]
        us, bare_us = (statistics.median(column) for column in zip(*times, strict=True))
        results[name] = {"us": round(us, 1), "bare_us": round(bare_us, 1), "ratio": round(us / bare_us, 2)}
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--json", action="store_true", help="accepted for uniformity; the output is JSON")
    arguments = parser.parse_args()
    cases = measure(arguments.rounds, arguments.calls)
    print(json.dumps({"benchmark": "boxes", "payload_bytes": len(PAYLOAD), "cases": cases}))


if __name__ == "__main__":
    main()
