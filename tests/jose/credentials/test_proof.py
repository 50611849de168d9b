from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import SignatureError
from bridge.jose import Jwk
from bridge.jose.credentials import Certificate, Proof, keyring, read_proof_untrusted
from tests.support.credentials import (
    ID,
    INSTANCE,
    ISSUER,
    KEYS,
    NOW,
    access_token,
    certificate,
    issued,
    proof,
)

ALICE, MALLORY = Jwk.generate(), Jwk.generate()
CERTIFICATE = issued(certificate(ALICE))


def read(token: str, *, now: float = NOW) -> tuple[Proof, Certificate]:
    return read_proof_untrusted(token, keys=KEYS, instance=INSTANCE, now=now)


@pytest.mark.parametrize(
    "use",
    [{"use": "access"}, {"use": "peer", "peer": "B"}, {"use": "key", "peer": ALICE.thumbprint()}],
    ids=["access", "peer", "key"],
)
def test_a_proof_under_the_certificates_key_holds(use: dict[str, str]) -> None:
    """R0-32."""
    made = proof(CERTIFICATE, **use)
    assert read(made.signed(ALICE)) == (made, certificate(ALICE))


def test_a_stolen_certificate_alone_is_worth_nothing() -> None:
    with pytest.raises(SignatureError, match="issuers"):
        read(proof(CERTIFICATE).signed(MALLORY))
    header, payload, signature = proof(CERTIFICATE).signed(MALLORY).split(".")
    named = proof(CERTIFICATE).signed(ALICE).split(".")[0]
    with pytest.raises(SignatureError, match="does not hold"):
        read(f"{named}.{payload}.{signature}")
    assert header != named


def test_a_certificate_of_ones_own_making_is_worth_nothing() -> None:
    """R0-32: none, expired, foreign."""
    own = issued(certificate(MALLORY), MALLORY)
    foreign = issued(certificate(MALLORY, instance="ruby"))
    expired = issued(certificate(MALLORY, issued_at=NOW - 7200, expires_at=NOW))
    for text in ("", "a.b.c", own, foreign, expired, issued(access_token(MALLORY))):
        with pytest.raises(SignatureError):
            read(proof(text).signed(MALLORY))


def test_a_proof_for_another_instance_is_refused() -> None:
    with pytest.raises(SignatureError, match="another instance"):
        read(proof(CERTIFICATE, instance="ruby").signed(ALICE))


def test_a_proof_ages_fast() -> None:
    token = proof(CERTIFICATE).signed(ALICE)
    for now in (NOW - 30, NOW + 59.999):
        read(token, now=now)
    for now in (NOW - 30.001, NOW + 60):
        with pytest.raises(SignatureError):
            read(token, now=now)


def test_what_the_instance_signed_itself_is_no_proof() -> None:
    with pytest.raises(SignatureError, match="no kb-proof"):
        read(CERTIFICATE)
    with pytest.raises(SignatureError, match="issuers"):
        read(proof(CERTIFICATE).signed(ISSUER))


@pytest.mark.parametrize(
    "change",
    [
        {"use": "root"},
        {"use": "peer"},
        {"use": "access", "peer": "B"},
        {"use": "key", "peer": "B"},
        {"peer": None},
        {"id": ""},
        {"issued_at": -1},
        {"certificate": 5},
        {"certificate": "x" * 4097},
    ],
    ids=lambda change: "-".join(change),
)
def test_a_malformed_proof_is_not_made(change: dict[str, Any]) -> None:
    with pytest.raises(SignatureError):
        proof(CERTIFICATE, **change)


def test_a_proof_with_the_largest_certificate_still_fits() -> None:
    name = "\\" * 255
    text = issued(certificate(ALICE, subject=name, instance=name))
    made = proof(text, use="peer", peer=name, instance=name, id=ID)
    read_proof_untrusted(made.signed(ALICE), keys=keyring([ISSUER]), instance=name, now=NOW)
