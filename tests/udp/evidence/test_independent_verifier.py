"""Evidence files read by nothing but what docs/protocol.md §5, "Signed mode", and RFC 9162 say."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from typing import Any

import numpy as np
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.jose import Jwk
from bridge.udp.config import UdpConfig
from bridge.udp.events import StateReceived, StatesReceived
from bridge.udp.evidence import evidence_to_json
from tests.support.datagrams import connected_pair


def unbase(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def thumbprint(jwk: dict[str, Any]) -> bytes:
    """RFC 7638."""
    required = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
    return hashlib.sha256(json.dumps(required, sort_keys=True, separators=(",", ":")).encode()).digest()


def verify(file: bytes, key: dict[str, Any]) -> dict[str, Any]:
    """What a file says, or ``ValueError`` or ``InvalidSignature``."""
    kept = json.loads(file)
    if kept["evidence"] != 1 or thumbprint(kept["sender"]) != thumbprint(key):
        raise ValueError("another version or sender")
    sender, recipient = thumbprint(key), unbase(kept["recipient"])
    plaintext, proof = unbase(kept["plaintext"]), unbase(kept["proof"])

    kind, leaves, index, moment = struct.unpack(">BHHQ", proof[:13])
    salt, signature, depth, path = proof[13:29], proof[29:93], proof[93], proof[94:]
    if kind != 0x0B or not 0 <= index < leaves <= 1024 or len(path) != 32 * depth:
        raise ValueError("no PROOF frame")

    covered = b"\0" + salt + sender + recipient + unbase(kept["session"])
    covered += kept["sequence"].to_bytes(8, "big") + len(plaintext).to_bytes(2, "big") + plaintext
    node = hashlib.sha256(covered).digest()
    # RFC 9162 section 2.1.3.2.
    number, last = index, leaves - 1
    for start in range(0, len(path), 32):
        if last == 0:
            raise ValueError("path too long")
        sibling = path[start : start + 32]
        if number & 1 or number == last:
            node = hashlib.sha256(b"\1" + sibling + node).digest()
            while number & 1 == 0 and number:
                number, last = number >> 1, last >> 1
        else:
            node = hashlib.sha256(b"\1" + node + sibling).digest()
        number, last = number >> 1, last >> 1
    if last != 0:
        raise ValueError("path too short")

    message = b"khepri-bridge evidence v1\0" + sender + b"\1" + struct.pack(">HQ", leaves, moment) + node
    point = b"\4" + unbase(key["x"]) + unbase(key["y"])
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    public.verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))
    return {"recipient": recipient, "sequence": kept["sequence"], "plaintext": plaintext, "leaves": leaves}


def files(count: int) -> tuple[Jwk, Jwk, dict[int, tuple[bytes, bytes]]]:
    """Keys of sender and recipient, and each stream's payload and evidence file, of a real session."""
    network, a, b = connected_pair(config=UdpConfig(signed=True, keep_evidence=True))
    rows = np.random.default_rng(count).integers(0, 256, (count, 33), dtype=np.uint8)
    a.session("b").send_state(rows)
    network.run(seconds=0.2)
    kept = {}
    for event in b.events:
        if isinstance(event, StateReceived | StatesReceived):
            for state in event.states():
                assert state.evidence is not None
                kept[state.stream] = state.payload, evidence_to_json(state.evidence)
    assert len(kept) == count
    return a.key, b.key, kept


@settings(deadline=None, max_examples=6)
@given(st.integers(1, 300))
def test_what_the_engine_keeps_is_evidence_by_the_document_alone(count: int) -> None:
    sender, recipient, kept = files(count)
    for payload, file in kept.values():
        told = verify(file, sender.public().to_dict())
        assert told["leaves"] <= count
        assert told["recipient"] == recipient.thumbprint_bytes()
        assert told["plaintext"].endswith(payload)


def test_nothing_holds_for_another_key_or_another_text() -> None:
    sender, other, kept = files(5)
    _, file = kept[2]
    with pytest.raises(ValueError, match="sender"):
        verify(file, other.public().to_dict())
    altered = file.replace(b'"sequence":', b'"sequence":1')
    with pytest.raises(InvalidSignature):
        verify(altered, sender.public().to_dict())
