"""Mutate keys, boxes, tokens and signed boxes in all forms; any exception but the promised one is a finding.

Bytes are mutated, members of headers and keys, and segments beneath their base64, so that every parser behind
another one is reached. What opens or holds although it was altered is a finding too.

Run it as ``python -m tests.fuzz.fuzz_jose --seconds 60 --seed 1``, or as a script with the repository on the
import path. A finding prints its input and ends with status 1.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import sys
import time
from collections.abc import Callable

from bridge.errors import BoxError, KeyFormatError, SignatureError
from bridge.jose import (
    Jwk,
    SignedBoxClaims,
    box_compact,
    box_decrypt,
    box_encrypt,
    open_signed_box,
    peek_claims_untrusted,
    seal_signed_box,
    sign,
    token_flattened,
    verify,
)
from bridge.jose.encoding import (
    base64url_decode_untrusted,
    base64url_encode,
    json_encode,
    json_object_untrusted,
)
from tests.support.jose_keys import CURVES, KEYS, genuine_box

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
MONTGOMERY = box_encrypt(b"state", KEYS["X25519"])
ONE_PASS = genuine_box(BOB, lambda header: header.update(alg="ECDH-1PU", skid="alice"), static=ALICE)
TOKEN = sign(b"state", ALICE)
EDWARDS = sign(b"state", KEYS["Ed25519"])
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


# What a member may be changed to: every type of JSON, and texts that mean something elsewhere.
VALUES: tuple[object, ...] = (
    *(None, True, False, 0, 1, -1, 2**64, 10**400, 0.5, 1e308, "", "A", "AA", "=", "\0", "é", "\ud800"),
    *([], {}, [[]], ["b64"], {"kty": "EC"}, "none", "HS256", "ES256", "EdDSA", "ECDH-ES", "ECDH-SS"),
    *("ECDH-1PU", "dir", "A128GCM", "A256CBC-HS512", "EC", "OKP", "oct", "RSA", "DEF", *CURVES),
)
NAMES = (
    *("alg", "enc", "epk", "spk", "apu", "apv", "kid", "skid", "typ", "cty", "zip", "crit", "b64", "jwk"),
    *("kty", "crv", "x", "y", "d", "k", "n", "e", "use", "v", "snd", "rcp", "sid", "seq", "iat", "ttl"),
    *("pur", "dir", "ctx", "protected", "encrypted_key", "iv", "ciphertext", "tag", "payload", "signature"),
)


def _open_signed(text: str) -> None:
    opened = open_signed_box(text, recipient=BOB, sender=ALICE, purpose="init", direction="i", now_ms=0)
    if text.rpartition(".")[0] != SIGNED.rpartition(".")[0]:
        raise AssertionError(f"an altered box opened: {opened}")


def _peek(text: str) -> None:
    if not isinstance(peek_claims_untrusted(text), SignedBoxClaims):
        raise AssertionError("no claims")


def _open_box(text: str) -> None:
    if box_decrypt(text, BOB) != b"state":
        raise AssertionError("an altered box opened")


def _open_montgomery(text: str) -> None:
    if box_decrypt(text, KEYS["X25519"]) != b"state":
        raise AssertionError("an altered box opened")


def _open_one_pass(text: str) -> None:
    if box_decrypt(text, BOB, ALICE) != b"genuine":
        raise AssertionError("an altered box opened")


def _verify(text: str) -> None:
    if verify(text, ALICE) != b"state":
        raise AssertionError("an altered token held")


def _verify_edwards(text: str) -> None:
    if verify(text, KEYS["Ed25519"]) != b"state":
        raise AssertionError("an altered token held")


def _read_key(text: str) -> None:
    key = Jwk.from_json(text)
    if Jwk.from_dict(key.to_dict()) != key or len(key.thumbprint_bytes()) != 32:
        raise AssertionError("a key does not read back")


def _read_pem(text: str) -> None:
    key = Jwk.from_pem(text)
    if Jwk.from_pem(key.to_pem()) != key:
        raise AssertionError("a key does not read back")


def _decode_base64url(text: str) -> None:
    if base64url_encode(base64url_decode_untrusted(text)) != text:
        raise AssertionError("two texts for one value")


def _decode_json(text: str) -> None:
    json_object_untrusted(text.encode("utf-8", "surrogatepass"))


def _json(members: object) -> str:
    return json_encode(members).decode()


Target = tuple[str, Callable[[str], object], type[Exception] | tuple[type[Exception], ...]]

TARGETS: tuple[Target, ...] = (
    (SIGNED, _open_signed, (BoxError, SignatureError)),
    (SIGNED, _peek, BoxError),
    (box_compact(BOX), _open_box, BoxError),
    (_json(BOX), _open_box, BoxError),
    (box_compact(MONTGOMERY), _open_montgomery, BoxError),
    (box_compact(ONE_PASS), _open_one_pass, BoxError),
    (_json(ONE_PASS), _open_one_pass, BoxError),
    (TOKEN, _verify, SignatureError),
    (_json(token_flattened(TOKEN)), _verify, SignatureError),
    (EDWARDS, _verify_edwards, SignatureError),
    *((key.to_json(), _read_key, KeyFormatError) for key in KEYS.values()),
    (Jwk.from_dict({"kty": "oct", "k": "AAECAwQ"}).to_json(), _read_key, KeyFormatError),
    *((key.to_pem().decode(), _read_pem, KeyFormatError) for key in KEYS.values()),
    *((key.public().to_pem().decode(), _read_pem, KeyFormatError) for key in KEYS.values()),
    (base64url_encode(bytes(range(50))), _decode_base64url, ValueError),
    (ALICE.to_json(), _decode_json, ValueError),
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


def _mutate_members(text: str, source: random.Random) -> str:
    """Change, add, remove or double a member of an object, or of one within it."""
    try:
        members = json.loads(text)
    except ValueError:
        return text
    if not isinstance(members, dict):
        return text
    inner = [value for value in members.values() if isinstance(value, dict)]
    place = source.choice([members, *inner])
    name = source.choice([*place, source.choice(NAMES)])
    match source.randrange(4):
        case 0:
            place.pop(name, None)
        case 1 | 2:
            place[name] = source.choice(VALUES)
        case _:
            again = json.dumps({name: source.choice(VALUES)})
            return json.dumps(members)[:-1] + "," + again[1:]
    return json.dumps(members, ensure_ascii=source.random() < 0.5)


def _mutate_segment(segment: str, source: random.Random) -> str:
    """Change what base64url text stands for."""
    try:
        raw = base64url_decode_untrusted(segment)
    except ValueError:
        return segment
    if raw[:1] == b"{" and source.random() < 0.6:
        text = _mutate_members(raw.decode("utf-8", "replace"), source)
        return base64url_encode(text.encode("utf-8", "surrogatepass"))
    return base64url_encode(_mutate(raw, source))


def _mutate_pem(text: str, source: random.Random) -> str:
    """Change what stands between the lines of a PEM text."""
    first, *body, last = text.strip().splitlines()
    der = _mutate(base64.b64decode("".join(body)), source)
    return "\n".join([first, base64.b64encode(der).decode(), last])


def mutate_text(text: str, source: random.Random) -> str:
    """Change the text itself, its members, or a segment beneath its encoding."""
    kind = source.random()
    if text.startswith("{") and kind < 0.7:
        members = json.loads(text)
        encoded = [name for name in members if name in ("protected", "payload", "signature", "iv", "tag")]
        if encoded and kind < 0.4:
            name = source.choice(encoded)
            return _json({**members, name: _mutate_segment(members[name], source)})
        return _mutate_members(text, source)
    if text.startswith("-----BEGIN") and kind < 0.7:
        return _mutate_pem(text, source)
    segments = text.split(".")
    if len(segments) > 1 and kind < 0.7:
        index = source.randrange(len(segments))
        segments[index] = _mutate_segment(segments[index], source)
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
                error.add_note(f"Alice {ALICE.to_json()} Bob {BOB.to_json()}")
                error.add_note(" ".join(key.to_json() for key in KEYS.values()))
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
