"""Damaged documents and seals of another instance: what they say, or ``DecodeError`` and ``SignatureError``.

Run as ``python tests/fuzz/fuzz_federation.py --seconds 60 --seed 1``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from bridge.errors import DecodeError, SignatureError
from bridge.homeserver.federation.documents import (
    decode_answer_untrusted,
    decode_question_untrusted,
    encode_document,
)
from bridge.homeserver.federation.sealing import (
    check_seal_untrusted,
    claimed_instance_untrusted,
    seal_document,
)
from tests.homeserver.federation.test_documents import OFFER
from tests.support.credentials import INSTANCE, KEYS, NOW, KeySigner

_STEP = {"trace": OFFER["trace"], "hop": 1}
_DOCUMENTS: list[dict[str, Any]] = [
    OFFER,
    {"act": "cancel", "transfer": "7", "low": "6", **_STEP},
    {"act": "settle", "low": "6"},
    {"act": "moved", "entity": "ball", "at": "opal", "epoch": "9"},
    {"act": "ask_servers"},
    {"act": "ask_entity", "entity": "ball", "transfer": "7"},
    {
        "act": "entity",
        "entity": "ball",
        "transfer": "settled",
        "place": "away",
        "at": "opal",
        "home": "ruby",
        "epoch": "9",
    },
    {"act": "accept", "transfer": "7", "epoch": "9", **_STEP},
    {"act": "refuse", "transfer": "7", "reason": "no_server", **_STEP},
    {"act": "settled", "low": "6"},
    {"act": "noted", "entity": "ball"},
    {"act": "servers", "servers": [OFFER["giver"]["endpoint"]]},
]


def value(source: random.Random) -> Any:
    """A member that may fit."""
    return source.choice(
        (
            "",
            "ball",
            "b" * 255,
            "b" * 256,
            "\ud800",
            "18446744073709551615",
            "18446744073709551616",
            "-1",
            0,
            63,
            64,
            1e300,
            True,
            None,
            [],
            {},
            source.choice(_DOCUMENTS),
        )
    )


def damaged(source: random.Random, members: dict[str, Any]) -> dict[str, Any]:
    """The members, one of them changed, missing or too many, at some depth."""
    changed = dict(members)
    name = source.choice(list(changed))
    if isinstance(changed[name], dict) and source.random() < 0.7:
        changed[name] = damaged(source, changed[name])
    elif source.random() < 0.2:
        del changed[name]
    elif source.random() < 0.1:
        changed["extra"] = value(source)
    else:
        changed[name] = value(source)
    return changed


def payload(source: random.Random) -> bytes:
    """Bytes that are nearly a document."""
    members = source.choice(_DOCUMENTS)
    if source.random() < 0.6:
        members = damaged(source, members)
    data = bytearray(json.dumps(members).encode())
    for _ in range(source.choice((0, 0, 0, 1, 3))):
        data[source.randrange(len(data))] = source.randrange(256)
    if source.random() < 0.001:
        data[0:0] = b"[" * source.randrange(40_000)
    return bytes(data)


def main() -> None:
    """Fuzz for as long as asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    source = random.Random(options.seed)
    question = decode_question_untrusted(json.dumps(OFFER).encode())
    sealed = asyncio.run(
        seal_document(
            question,
            signer=KeySigner(),
            instance=INSTANCE,
            audience="ruby",
            question=None,
            now=NOW,
            random=bytes(16),
        )
    )
    end = time.monotonic() + options.seconds
    tried = valid = 0
    while time.monotonic() < end:
        data = payload(source)
        tried += 1
        for decode in (decode_question_untrusted, decode_answer_untrusted):
            try:
                document = decode(data)
            except DecodeError:
                continue
            valid += 1
            if decode(encode_document(document)) != document:
                raise SystemExit(f"finding: another document: {data!r}")
        _damage_seal(source, sealed.seal, sealed.body)
    sys.stdout.write(f"{tried} payloads, {valid} of them valid, no finding\n")


def _damage_seal(source: random.Random, seal: str, body: bytes) -> None:
    text = list(seal)
    for _ in range(source.randrange(1, 4)):
        text[source.randrange(len(text))] = source.choice("AZaz09-_.=é")
    damaged_seal = "".join(text[: source.choice((len(text), len(text), source.randrange(len(text))))])
    try:
        claimed_instance_untrusted(damaged_seal)
        check_seal_untrusted(
            damaged_seal, body, keys=KEYS, instance=INSTANCE, audience="ruby", question=None, now=NOW
        )
    except SignatureError:
        return
    if damaged_seal != seal:
        raise SystemExit(f"finding: a seal holds that was changed: {damaged_seal!r}")


if __name__ == "__main__":
    main()
