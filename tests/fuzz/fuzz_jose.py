"""Mutate keys, boxes, tokens and signed boxes; any exception but the promised ones is a finding.

Run it as ``python -m tests.fuzz.fuzz_jose --seconds 60 --seed 1``, or as a script with the repository on the
import path. A finding prints its input and ends with status 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable

from bridge.errors import BoxError, KeyFormatError, SignatureError
from bridge.jose import (
    Jwk,
    box_compact,
    box_decrypt,
    box_encrypt,
    open_signed_box,
    peek_claims_untrusted,
    seal_signed_box,
    sign,
    verify,
)
from bridge.jose.encoding import base64url_decode_untrusted, base64url_encode, json_encode

ALICE, BOB = Jwk.generate(), Jwk.generate()
SIGNED = seal_signed_box(
    b"state",
    sender=ALICE,
    recipient=BOB,
    session=bytes(16),
    sequence=1,
    issued_at_ms=0,
    lifetime_ms=0,
    purpose="init",
    direction="i",
)
BOX = box_encrypt(b"state", BOB, ALICE)
TOKEN = sign(b"state", ALICE)
SNIPPETS = (
    b'"',
    b"{",
    b"[" * 99,
    b"]",
    b"\\u",
    b"\\ud800",
    b",",
    b"null",
    b"1e999",
    b"9" * 5000,
    b".",
    b"=",
    b"\0",
)


def _open_signed(text: str) -> None:
    peek_claims_untrusted(text)
    opened = open_signed_box(text, recipient=BOB, sender=ALICE, purpose="init", direction="i", now_ms=0)
    if text.rpartition(".")[0] != SIGNED.rpartition(".")[0]:
        raise AssertionError(f"an altered box opened: {opened}")


def _open_box(text: str) -> None:
    if box_decrypt(text, BOB) != b"state":
        raise AssertionError("an altered box opened")


def _verify(text: str) -> None:
    if verify(text, ALICE) != b"state":
        raise AssertionError("an altered token held")


TARGETS: tuple[tuple[str, Callable[[str], object], type[Exception] | tuple[type[Exception], ...]], ...] = (
    (SIGNED, _open_signed, (BoxError, SignatureError)),
    (box_compact(BOX), _open_box, BoxError),
    (json_encode(BOX).decode(), _open_box, BoxError),
    (TOKEN, _verify, SignatureError),
    (ALICE.to_json(), Jwk.from_json, KeyFormatError),
    (Jwk.generate("Ed25519").to_json(), Jwk.from_json, KeyFormatError),
    (ALICE.to_pem().decode(), Jwk.from_pem, KeyFormatError),
)


def _mutate(raw: bytes, source: random.Random) -> bytes:
    data = bytearray(raw)
    for _ in range(source.randint(1, 4)):
        at, length = source.randrange(len(data) + 1), source.randrange(8)
        match source.randrange(4):
            case 0:
                data[at : at + length] = source.randbytes(length)
            case 1:
                data[at:at] = source.choice(SNIPPETS)
            case 2:
                del data[at : at + length]
            case _:
                start = source.randrange(len(data) + 1)
                data[at:at] = data[start : start + 30]
    return bytes(data)


def mutate_text(text: str, source: random.Random) -> str:
    """Change the text, or one base64url segment beneath its encoding, so that inner parsers are reached."""
    segments = text.split(".")
    if len(segments) > 1 and source.random() < 0.7:
        index = source.randrange(len(segments))
        segments[index] = base64url_encode(_mutate(base64url_decode_untrusted(segments[index]), source))
        return ".".join(segments)
    return _mutate(text.encode(), source).decode("utf-8", "surrogateescape")


def fuzz(source: random.Random, rounds: int) -> None:
    """Try every target with ``rounds`` mutations; raises what no caller was promised."""
    for _ in range(rounds):
        for text, target, promised in TARGETS:
            mutated = mutate_text(text, source)
            try:
                target(mutated)
            except promised:
                continue
            except Exception as error:
                error.add_note(f"{target.__name__} of {mutated!r}")
                raise


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    source, end, rounds = random.Random(arguments.seed), time.monotonic() + arguments.seconds, 0
    while time.monotonic() < end:
        fuzz(source, 100)
        rounds += 100
    sys.stdout.write(f"{rounds * len(TARGETS)} inputs, no finding\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
