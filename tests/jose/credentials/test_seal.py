from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import SignatureError
from bridge.jose import Jwk
from bridge.jose.credentials import AccessToken, Seal, keyring, read_seal_untrusted
from bridge.jose.credentials.token import encode_token
from bridge.jose.encoding import base64url_encode
from tests.support.credentials import ID, INSTANCE, ISSUER, KEYS, NOW, access_token

DIGEST = base64url_encode(hashlib.sha256(b"{}").digest())
OTHER_ID = base64url_encode(bytes(16))


def seal(**changes: Any) -> Seal:
    members: dict[str, Any] = {
        "instance": INSTANCE,
        "audience": "ruby",
        "act": "offer",
        "digest": DIGEST,
        "question": None,
        "issued_at": NOW,
        "expires_at": NOW + 60,
        "id": ID,
    }
    return Seal(**{**members, **changes})


def read(token: str, **changes: Any) -> Seal:
    arguments: dict[str, Any] = {"keys": KEYS, "instance": INSTANCE, "audience": "ruby", "now": NOW}
    return read_seal_untrusted(token, **{**arguments, **changes})


@given(
    act=st.sampled_from(["offer", "verdict"]),
    question=st.none() | st.just(OTHER_ID),
    life=st.integers(1, 300),
)
def test_a_seal_reads_back(act: str, question: str | None, life: int) -> None:
    made = seal(act=act, question=question, expires_at=NOW + life)
    assert read(encode_token(Seal.TYP, made.claims(), ISSUER)) == made


@pytest.mark.parametrize(
    "change",
    [
        {"instance": ""},
        {"audience": ""},
        {"act": ""},
        {"digest": "short"},
        {"question": ""},
        {"expires_at": NOW + 301},
        {"id": "AA"},
    ],
    ids=str,
)
def test_what_no_reader_takes_is_not_made(change: dict[str, object]) -> None:
    with pytest.raises(SignatureError):
        seal(**change)


def test_a_seal_is_of_one_instance_for_one_other() -> None:
    token = encode_token(Seal.TYP, seal().claims(), ISSUER)
    with pytest.raises(SignatureError, match="for 'ruby', not for opal"):
        read(token, audience="opal")
    with pytest.raises(SignatureError, match="of another instance"):
        read(token, instance="opal")
    with pytest.raises(SignatureError, match="not one of its issuers"):
        read(token, keys=keyring([Jwk.generate()]))
    with pytest.raises(SignatureError, match="expired"):
        read(token, now=NOW + 60)


def test_another_credential_is_no_seal() -> None:
    with pytest.raises(SignatureError, match="no kb-escrow"):
        read(encode_token(AccessToken.TYP, access_token(ISSUER).claims(), ISSUER))
