"""Every vector of erlang-jose 1.11.5: what the policy accepts opens, what it refuses does not (R0-23)."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import BoxError, BridgeError, SignatureError
from bridge.jose import Jwk, box_compact, box_decrypt, verify
from bridge.jose.encoding import base64url_decode_untrusted, json_encode
from tests.support.vectors import jose_parameters

Vector = dict[str, Any]


def _boxes(vector: Vector) -> list[Any]:
    """Every form of one box: flattened, compact, flattened as JSON text."""
    forms = [vector[name] for name in ("box", "compact") if name in vector]
    return [*forms, json_encode(vector["box"]).decode()] if "box" in vector else forms


@pytest.mark.parametrize(
    "vector", jose_parameters("box_decrypt", "box_decrypt_ecdh_ss", "box_decrypt_ecdh_1pu")
)
def test_boxes_of_erlang_jose_open_or_are_refused_as_the_policy_says(vector: Vector) -> None:
    """R0-23."""
    recipient = Jwk.from_dict(vector["recipient"])
    for box in _boxes(vector):
        if vector["expect"] == "accept":
            assert box_decrypt(box, recipient) == base64url_decode_untrusted(vector["plaintext"])
        else:
            with pytest.raises(BoxError):
                box_decrypt(box, recipient)


@pytest.mark.parametrize("vector", jose_parameters("box_decrypt"))
def test_flattened_and_compact_forms_are_the_same_box(vector: Vector) -> None:
    if "box" in vector and "compact" in vector:
        assert box_compact(vector["box"]) == vector["compact"]


@pytest.mark.parametrize("vector", jose_parameters("jws_verify"))
def test_tokens_of_erlang_jose_hold_or_are_refused_as_the_policy_says(vector: Vector) -> None:
    for token in (vector["compact"], vector["flattened"]):
        if vector["expect"] == "accept":
            payload = verify(token, Jwk.from_dict(vector["verify_key"]))
            assert payload == base64url_decode_untrusted(vector["payload"])
        else:
            with pytest.raises(SignatureError):
                verify(token, Jwk.from_dict(vector["verify_key"]))


@pytest.mark.parametrize("vector", jose_parameters("box_decrypt_then_verify"))
def test_a_token_inside_a_box_is_read(vector: Vector) -> None:
    for box in _boxes(vector):
        token = box_decrypt(box, Jwk.from_dict(vector["recipient"])).decode()
        payload = verify(token, Jwk.from_dict(vector["verify_key"]))
        assert payload == base64url_decode_untrusted(vector["payload"])


@pytest.mark.parametrize("vector", jose_parameters("verify_then_box_decrypt"))
def test_a_box_inside_a_token_is_read(vector: Vector) -> None:
    box = verify(vector["compact"], Jwk.from_dict(vector["verify_key"]))
    assert box == base64url_decode_untrusted(vector["payload"])
    plaintext = box_decrypt(box.decode(), Jwk.from_dict(vector["recipient"]))
    assert plaintext == base64url_decode_untrusted(vector["plaintext"])


@pytest.mark.parametrize("vector", jose_parameters("thumbprint"))
def test_thumbprints_are_those_of_erlang_jose(vector: Vector) -> None:
    assert Jwk.from_dict(vector["key"]).thumbprint() == vector["sha256"]


@pytest.mark.parametrize("vector", jose_parameters("to_public"))
def test_public_halves_are_those_of_erlang_jose(vector: Vector) -> None:
    assert Jwk.from_dict(vector["key"]).public().to_dict() == vector["public"]


@pytest.mark.parametrize("vector", jose_parameters("pem_to_jwk"))
def test_pem_keys_are_read_as_erlang_jose_reads_them(vector: Vector) -> None:
    """R0-23: EC P-256 keys from PEM."""
    if vector["expect"] == "accept":
        key = Jwk.from_pem(vector["pem"].encode())
        assert key.to_dict() == vector["jose"]["jwk"]
        assert key.thumbprint() == vector["jose"]["thumbprint"]
        assert Jwk.from_pem(key.to_pem()) == key
    else:
        with pytest.raises(BridgeError):
            Jwk.from_pem(vector["pem"].encode())
