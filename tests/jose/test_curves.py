from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x448, x25519

from bridge.jose.curves import _X448_SMALL_ORDER, _X25519_SMALL_ORDER, EC_CURVES, OKP_SIZES, is_weak_okp
from bridge.jose.key import Jwk


@pytest.mark.parametrize("name", EC_CURVES)
def test_the_order_is_the_first_number_that_is_no_private_key(name: str) -> None:
    curve = EC_CURVES[name]
    ec.derive_private_key(curve.order - 1, curve.curve)
    with pytest.raises(ValueError):
        ec.derive_private_key(curve.order, curve.curve)


@pytest.mark.parametrize("u", sorted(_X25519_SMALL_ORDER))
def test_x25519_gives_no_secret_with_a_point_of_small_order(u: int) -> None:
    with pytest.raises(ValueError):
        x25519.X25519PrivateKey.generate().exchange(
            x25519.X25519PublicKey.from_public_bytes(u.to_bytes(32, "little"))
        )


@pytest.mark.parametrize("u", sorted(_X448_SMALL_ORDER))
def test_x448_gives_no_secret_with_a_point_of_small_order(u: int) -> None:
    with pytest.raises(ValueError):
        x448.X448PrivateKey.generate().exchange(
            x448.X448PublicKey.from_public_bytes(u.to_bytes(56, "little"))
        )


_P = 2**255 - 19


@pytest.mark.parametrize("curve", ["X25519", "Ed25519"])
@pytest.mark.parametrize("number", [0, 1, _P - 1, _P, _P + 1])
@pytest.mark.parametrize("top_bit", [0, 1 << 255])
def test_small_orders_are_seen_whatever_the_unused_bit_and_the_spelling(
    curve: str, number: int, top_bit: int
) -> None:
    assert is_weak_okp(curve, (number | top_bit).to_bytes(32, "little"))


def test_an_edwards_coordinate_beyond_the_prime_is_refused_even_where_the_point_is_sound() -> None:
    assert not is_weak_okp("Ed25519", (3).to_bytes(32, "little"))
    assert is_weak_okp("Ed25519", (3 + _P).to_bytes(32, "little"))
    assert is_weak_okp("Ed448", (2**448 - 2**224 - 1 + 3).to_bytes(57, "little"))


@pytest.mark.parametrize("curve", OKP_SIZES)
def test_keys_of_honest_parties_are_not_weak(curve: str) -> None:
    for _ in range(20):
        assert not is_weak_okp(curve, Jwk.generate(curve).public_key.public_bytes_raw())  # type: ignore[union-attr]
