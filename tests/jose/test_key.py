from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import KeyFormatError
from bridge.jose import Jwk
from bridge.jose.encoding import base64url_decode_untrusted, base64url_encode
from bridge.jose.key import MAX_KEY_BYTES, MAX_OCT_BYTES
from tests.support.jose_keys import CURVES, KEYS

# RFC 7517 appendix A.2, the example with a private P-256 key; RFC 8037 appendix A.1 and A.3.
P256 = {
    "kty": "EC",
    "crv": "P-256",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    "d": "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE",
}
ED25519 = {
    "kty": "OKP",
    "crv": "Ed25519",
    "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
}


def test_the_keys_of_the_standards_are_read() -> None:
    assert Jwk.from_dict(P256).to_dict() == P256
    assert Jwk.from_dict(ED25519).thumbprint() == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize("curve", CURVES)
def test_a_key_reads_back_from_dict_and_json_and_pickle(curve: str) -> None:
    key = KEYS[curve]
    assert key.curve == curve
    for again in (
        Jwk.from_dict(key.to_dict()),
        Jwk.from_json(key.to_json()),
        Jwk.from_json(key.to_json().encode()),
        pickle.loads(pickle.dumps(key)),
        copy.deepcopy(key),
    ):
        assert again == key
        assert hash(again) == hash(key)
        assert again.is_private


@pytest.mark.parametrize("curve", CURVES)
def test_the_public_half_has_the_same_thumbprint_and_no_secret(curve: str) -> None:
    key = KEYS[curve]
    public = key.public()
    assert public.thumbprint() == key.thumbprint()
    assert base64url_decode_untrusted(key.thumbprint()) == key.thumbprint_bytes()
    assert "d" not in public.to_dict()
    assert not public.is_private
    assert public != key
    assert public.public() is public
    with pytest.raises(KeyFormatError):
        _ = public.private_key


def test_a_printed_key_shows_no_secret() -> None:
    for key in KEYS.values():
        assert key.to_dict()["d"] not in f"{key!r} {key}"


def test_descriptions_are_kept_and_do_not_change_a_thumbprint() -> None:
    key = Jwk.from_dict({**P256, "kid": "sim-1", "use": "sig", "alg": "ES256", "x5c": ["…"], "ext": True})
    assert key.to_dict() == {**P256, "kid": "sim-1", "use": "sig", "alg": "ES256"}
    assert key.kid == "sim-1"
    assert key.public().kid == "sim-1"
    assert key.thumbprint() == Jwk.from_dict(P256).thumbprint()
    assert key == Jwk.from_dict(P256)


def test_coordinates_keep_their_leading_zeros() -> None:
    """One key in 256 starts with a zero byte; without it the thumbprint is another."""
    for _ in range(2000):
        key = Jwk.generate()
        x = base64url_decode_untrusted(key.to_dict()["x"])
        assert len(x) == 32
        if x[0] == 0:
            break
    else:
        pytest.skip("no coordinate with a leading zero in 2000 keys")
    assert Jwk.from_pem(key.to_pem()) == key == Jwk.from_dict(key.to_dict())
    with pytest.raises(KeyFormatError, match="31 bytes"):
        Jwk.from_dict({**key.to_dict(), "x": base64url_encode(x[1:])})


def _flip(text: str) -> str:
    raw = bytearray(base64url_decode_untrusted(text))
    raw[-1] ^= 1
    return base64url_encode(bytes(raw))


@pytest.mark.parametrize(
    "change",
    [
        {"y": _flip(P256["y"])},
        {"x": "A" * 43, "y": "A" * 43},
        {"d": _flip(P256["d"])},
        {"d": "A" * 43},
        {"d": base64url_encode(b"\xff" * 32)},
        {"d": P256["d"] + "A"},
        {"x": P256["x"] + "="},
        {"x": P256["x"][:-1] + "5"},
        {"x": ""},
        {"x": None},
        {"x": 5},
        {"x": base64url_encode(b"\xff" * 32)},
        {"crv": "P-384"},
        {"crv": "secp256k1"},
        {"crv": "X25519"},
        {"crv": ["P-256"]},
        {"kty": "OKP"},
        {"kty": "ec"},
        {"kty": None},
        {"kty": ["EC"]},
        {"kid": 7},
        {"kid": "a\nb"},
        {"kid": "\ud800"},
        {"kid": "x" * 5000},
    ],
)
def test_members_that_do_not_fit_together_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(KeyFormatError):
        Jwk.from_dict({**P256, **change})


@pytest.mark.parametrize("name", ["kty", "crv", "x", "y"])
def test_a_missing_member_is_refused(name: str) -> None:
    with pytest.raises(KeyFormatError):
        Jwk.from_dict({member: value for member, value in P256.items() if member != name})


@pytest.mark.parametrize("curve", ["X25519", "X448", "Ed25519", "Ed448"])
def test_an_okp_key_with_a_strange_private_half_is_refused(curve: str) -> None:
    members = KEYS[curve].to_dict()
    with pytest.raises(KeyFormatError, match="does not belong"):
        Jwk.from_dict({**members, "d": Jwk.generate(curve).to_dict()["d"]})
    with pytest.raises(KeyFormatError):
        Jwk.from_dict({**members, "x": members["x"][:-4]})
    with pytest.raises(KeyFormatError, match="small order"):
        Jwk.from_dict(
            {
                "kty": "OKP",
                "crv": curve,
                "x": base64url_encode(bytes(len(base64url_decode_untrusted(members["x"])))),
            }
        )


def test_an_edwards_key_that_is_no_point_is_not_trusted_later() -> None:
    # OpenSSL decodes the point only when it verifies, where such a key refuses every signature.
    key = Jwk.from_dict({"kty": "OKP", "crv": "Ed25519", "x": base64url_encode(b"\x02" + bytes(31))})
    assert not key.is_private


def test_shared_secrets_have_no_public_half_and_a_bounded_length() -> None:
    key = Jwk.from_dict({"kty": "oct", "k": base64url_encode(b"s" * 32)})
    assert key.secret == b"s" * 32
    assert key.curve is None
    assert key.is_private
    assert Jwk.from_dict(key.to_dict()) == key
    assert key != Jwk.from_dict({"kty": "oct", "k": base64url_encode(b"t" * 32)})
    for use in (key.public, key.to_pem, lambda: key.private_key, lambda: key.public_key):
        with pytest.raises(KeyFormatError):
            use()
    Jwk.from_dict({"kty": "oct", "k": base64url_encode(bytes(MAX_OCT_BYTES))})
    for secret in (b"", bytes(MAX_OCT_BYTES + 1)):
        with pytest.raises(KeyFormatError):
            Jwk.from_dict({"kty": "oct", "k": base64url_encode(secret)})


def test_rsa_keys_have_a_thumbprint_and_nothing_else() -> None:
    key = Jwk.from_dict({"kty": "RSA", "n": "AQAB", "e": "AQAB", "alg": "RS256"})
    assert len(key.thumbprint_bytes()) == 32
    assert not key.is_private
    for use in (key.to_pem, lambda: key.private_key, lambda: key.public_key, lambda: key.secret):
        with pytest.raises(KeyFormatError):
            use()
    with pytest.raises(KeyFormatError, match="private RSA"):
        Jwk.from_dict({"kty": "RSA", "n": "AQAB", "e": "AQAB", "d": "AQAB"})
    for name in ("n", "e"):
        # The same key with another thumbprint.
        with pytest.raises(KeyFormatError, match="leading zeros"):
            Jwk.from_dict({"kty": "RSA", "n": "AQAB", "e": "AQAB"} | {name: "AAEAAQ"})


def test_only_the_named_constructors_make_keys() -> None:
    with pytest.raises(KeyFormatError):
        Jwk()
    with pytest.raises(KeyFormatError, match="none of P-256"):
        Jwk.generate("secp256k1")
    assert KEYS["P-256"] != "text"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"kty":"EC","kty":"EC"}',
        b"\xff",
        "\ud800",
        " " * (MAX_KEY_BYTES + 1),
        "[" * 10_000,
    ],
)
def test_text_that_is_no_key_is_refused(text: str | bytes) -> None:
    with pytest.raises(KeyFormatError):
        Jwk.from_json(text)


_VALUES = st.sampled_from(
    [
        None,
        7,
        "",
        "EC",
        "OKP",
        "oct",
        "RSA",
        "P-256",
        "P-384",
        "X25519",
        "Ed448",
        "AQAB",
        "é",
        "A" * 43,
        "_" * 42,
    ]
)


@given(
    st.sampled_from([key.to_dict() for key in KEYS.values()]),
    st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "d", "k", "n", "e", "kid"]), _VALUES, max_size=3
    ),
)
def test_any_members_are_a_key_or_a_key_format_error(members: dict[str, Any], change: dict[str, Any]) -> None:
    try:
        key = Jwk.from_dict({**members, **change})
    except KeyFormatError:
        return
    assert Jwk.from_dict(key.to_dict()) == key


def test_a_key_text_over_the_limit_is_refused_though_it_is_a_key() -> None:
    text = KEYS["P-256"].to_json()
    assert Jwk.from_json(text.ljust(MAX_KEY_BYTES)) == KEYS["P-256"]
    for longer in (text.ljust(MAX_KEY_BYTES + 1), text.encode().ljust(MAX_KEY_BYTES + 1)):
        with pytest.raises(KeyFormatError, match="longer than"):
            Jwk.from_json(longer)


def test_what_is_no_mapping_is_no_key() -> None:
    with pytest.raises(KeyFormatError):
        Jwk.from_dict([("kty", "EC")])  # type: ignore[arg-type]


def test_a_key_file_holds_pem_or_json() -> None:
    key = Jwk.from_dict(P256)
    pem = key.to_pem()
    for text in (pem, pem.decode(), key.to_json(), key.to_json().encode()):
        assert Jwk.from_text(text) == key
    for text in ("", b"", "-----BEGIN nothing", "\ud800", b"\xff"):
        with pytest.raises(KeyFormatError):
            Jwk.from_text(text)
