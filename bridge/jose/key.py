"""JSON Web Keys, checked once when they are made, so that everything behind them may trust them.

Source: RFC 7517 (JWK), RFC 7518 section 6, RFC 8037 (OKP), RFC 7638 (thumbprints).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, x448, x25519

from bridge.errors import KeyFormatError
from bridge.jose.curves import EC_CURVES, OKP_SIZES, is_weak_okp
from bridge.jose.encoding import (
    base64url_decode_untrusted,
    base64url_encode,
    json_encode,
    json_object_untrusted,
)
from bridge.jose.pem import PrivateKey, PublicKey, load_pem_untrusted, private_pem, public_pem

MAX_KEY_BYTES = 16_384
"""JSON text of a key; an RSA key of 16,384 bits fits."""
MAX_MEMBER_CHARACTERS = 4096
"""Of one text member of a key."""
MAX_OCT_BYTES = 1024
"""Of a shared secret; longer ones are hashed down by HMAC anyway."""

_OKP_CLASSES: dict[str, tuple[type[Any], type[Any]]] = {
    "X25519": (x25519.X25519PrivateKey, x25519.X25519PublicKey),
    "X448": (x448.X448PrivateKey, x448.X448PublicKey),
    "Ed25519": (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey),
    "Ed448": (ed448.Ed448PrivateKey, ed448.Ed448PublicKey),
}
_DESCRIPTIVE = ("alg", "kid", "use")
_CURVE_OF_OPENSSL_NAME = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


class Jwk:
    """An immutable key: elliptic curve, Edwards or Montgomery, shared secret, or the public half of RSA.

    A key exists only if its members fit together: coordinates of full length, a point on its curve and not of
    small order, a private number that belongs to the public one. RSA keys are kept for their thumbprints
    alone. ``kid``, ``use`` and ``alg`` are kept as descriptions and never decide anything: a key's type
    and curve alone decide which algorithm it is used with.
    """

    __slots__ = ("_descriptive", "_members", "_private", "_public", "_secret", "_thumbprint")

    _members: dict[str, str]
    # "k" of a shared secret, or "d" as it was read; of a key that was made here it is worked out when asked
    # for: most of these live for one box, and nobody ever asks.
    _secret: str | None
    _descriptive: dict[str, str]
    _private: PrivateKey | None
    _public: PublicKey | None
    _thumbprint: bytes | None

    def __init__(self) -> None:
        raise KeyFormatError("make keys with Jwk.generate, Jwk.from_dict, Jwk.from_json or Jwk.from_pem")

    @classmethod
    def _make(
        cls,
        members: dict[str, str],
        *,
        private: PrivateKey | None = None,
        public: PublicKey | None = None,
        secret: str | None = None,
        descriptive: dict[str, str] | None = None,
    ) -> Self:
        key = object.__new__(cls)
        key._members = members
        key._secret = secret
        key._descriptive = descriptive or {}
        key._private = private
        key._public = public
        key._thumbprint = None
        return key

    @classmethod
    def generate(cls, curve: str = "P-256") -> Self:
        """Make a new private key.

        Args:
            curve: ``P-256``, ``P-384``, ``P-521``, ``X25519``, ``X448``, ``Ed25519`` or ``Ed448``.

        Raises:
            KeyFormatError: no such curve.
        """
        if curve in EC_CURVES:
            return cls._from_private(ec.generate_private_key(EC_CURVES[curve].curve))
        if curve in _OKP_CLASSES:
            return cls._from_private(_OKP_CLASSES[curve][0].generate())
        raise KeyFormatError(f"curve {curve!r} is none of {', '.join([*EC_CURVES, *_OKP_CLASSES])}")

    @classmethod
    def from_pem(cls, pem: bytes | str) -> Self:
        """Read a PEM key: SEC1, PKCS#8 or SubjectPublicKeyInfo, not encrypted.

        Raises:
            KeyFormatError: see ``bridge.jose.pem.load_pem_untrusted``.
        """
        key = load_pem_untrusted(pem.encode("utf-8", "replace") if isinstance(pem, str) else bytes(pem))
        return cls._from_private(key) if isinstance(key, PrivateKey) else cls._from_public(key)

    @classmethod
    def from_text(cls, text: bytes | str) -> Self:
        """Read a key from what a key file holds: PEM or JSON.

        Raises:
            KeyFormatError: as for ``from_pem`` and ``from_json``.
        """
        raw = text.encode("utf-8", "replace") if isinstance(text, str) else bytes(text)
        return cls.from_pem(raw) if b"-----BEGIN " in raw else cls.from_json(raw)

    @classmethod
    def from_json(cls, text: bytes | str) -> Self:
        """Read a key from JSON text of at most ``MAX_KEY_BYTES``.

        Raises:
            KeyFormatError: no JSON object, duplicate members, or as for ``from_dict``.
        """
        try:
            raw = text.encode("utf-8") if isinstance(text, str) else bytes(text)
            if len(raw) > MAX_KEY_BYTES:
                raise ValueError(f"longer than {MAX_KEY_BYTES} bytes")
            members = json_object_untrusted(raw)
        except ValueError as error:
            raise KeyFormatError(f"no JSON Web Key: {error}") from error
        return cls.from_dict(members)

    @classmethod
    def from_dict(cls, members: Mapping[str, Any]) -> Self:
        """Read a key from its members (RFC 7517); members without a meaning here are dropped.

        Raises:
            KeyFormatError: a member is missing, of the wrong type or length, or not canonical base64url; the
                point is not on the curve or of small order; private and public members do not fit.
        """
        if not isinstance(members, Mapping):
            raise KeyFormatError("a JSON Web Key is an object")
        descriptive = {name: _text(members, name) for name in _DESCRIPTIVE if name in members}
        match members.get("kty"):
            case "EC":
                return cls._from_ec(members, descriptive)
            case "OKP":
                return cls._from_okp(members, descriptive)
            case "oct":
                secret = _bytes(members, "k")
                if not 1 <= len(secret) <= MAX_OCT_BYTES:
                    raise KeyFormatError(f"a shared secret has 1 to {MAX_OCT_BYTES} bytes")
                return cls._make({"kty": "oct"}, secret=members["k"], descriptive=descriptive)
            case "RSA":
                if "d" in members:
                    raise KeyFormatError("private RSA keys are not used here")
                # A leading zero would give one key several thumbprints (RFC 7518 section 2).
                if any(_bytes(members, name)[:1] == b"\0" for name in ("n", "e")):
                    raise KeyFormatError("an RSA number has leading zeros")
                rsa = {"e": members["e"], "kty": "RSA", "n": members["n"]}
                return cls._make(rsa, descriptive=descriptive)
            case _:
                raise KeyFormatError("member 'kty' is none of EC, OKP, oct, RSA")

    @classmethod
    def _from_ec(cls, members: Mapping[str, Any], descriptive: dict[str, str]) -> Self:
        curve = EC_CURVES.get(_text(members, "crv"))
        if curve is None:
            raise KeyFormatError(f"EC curve is none of {', '.join(EC_CURVES)}")
        # Coordinates have full length, leading zeros included (RFC 7518 section 6.2.1.2).
        x, y = _bytes(members, "x", curve.size), _bytes(members, "y", curve.size)
        try:
            public = ec.EllipticCurvePublicKey.from_encoded_point(curve.curve, b"\x04" + x + y)
        except ValueError as error:
            raise KeyFormatError(f"the point is not on {curve.name}") from error
        named = {"crv": curve.name, "kty": "EC", "x": members["x"], "y": members["y"]}
        if "d" not in members:
            return cls._make(named, public=public, descriptive=descriptive)
        number = int.from_bytes(_bytes(members, "d", curve.size))
        if not 1 <= number < curve.order:
            raise KeyFormatError("member 'd' is out of range")
        private = ec.derive_private_key(number, curve.curve)
        if private.public_key() != public:
            raise KeyFormatError("member 'd' does not belong to 'x' and 'y'")
        return cls._make(named, private=private, public=public, secret=members["d"], descriptive=descriptive)

    @classmethod
    def _from_okp(cls, members: Mapping[str, Any], descriptive: dict[str, str]) -> Self:
        name = _text(members, "crv")
        if name not in _OKP_CLASSES:
            raise KeyFormatError(f"OKP curve is none of {', '.join(_OKP_CLASSES)}")
        raw = _bytes(members, "x", OKP_SIZES[name])
        if is_weak_okp(name, raw):
            raise KeyFormatError(f"the {name} key is of small order")
        private_class, public_class = _OKP_CLASSES[name]
        try:
            public = public_class.from_public_bytes(raw)
            named = {"crv": name, "kty": "OKP", "x": members["x"]}
            if "d" not in members:
                return cls._make(named, public=public, descriptive=descriptive)
            private = private_class.from_private_bytes(_bytes(members, "d", OKP_SIZES[name]))
        except ValueError as error:
            raise KeyFormatError(f"no {name} key") from error
        if private.public_key().public_bytes_raw() != raw:
            raise KeyFormatError("member 'd' does not belong to 'x'")
        return cls._make(named, private=private, public=public, secret=members["d"], descriptive=descriptive)

    @classmethod
    def _from_private(cls, private: PrivateKey) -> Self:
        key = cls._from_public(private.public_key())
        key._private = private
        return key

    @classmethod
    def _from_public(cls, public: PublicKey) -> Self:
        if isinstance(public, ec.EllipticCurvePublicKey):
            name = _CURVE_OF_OPENSSL_NAME.get(public.curve.name)
            if name is None:
                raise KeyFormatError(f"curve {public.curve.name!r} is not used here")
            size = EC_CURVES[name].size
            point = public.public_bytes(
                serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
            )
            x, y = base64url_encode(point[1 : 1 + size]), base64url_encode(point[1 + size :])
            return cls._make({"crv": name, "kty": "EC", "x": x, "y": y}, public=public)
        name = next(name for name, (_, kind) in _OKP_CLASSES.items() if isinstance(public, kind))
        raw = public.public_bytes_raw()
        if is_weak_okp(name, raw):
            raise KeyFormatError(f"the {name} key is of small order")
        return cls._make({"crv": name, "kty": "OKP", "x": base64url_encode(raw)}, public=public)

    @property
    def kty(self) -> str:
        """Key type: ``EC``, ``OKP``, ``oct`` or ``RSA``."""
        return self._members["kty"]

    @property
    def curve(self) -> str | None:
        """Curve name as in ``crv``; ``None`` for ``oct`` and ``RSA``."""
        return self._members.get("crv")

    @property
    def kid(self) -> str | None:
        """The key's given name, if it has one."""
        return self._descriptive.get("kid")

    @property
    def is_private(self) -> bool:
        """Whether the key can sign or open; a shared secret always can."""
        return self._private is not None or self._secret is not None

    @property
    def private_key(self) -> PrivateKey:
        """The key as ``cryptography`` knows it.

        Raises:
            KeyFormatError: this is a public key, or not of an elliptic curve.
        """
        if self._private is None:
            raise KeyFormatError("a private elliptic-curve key is needed")
        return self._private

    @property
    def public_key(self) -> PublicKey:
        """The public half as ``cryptography`` knows it.

        Raises:
            KeyFormatError: not of an elliptic curve.
        """
        if self._public is None:
            raise KeyFormatError("an elliptic-curve key is needed")
        return self._public

    @property
    def secret(self) -> bytes:
        """The shared secret of an ``oct`` key.

        Raises:
            KeyFormatError: of another type.
        """
        if self.kty != "oct" or self._secret is None:
            raise KeyFormatError("a shared secret is needed")
        return base64url_decode_untrusted(self._secret)

    def _secret_text(self) -> str | None:
        if self._secret is None and self._private is not None:
            if isinstance(self._private, ec.EllipticCurvePrivateKey):
                size = EC_CURVES[self._members["crv"]].size
                raw = self._private.private_numbers().private_value.to_bytes(size)
            else:
                raw = self._private.private_bytes_raw()
            self._secret = base64url_encode(raw)
        return self._secret

    def public_members(self) -> dict[str, str]:
        """Return a fresh dictionary of exactly the members that a thumbprint covers (RFC 7638).

        Raises:
            KeyFormatError: a shared secret has none that may be shown.
        """
        if self.kty == "oct":
            raise KeyFormatError("a shared secret has no public half")
        return dict(self._members)

    def public(self) -> Self:
        """Return the public half, descriptions kept.

        Raises:
            KeyFormatError: a shared secret has none.
        """
        if self.kty == "oct":
            raise KeyFormatError("a shared secret has no public half")
        if not self.is_private:
            return self
        return self._make(self._members, public=self._public, descriptive=self._descriptive)

    def to_dict(self) -> dict[str, Any]:
        """Return the members (RFC 7517), private ones included where there are any."""
        members: dict[str, Any] = {**self._members, **self._descriptive}
        if self.is_private:
            members["k" if self.kty == "oct" else "d"] = self._secret_text()
        return members

    def to_json(self) -> str:
        """Return the members as JSON text, sorted, in one line."""
        return json_encode(self.to_dict()).decode("utf-8")

    def to_pem(self) -> bytes:
        """Return PKCS#8 for a private key, SubjectPublicKeyInfo for a public one; not encrypted.

        Raises:
            KeyFormatError: the key is of no elliptic curve.
        """
        return public_pem(self.public_key) if self._private is None else private_pem(self._private)

    def thumbprint(self) -> str:
        """Return the SHA-256 thumbprint in base64url (RFC 7638): the same for private and public half."""
        return base64url_encode(self.thumbprint_bytes())

    def thumbprint_bytes(self) -> bytes:
        """Return the 32 bytes of the thumbprint."""
        if self._thumbprint is None:
            required = dict(self._members)
            if self.kty == "oct" and self._secret is not None:
                required["k"] = self._secret
            self._thumbprint = hashlib.sha256(json_encode(required)).digest()
        return self._thumbprint

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Jwk):
            return NotImplemented
        # Private halves of one public half do the same, however they are spelled; "oct" has a secret only.
        return (
            self._members == other._members
            and self.is_private == other.is_private
            and (self.kty != "oct" or self._secret == other._secret)
        )

    def __hash__(self) -> int:
        return hash((self.thumbprint_bytes(), self.is_private))

    def __reduce__(self) -> tuple[Any, ...]:
        # Keys are handed to a process of the same server, whose start pickles its arguments.
        return type(self).from_dict, (self.to_dict(),)

    def __repr__(self) -> str:
        half = "private" if self.is_private else "public"
        return f"<Jwk {self.curve or self.kty} {half} {self.thumbprint()}>"


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_MEMBER_CHARACTERS or not value.isprintable():
        raise KeyFormatError(f"member {name!r} is missing or no short text")
    return value


def _bytes(members: Mapping[str, Any], name: str, size: int | None = None) -> bytes:
    try:
        raw = base64url_decode_untrusted(_text(members, name))
    except ValueError as error:
        raise KeyFormatError(f"member {name!r} is {error}") from error
    if size is not None and len(raw) != size:
        raise KeyFormatError(f"member {name!r} has {len(raw)} bytes where {size} are needed")
    return raw
