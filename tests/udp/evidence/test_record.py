from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import DecodeError, SignatureError
from bridge.jose import Jwk
from bridge.jose.encoding import base64url_encode, json_encode
from bridge.udp.evidence.record import (
    MAX_EVIDENCE_BYTES,
    Evidence,
    HandleBinding,
    evidence_to_json,
    parse_evidence_untrusted,
)
from bridge.udp.evidence.signer import TickSigner, Unsigned

SENDER = Jwk.generate()
RECIPIENT = Jwk.generate().thumbprint_bytes()
SESSION = b"session id 16 by"


def evidence(plaintext: bytes = b"what was said", sequence: int = 7) -> Evidence:
    waiting = [Unsigned(RECIPIENT, SESSION, sequence, text) for text in (plaintext, b"to others", b"too")]
    parts = TickSigner(SENDER).sign(waiting, sealed_at_ms=1_700_000_000_000, salts=bytes(range(48)))
    return Evidence(
        sender=SENDER.public(),
        recipient=RECIPIENT,
        session_id=SESSION,
        sequence=sequence,
        plaintext=plaintext,
        proof=parts[0][0].tobytes(),
    )


GENUINE = evidence()
BINDING = {"entity": "ship", "epoch": 1 << 40, "handle": 7, "session": base64url_encode(bytes(16))}


@given(st.binary(max_size=800), st.integers(0, 2**64 - 1))
def test_what_was_written_is_read_and_holds(plaintext: bytes, sequence: int) -> None:
    kept = evidence(plaintext, sequence)
    again = parse_evidence_untrusted(evidence_to_json(kept))
    assert again == kept
    proof = again.check(SENDER)
    assert (proof.size, proof.leaf, proof.sealed_at_ms) == (3, 0, 1_700_000_000_000)


@pytest.mark.parametrize(
    "altered",
    [
        {"plaintext": b"what was Said"},
        {"plaintext": b""},
        {"sequence": 8},
        {"session_id": bytes(16)},
        {"recipient": bytes(32)},
        {"proof": evidence(b"another").proof},
    ],
    ids=lambda altered: next(iter(altered)),
)
def test_evidence_that_was_altered_does_not_hold(altered: dict[str, Any]) -> None:
    GENUINE.check(SENDER)
    with pytest.raises(SignatureError):
        replace(GENUINE, **altered).check(SENDER)


def test_the_key_comes_from_the_one_who_checks_never_from_the_file() -> None:
    other = Jwk.generate()
    with pytest.raises(SignatureError, match="the evidence is about"):
        GENUINE.check(other)
    with pytest.raises(SignatureError, match="does not hold"):
        replace(GENUINE, sender=other.public()).check(other)


@given(
    st.lists(
        st.builds(
            HandleBinding,
            handle=st.integers(0, 2**16 - 1),
            entity=st.text(st.characters(codec="utf-8"), min_size=1, max_size=60),
            epoch=st.integers(0, 2**64 - 1),
            session=st.binary(max_size=255),
        ),
        max_size=20,
    )
)
def test_bindings_are_kept_beside_the_datagram(bindings: list[HandleBinding]) -> None:
    kept = replace(GENUINE, bindings=tuple(bindings))
    assert parse_evidence_untrusted(evidence_to_json(kept)) == kept


def test_as_many_bindings_of_the_longest_names_as_there_may_be_fit_a_file() -> None:
    binding = HandleBinding(handle=65535, entity="n" * 255, epoch=2**64 - 1, session=bytes(255))
    kept = replace(GENUINE, bindings=(binding,) * 256)
    assert parse_evidence_untrusted(evidence_to_json(kept)) == kept


def test_a_private_key_never_gets_into_a_file() -> None:
    written = json.loads(evidence_to_json(replace(GENUINE, sender=SENDER)))
    assert "d" not in written["sender"]


def members(**changed: Any) -> bytes:
    whole = {**json.loads(evidence_to_json(GENUINE)), **changed}
    return json_encode({name: value for name, value in whole.items() if value is not ...})


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"\xff",
        b" " + members(),
        members() + b"\n",
        members(evidence=2),
        members(evidence=True),
        members(sender=...),
        members(sender="key"),
        members(sender=SENDER.to_dict()),
        members(sender=Jwk.generate("P-384").public().to_dict()),
        members(sender=Jwk.generate("Ed25519").public().to_dict()),
        members(sender={"kty": "RSA"}),
        members(recipient=base64url_encode(bytes(31))),
        members(recipient=5),
        members(session=base64url_encode(bytes(17))),
        members(session="AB=="),
        members(sequence=-1),
        members(sequence=1 << 64),
        members(sequence=1.0),
        members(sequence="7"),
        members(plaintext=base64url_encode(bytes(1172))),
        members(proof=""),
        members(proof=base64url_encode(GENUINE.proof + b"\0")),
        members(more=1),
        members(bindings=[]),
        members(bindings={}),
        members(bindings=[BINDING] * 257),
        members(bindings=[{**BINDING, "more": 1}]),
        members(bindings=["text"]),
        members(bindings=[{**BINDING, "entity": ""}]),
        members(bindings=[{**BINDING, "entity": "é" * 128}]),
        members(bindings=[{**BINDING, "entity": 1}]),
        members(bindings=[{**BINDING, "handle": 1 << 16}]),
        members(bindings=[{**BINDING, "epoch": -1}]),
        members(bindings=[{**BINDING, "session": "="}]),
        members(plaintext="A" * MAX_EVIDENCE_BYTES),
        members()[:-1] + b',"sequence":7}',
    ],
)
def test_what_is_no_canonical_evidence_is_refused(raw: bytes) -> None:
    with pytest.raises(DecodeError):
        parse_evidence_untrusted(raw)


@given(st.integers(0, 3000), st.binary(max_size=3))
def test_any_change_of_a_file_is_refused_or_does_not_hold(position: int, change: bytes) -> None:
    raw = evidence_to_json(GENUINE)
    altered = raw[: position % len(raw)] + change + raw[position % len(raw) + len(change) :]
    if altered == raw:
        return
    with pytest.raises((DecodeError, SignatureError)):
        parse_evidence_untrusted(altered).check(SENDER)
