from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import KeyFormatError, SignatureError
from bridge.jose import Jwk, sign, token_flattened, verify
from bridge.jose import signature as signing
from bridge.jose.curves import EC_CURVES
from bridge.jose.encoding import base64url_decode_untrusted, base64url_encode, json_encode
from bridge.jose.signature import MAX_TOKEN_BYTES, MAX_TOKEN_HEADER_BYTES
from tests.support.jose_keys import KEYS, flip_bit, genuine_token

ALICE, MALLORY = KEYS["P-256"], Jwk.generate()
SECRET = Jwk.from_dict({"kty": "oct", "k": base64url_encode(bytes(range(32)))})
SIGNERS = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA", "Ed448": "EdDSA"}
ORDER = EC_CURVES["P-256"].order


@given(st.sampled_from(sorted(SIGNERS)), st.binary(max_size=300))
def test_what_was_signed_holds_in_both_forms(curve: str, payload: bytes) -> None:
    token = sign(payload, KEYS[curve])
    protected, body, signature = token.split(".")
    assert base64url_decode_untrusted(protected) == json_encode({"alg": SIGNERS[curve]})
    assert verify(token, KEYS[curve].public()) == payload
    flattened = {"protected": protected, "payload": body, "signature": signature}
    assert token_flattened(token) == flattened
    assert verify(flattened, KEYS[curve]) == payload
    assert verify(json_encode(flattened).decode(), KEYS[curve]) == payload


@pytest.mark.parametrize("curve", sorted(SIGNERS))
def test_every_flipped_bit_of_a_signature_is_refused(curve: str) -> None:
    head, _, signature = sign(b"state", KEYS[curve]).rpartition(".")
    for bit in range(len(base64url_decode_untrusted(signature)) * 8):
        with pytest.raises(SignatureError):
            verify(f"{head}.{flip_bit(signature, bit)}", KEYS[curve])


@pytest.mark.parametrize("curve", ["P-256", "P-384", "P-521"])
def test_numbers_of_a_signature_with_more_or_fewer_zeros_before_them_are_refused(curve: str) -> None:
    """The same two numbers, so that only the length tells: one signature would have many texts."""
    size = EC_CURVES[curve].size
    while True:
        head, _, text = sign(b"state", KEYS[curve]).rpartition(".")
        raw = base64url_decode_untrusted(text)
        if raw[size] == 0:
            break
    for other in (raw[:size] + b"\0" + raw[size:], raw[:size] + raw[size + 1 :], raw[:size], b""):
        with pytest.raises(SignatureError, match="bytes where"):
            verify(f"{head}.{base64url_encode(other)}", KEYS[curve])


def _flattened_text(token: str) -> str:
    return json_encode(token_flattened(token)).decode()


@pytest.mark.parametrize("form", [str, token_flattened, _flattened_text])
def test_a_token_over_the_limit_is_refused_though_it_holds(
    form: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def size(token: Any) -> int:
        return len(token) if isinstance(token, str) else sum(map(len, token.values()))

    empty = size(form(sign(b"", SECRET)))
    largest = (MAX_TOKEN_BYTES - empty) * 3 // 4
    monkeypatch.setattr(signing, "MAX_TOKEN_BYTES", 2 * MAX_TOKEN_BYTES)
    fits, exceeds = (form(sign(bytes(length), SECRET)) for length in (largest, largest + 1))
    assert size(fits) <= MAX_TOKEN_BYTES < size(exceeds) <= MAX_TOKEN_BYTES + 2
    assert len(verify(exceeds, SECRET)) == largest + 1
    monkeypatch.undo()
    assert len(verify(fits, SECRET)) == largest
    with pytest.raises(SignatureError, match="longer than"):
        verify(exceeds, SECRET)


def test_a_shared_secret_signs_with_hmac_and_its_length_bounds_the_hash() -> None:
    assert verify(sign(b"x", SECRET), SECRET) == b"x"
    with pytest.raises(SignatureError, match="does not hold"):
        verify(sign(b"x", SECRET)[:-4] + "AAAA", SECRET)
    with pytest.raises(SignatureError, match="as the key demands"):
        verify(genuine_token(SECRET, "HS512", b'{"alg":"HS512"}'), SECRET)
    with pytest.raises(SignatureError, match="32 bytes or more"):
        sign(b"x", Jwk.from_dict({"kty": "oct", "k": base64url_encode(bytes(31))}))


@pytest.mark.parametrize(
    "algorithm", ["HS256", "none", "None", "ES384", "EdDSA", "RS256", "", None, 5, ["ES256"]]
)
def test_the_key_decides_the_algorithm(algorithm: Any) -> None:
    """The public key as an HMAC secret, and no signature at all, are the classic confusions."""
    header = json_encode({"alg": algorithm})
    public_as_secret = Jwk.from_dict({"kty": "oct", "k": base64url_encode(ALICE.public().to_pem())})
    for token in (
        genuine_token(ALICE, "ES256", header),
        genuine_token(public_as_secret, "HS256", header),
        f"{base64url_encode(header)}.{base64url_encode(b'x')}.",
    ):
        with pytest.raises(SignatureError, match="as the key demands"):
            verify(token, ALICE.public())


@pytest.mark.parametrize("curve", ["Ed25519", "Ed448"])
def test_fully_specified_edwards_names_hold_for_their_curve_only(curve: str) -> None:
    """RFC 9864."""
    key = KEYS[curve]
    assert verify(genuine_token(key, "EdDSA", json_encode({"alg": curve})), key) == b"genuine"
    other = {"Ed25519": "Ed448", "Ed448": "Ed25519"}[curve]
    with pytest.raises(SignatureError):
        verify(genuine_token(key, "EdDSA", json_encode({"alg": other})), key)


@pytest.mark.parametrize(
    "extra",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"b64": True},
        {"zip": "DEF"},
    ],
)
def test_what_changes_the_meaning_of_a_signature_is_refused_though_it_holds(extra: dict[str, Any]) -> None:
    token = genuine_token(ALICE, "ES256", json_encode({"alg": "ES256", **extra}))
    with pytest.raises(SignatureError, match="is not allowed"):
        verify(token, ALICE)


def test_a_carried_key_is_never_used() -> None:
    """R0-15..22: a self-carried key refused."""
    header = json_encode({"alg": "ES256", "jwk": MALLORY.public().to_dict(), "kid": ALICE.thumbprint()})
    with pytest.raises(SignatureError, match="does not hold"):
        verify(genuine_token(MALLORY, "ES256", header), ALICE)
    assert verify(genuine_token(ALICE, "ES256", header), ALICE) == b"genuine"


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":"none","alg":"ES256"}',
        b'{"alg":"ES256"}{}',
        b'["ES256"]',
        b"",
        b'{"alg":"ES256","a":"\\ud800"}',
        b'{"alg":"ES256","a":' + b"[" * 20 + b"]" * 20 + b"}",
        b'{"alg":"ES256"}' + b" " * MAX_TOKEN_HEADER_BYTES,
    ],
)
def test_headers_with_two_readings_are_refused_though_the_signature_holds(header: bytes) -> None:
    with pytest.raises(SignatureError, match="no token"):
        verify(genuine_token(ALICE, "ES256", header), ALICE)


@pytest.mark.parametrize("token", [b"a.b.c", None, 7])
def test_what_is_neither_text_nor_an_object_is_no_token(token: Any) -> None:
    with pytest.raises(SignatureError, match="neither text nor an object"):
        verify(token, ALICE)


def _r_and_s() -> tuple[str, int, int]:
    head, _, signature = sign(b"state", ALICE).rpartition(".")
    raw = base64url_decode_untrusted(signature)
    return head, int.from_bytes(raw[:32]), int.from_bytes(raw[32:])


def test_the_other_s_of_the_same_signature_holds_so_tokens_are_no_replay_keys() -> None:
    head, r, s = _r_and_s()
    other = base64url_encode(r.to_bytes(32) + (ORDER - s).to_bytes(32))
    assert verify(f"{head}.{other}", ALICE) == b"state"


def test_numbers_out_of_range_and_der_are_refused() -> None:
    head, r, s = _r_and_s()
    for raw in (
        bytes(64),
        bytes(32) + s.to_bytes(32),
        r.to_bytes(32) + bytes(32),
        ORDER.to_bytes(32) + s.to_bytes(32),
        r.to_bytes(32) + ORDER.to_bytes(32),
        b"\xff" * 64,
        b"\0" + r.to_bytes(32) + s.to_bytes(32),
        encode_dss_signature(r, s),
        b"",
    ):
        with pytest.raises(SignatureError):
            verify(f"{head}.{base64url_encode(raw)}", ALICE)


@pytest.mark.parametrize("y", [0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18])
def test_an_edwards_key_of_small_order_never_becomes_a_key(y: int) -> None:
    with pytest.raises(KeyFormatError, match="small order"):
        Jwk.from_dict({"kty": "OKP", "crv": "Ed25519", "x": base64url_encode(y.to_bytes(32, "little"))})


def test_an_edwards_signature_has_one_length() -> None:
    head, _, signature = sign(b"x", KEYS["Ed25519"]).rpartition(".")
    with pytest.raises(SignatureError, match="wrong length"):
        verify(f"{head}.{signature}AA", KEYS["Ed25519"])


def test_keys_that_cannot_sign_do_not() -> None:
    rsa = Jwk.from_dict({"kty": "RSA", "n": "AQAB", "e": "AQAB"})
    for key in (ALICE.public(), KEYS["X25519"], rsa):
        with pytest.raises(SignatureError):
            sign(b"x", key)
    for key in (KEYS["X25519"], rsa, MALLORY, KEYS["P-384"], KEYS["Ed25519"], SECRET):
        with pytest.raises(SignatureError):
            verify(sign(b"x", ALICE), key)


def test_tokens_of_the_wrong_shape_are_refused() -> None:
    token = sign(b"x", ALICE)
    protected, payload, signature = token.split(".")
    flattened = {"protected": protected, "payload": payload, "signature": signature}
    for wrong in (
        "",
        "..",
        token + ".",
        token + "=",
        token + "\n",
        token.encode(),
        None,
        {},
        {**flattened, "header": {"kid": "k"}},
        {"payload": payload, "signatures": [flattened]},
        json_encode({"payload": payload, "signatures": [flattened]}).decode(),
        json_encode(flattened).decode()[:-1] + f',"signature":"{signature}"}}',
        "{",
        '{"protected":5}',
        "\ud800",
        {**flattened, "payload": 5},
        {**flattened, "payload": "A" * MAX_TOKEN_BYTES},
        "A" * (MAX_TOKEN_BYTES + 1),
    ):
        with pytest.raises(SignatureError):
            verify(wrong, ALICE)  # type: ignore[arg-type]
    with pytest.raises(SignatureError, match="three segments"):
        token_flattened(".")
    with pytest.raises(SignatureError, match="too long"):
        sign(bytes(MAX_TOKEN_BYTES), ALICE)


_TOKEN = sign(b"state", ALICE)


@given(st.integers(0, len(_TOKEN)), st.integers(0, 8), st.text(max_size=8))
def test_any_other_text_is_a_signature_error(at: int, cut: int, patch: str) -> None:
    text = _TOKEN[:at] + patch + _TOKEN[at + cut :]
    with contextlib.suppress(SignatureError):
        assert verify(text, ALICE) == b"state"
        assert text == _TOKEN
