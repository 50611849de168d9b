from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import SignatureError
from bridge.jose import Jwk
from bridge.jose.credentials import AccessToken, Certificate, Role, read_access_untrusted
from bridge.jose.credentials.token import encode_token
from tests.support.credentials import INSTANCE, ISSUER, KEYS, NOW, access_token, certificate

ALICE = Jwk.generate()
NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="/"), min_size=1, max_size=60
).filter(lambda name: name not in (".", ".."))


def read(token: str, *, now: float = NOW, instance: str = INSTANCE) -> AccessToken:
    return read_access_untrusted(token, keys=KEYS, instance=instance, now=now)


@given(subject=NAMES, role=st.sampled_from(Role), lifetime=st.integers(1, 300))
def test_an_access_token_reads_back(subject: str, role: Role, lifetime: int) -> None:
    made = access_token(ALICE, subject=subject, role=role, expires_at=NOW + lifetime)
    assert read(encode_token(AccessToken.TYP, made.claims(), ISSUER)) == made


@pytest.mark.parametrize(
    "change",
    [
        {"subject": ""},
        {"role": "root"},
        {"thumbprint": ""},
        {"instance": ""},
        {"expires_at": NOW + 301},
        {"id": ""},
    ],
    ids=str,
)
def test_what_no_reader_takes_is_not_made(change: dict[str, object]) -> None:
    with pytest.raises(SignatureError):
        access_token(ALICE, **change)


def test_a_certificate_is_no_access_token_and_the_other_way_round() -> None:
    with pytest.raises(SignatureError, match="no kb-access"):
        read(encode_token(Certificate.TYP, certificate(ALICE).claims(), ISSUER))
    with pytest.raises(SignatureError, match="exactly"):
        read(encode_token(AccessToken.TYP, certificate(ALICE).claims(), ISSUER))


def test_a_token_of_or_for_another_instance_is_refused() -> None:
    other = access_token(ALICE, instance="ruby").claims()
    for claims in (other, {**other, "iss": INSTANCE}, {**other, "aud": INSTANCE}):
        with pytest.raises(SignatureError, match="instance"):
            read(encode_token(AccessToken.TYP, claims, ISSUER))


def test_the_limits_of_its_time_are_exact() -> None:
    token = encode_token(AccessToken.TYP, access_token(ALICE).claims(), ISSUER)
    for now in (NOW - 30, NOW, NOW + 299.999):
        read(token, now=now)
    for now in (NOW - 30.001, NOW + 300):
        with pytest.raises(SignatureError):
            read(token, now=now)


def test_a_longer_lifetime_is_refused_though_signed() -> None:
    claims = {**access_token(ALICE).claims(), "exp": NOW + 301}
    with pytest.raises(SignatureError, match="lifetime"):
        read(encode_token(AccessToken.TYP, claims, ISSUER))
