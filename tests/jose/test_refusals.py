"""What other implementations let through is refused: by one kind of error, in little time and memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from bridge.errors import BoxError, KeyFormatError, SignatureError
from bridge.jose import Jwk, box_compact, box_decrypt, verify
from bridge.jose.encoding import base64url_decode_untrusted, json_encode
from tests.support.jose_attacks import (
    BOB,
    PLAINTEXT,
    BoxAttack,
    TokenAttack,
    box_attacks,
    sealed,
    small_order_keys,
    token_attacks,
)

MAX_MEMORY_BYTES = 32 * 1_048_576
"""for what is itself a megabyte of text; the bomb alone would take 8 MiB for each 8 KiB"""


@contextmanager
def _bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MAX_MEMORY_BYTES
    finally:
        tracemalloc.stop()


def _forms(box: object) -> list[object]:
    """A box in every form that it has: flattened, compact, flattened as JSON text."""
    forms = [box]
    if isinstance(box, dict):
        forms.append(json_encode(box).decode())
        if all(isinstance(value, str) for value in box.values()):
            forms.append(box_compact(box))
    return forms


def test_a_careful_sender_passes_where_the_attackers_fail() -> None:
    for form in _forms(sealed()):
        assert box_decrypt(form, BOB) == PLAINTEXT  # type: ignore[arg-type]


@pytest.mark.parametrize("attack", list(box_attacks()), ids=lambda attack: attack.name)
def test_a_box_that_a_lax_reader_opens_is_refused(attack: BoxAttack) -> None:
    """R0-15..22."""
    # An extra member has no place in compact text: what is left there is the honest box.
    forms = _forms(attack.box)[: 2 if "member" in attack.name else None]
    for form in forms:
        with _bounded_memory(), pytest.raises(BoxError) as refused:
            box_decrypt(form, attack.recipient)  # type: ignore[arg-type]
        assert len(str(refused.value)) < 300


@pytest.mark.parametrize("attack", list(token_attacks()), ids=lambda attack: attack.name)
def test_a_token_that_a_lax_reader_takes_is_refused(attack: TokenAttack) -> None:
    """R0-15..22."""
    with _bounded_memory(), pytest.raises(SignatureError) as refused:
        verify(attack.token, attack.key.public())
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("name", "members", "token"), list(small_order_keys()), ids=lambda value: str(value)[:60]
)
def test_a_key_under_which_anything_holds_never_becomes_a_key(
    name: str, members: dict[str, str], token: str
) -> None:
    with pytest.raises(KeyFormatError, match="small order"):
        Jwk.from_dict(members)
    with pytest.raises(KeyFormatError):
        Jwk.from_json(json_encode(members))


def test_the_signature_made_by_nobody_holds_for_a_reader_that_does_not_look() -> None:
    """So the refusals above are needed: OpenSSL does not look at keys on Ed25519."""
    _, members, token = next(small_order_keys())
    covered, _, signature = token.rpartition(".")
    key = ed25519.Ed25519PublicKey.from_public_bytes(base64url_decode_untrusted(members["x"]))
    for message in (covered.encode(), b"anything", b"else"):
        key.verify(base64url_decode_untrusted(signature), message)


@pytest.mark.parametrize(
    "read",
    [
        lambda text: Jwk.from_json(text),
        lambda text: Jwk.from_pem(text),
    ],
)
@pytest.mark.parametrize(
    "text",
    [
        "{" * 1_048_576,
        '{"kty":' * 2000,
        "-----BEGIN PUBLIC KEY-----\n" * 600,
        "-----BEGIN " * 40_000,
        "\0" * 16_384,
    ],
)
def test_a_key_text_that_is_a_bomb_is_refused(read: Callable[[str], object], text: str) -> None:
    with _bounded_memory(), pytest.raises(KeyFormatError):
        read(text)
