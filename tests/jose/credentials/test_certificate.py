from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import SignatureError
from bridge.jose import Jwk
from bridge.jose.credentials import Certificate, Role, keyring, read_certificate_untrusted
from bridge.jose.credentials.token import encode_token
from tests.support.credentials import INSTANCE, ISSUER, KEYS, NOW, certificate

ALICE = Jwk.generate()
NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="/"), min_size=1, max_size=60
).filter(lambda name: name not in (".", ".."))


def read(token: str, *, now: float = NOW, instance: str = INSTANCE) -> Certificate:
    return read_certificate_untrusted(token, keys=KEYS, instance=instance, now=now)


@given(subject=NAMES, role=st.sampled_from(Role), instance=NAMES, lifetime=st.integers(1, 90 * 86_400))
def test_a_certificate_reads_back(subject: str, role: Role, instance: str, lifetime: int) -> None:
    made = certificate(ALICE, subject=subject, role=role, instance=instance, expires_at=NOW + lifetime)
    token = encode_token(Certificate.TYP, made.claims(), ISSUER)
    assert read(token, instance=instance) == made
    assert made.thumbprint == ALICE.thumbprint()


@pytest.mark.parametrize(
    "change",
    [
        {"subject": ""},
        {"role": "root"},
        {"key": ALICE},
        {"instance": "\n"},
        {"expires_at": NOW + Certificate.MAX_LIFETIME_S + 1},
        {"expires_at": NOW},
        {"id": "AAAA"},
    ],
)
def test_what_no_reader_takes_is_not_made(change: dict[str, object]) -> None:
    with pytest.raises(SignatureError):
        certificate(ALICE, **change)


def test_a_certificate_of_a_foreign_instance_is_refused() -> None:
    """R0-32: also where its signing key were trusted."""
    token = encode_token(Certificate.TYP, certificate(ALICE, instance="ruby").claims(), ISSUER)
    with pytest.raises(SignatureError, match="another instance"):
        read(token)


def test_a_certificate_by_a_foreign_key_is_refused() -> None:
    """R0-32."""
    with pytest.raises(SignatureError, match="issuers"):
        read(encode_token(Certificate.TYP, certificate(ALICE).claims(), Jwk.generate()))


def test_an_expired_certificate_is_refused() -> None:
    """R0-32."""
    token = encode_token(Certificate.TYP, certificate(ALICE).claims(), ISSUER)
    assert read(token, now=NOW + 3599.9).subject == "alice"
    with pytest.raises(SignatureError, match="expired"):
        read(token, now=NOW + 3600)


@pytest.mark.parametrize(
    "change",
    [
        {"jwk": ALICE.to_dict()},
        {"sub": 7},
        {"role": "PLAYER"},
        {"iat": NOW - 0.5},
        {"exp": True},
        {"nbf": NOW},
        {"admin": True},
        {"jti": "=="},
    ],
    ids=lambda change: next(iter(change)),
)
def test_claims_beyond_the_one_form_are_refused_though_signed(change: dict[str, object]) -> None:
    token = encode_token(Certificate.TYP, {**certificate(ALICE).claims(), **change}, ISSUER)
    with pytest.raises(SignatureError):
        read(token)


def test_a_certificate_under_a_retired_key_holds_as_long_as_that_key_is_in_the_ring() -> None:
    old, new = Jwk.generate(), Jwk.generate()
    token = encode_token(Certificate.TYP, certificate(ALICE).claims(), old)
    read_certificate_untrusted(token, keys=keyring([new, old]), instance=INSTANCE, now=NOW)
    with pytest.raises(SignatureError, match="issuers"):
        read_certificate_untrusted(token, keys=keyring([new]), instance=INSTANCE, now=NOW)
