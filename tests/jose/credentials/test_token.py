from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import SignatureError
from bridge.jose import Jwk, sign, verify
from bridge.jose.credentials.token import (
    MAX_CREDENTIAL_BYTES,
    decode_token_untrusted,
    encode_token,
    keyring,
    peek_token_untrusted,
)
from bridge.jose.encoding import base64url_decode_untrusted, base64url_encode, json_encode
from bridge.jose.signature import sign_raw
from tests.support.credentials import ISSUER, KEYS

TYP = "kb-test+jwt"
TOKEN = encode_token(TYP, {"a": 1}, ISSUER)
JSON = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    max_size=8,
)


def forged(
    header: dict[str, object], payload: bytes = b"{}", key: Jwk = ISSUER, algorithm: str = "ES256"
) -> str:
    """A token with any header, whose signature holds."""
    covered = f"{base64url_encode(json_encode(header))}.{base64url_encode(payload)}"
    return f"{covered}.{base64url_encode(sign_raw(covered.encode(), key, algorithm))}"


def header(**changes: object) -> dict[str, object]:
    return {"alg": "ES256", "kid": ISSUER.thumbprint(), "typ": TYP, **changes}


@given(JSON)
def test_what_was_signed_reads_back(claims: dict[str, object]) -> None:
    token = encode_token(TYP, claims, ISSUER)
    assert decode_token_untrusted(token, typ=TYP, keys=KEYS) == claims
    assert peek_token_untrusted(token, typ=TYP) == claims


def test_a_token_is_a_compact_jws_that_any_reader_of_jose_takes() -> None:
    assert verify(TOKEN, ISSUER.public()) == b'{"a":1}'


@given(st.integers(0, 8 * len(TOKEN) - 1))
def test_no_flipped_bit_goes_unnoticed(bit: int) -> None:
    raw = bytearray(TOKEN.encode())
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SignatureError):
        decode_token_untrusted(raw.decode("latin-1"), typ=TYP, keys=KEYS)


def test_a_token_of_another_type_is_refused() -> None:
    with pytest.raises(SignatureError, match="no kb-other"):
        decode_token_untrusted(TOKEN, typ="kb-other+jwt", keys=KEYS)


def test_a_token_by_another_key_is_refused_whatever_key_it_names() -> None:
    mallory = Jwk.generate()
    with pytest.raises(SignatureError, match="issuers"):
        decode_token_untrusted(encode_token(TYP, {}, mallory), typ=TYP, keys=KEYS)
    with pytest.raises(SignatureError, match="does not hold"):
        decode_token_untrusted(forged(header(), key=mallory), typ=TYP, keys=KEYS)


@pytest.mark.parametrize(
    "changed",
    [
        header(alg="none"),
        header(alg="HS256"),
        header(alg="ES384"),
        header(alg="es256"),
        header(alg=None),
        header(crit=["exp"]),
        header(crit=[]),
        header(b64=False),
        header(zip="DEF"),
        header(jwk=ISSUER.public_members()),
        header(jku="https://example.org/keys"),
        header(cty="jwt"),
        header(typ="JWT"),
        header(typ=TYP.upper()),
        header(kid=["a"]),
        header(kid=""),
        {"alg": "ES256", "typ": TYP},
        {"alg": "ES256", "kid": ISSUER.thumbprint()},
    ],
)
def test_a_header_other_than_the_one_form_is_refused_though_its_signature_holds(
    changed: dict[str, object],
) -> None:
    with pytest.raises(SignatureError):
        decode_token_untrusted(forged(changed), typ=TYP, keys=KEYS)


def test_the_public_key_is_no_shared_secret() -> None:
    """The attack on readers that let the header choose the algorithm."""
    for secret in (
        ISSUER.public().to_pem(),
        ISSUER.public().to_json().encode(),
        ISSUER.thumbprint().encode(),
    ):
        shared = Jwk.from_dict({"kty": "oct", "k": base64url_encode(secret)})
        token = forged(header(alg="HS256"), key=shared, algorithm="HS256")
        with pytest.raises(SignatureError, match="ES256"):
            decode_token_untrusted(token, typ=TYP, keys=KEYS)


def test_a_token_without_a_signature_is_refused() -> None:
    first, second, _ = TOKEN.split(".")
    for text in (
        f"{first}.{second}.",
        f"{first}.{second}",
        f"{first}.{second}.{base64url_encode(bytes(64))}",
    ):
        with pytest.raises(SignatureError):
            decode_token_untrusted(text, typ=TYP, keys=KEYS)


def test_a_general_signature_of_the_same_key_is_no_credential() -> None:
    with pytest.raises(SignatureError, match="header"):
        decode_token_untrusted(sign(b"{}", ISSUER), typ=TYP, keys=KEYS)


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"{", b'{"a":1,"a":2}', b'{"a":NaN}', b"\xff", b'{"a":' * 9 + b"1" + b"}" * 9]
)
def test_claims_that_are_no_strict_object_are_refused(payload: bytes) -> None:
    with pytest.raises(SignatureError, match="claims"):
        decode_token_untrusted(forged(header(), payload), typ=TYP, keys=KEYS)


def test_the_length_is_bounded_on_both_sides() -> None:
    room = MAX_CREDENTIAL_BYTES - len(encode_token(TYP, {"a": ""}, ISSUER))
    claims = {"a": "x" * (room * 3 // 4)}
    longest = encode_token(TYP, claims, ISSUER)
    assert decode_token_untrusted(longest, typ=TYP, keys=KEYS) == claims
    with pytest.raises(SignatureError, match="are the most"):
        encode_token(TYP, {"a": claims["a"] + "xxx"}, ISSUER)
    with pytest.raises(SignatureError, match="at most"):
        decode_token_untrusted("." * (MAX_CREDENTIAL_BYTES + 1), typ=TYP, keys=KEYS)


def test_a_long_header_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(SignatureError, match="header longer"):
        decode_token_untrusted(forged(header(x="y" * 200)), typ=TYP, keys=KEYS)


@pytest.mark.parametrize("claims", [{"a": "\ud800"}, {"a": object()}])
def test_claims_that_are_no_json_are_not_signed(claims: dict[str, object]) -> None:
    with pytest.raises(SignatureError, match="no JSON"):
        encode_token(TYP, claims, ISSUER)


def test_only_keys_on_p_256_issue() -> None:
    other = Jwk.generate("P-384")
    with pytest.raises(SignatureError, match="P-256"):
        encode_token(TYP, {}, other)
    with pytest.raises(SignatureError, match="P-256"):
        keyring([other])
    with pytest.raises(SignatureError, match="P-256"):
        decode_token_untrusted(TOKEN, typ=TYP, keys={ISSUER.thumbprint(): other})
    with pytest.raises(SignatureError, match="cannot sign"):
        encode_token(TYP, {}, ISSUER.public())


def test_a_keyring_holds_no_private_half() -> None:
    assert not KEYS[ISSUER.thumbprint()].is_private


def test_an_equivalent_signature_holds_so_that_tokens_are_no_identities() -> None:
    """Whoever must know a token again goes by its id."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    covered, _, signature = TOKEN.rpartition(".")
    raw = base64url_decode_untrusted(signature)
    bent = raw[:32] + (order - int.from_bytes(raw[32:])).to_bytes(32)
    assert decode_token_untrusted(f"{covered}.{base64url_encode(bent)}", typ=TYP, keys=KEYS) == {"a": 1}
