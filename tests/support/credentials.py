"""An instance's signer in this process, with the key in the test's own hands, and credentials by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bridge.jose import Jwk
from bridge.jose.credentials import AccessToken, Certificate, Role, keyring
from bridge.jose.credentials.token import encode_token
from bridge.jose.encoding import base64url_encode

INSTANCE: Final = "emerald"
NOW: Final = 1_800_000_000
ISSUER: Final = Jwk.generate()
KEYS: Final = keyring([ISSUER])
ID: Final = base64url_encode(bytes(range(16)))


class KeySigner:
    """Signs whatever it is given; the real one, which is strict, is a process of its own."""

    def __init__(self, *keys: Jwk) -> None:
        self._keys = list(keys or (ISSUER,))

    async def sign(self, typ: str, claims: Mapping[str, object]) -> str:
        return encode_token(typ, claims, self._keys[0], max_bytes=16_384)

    async def keys(self) -> list[Jwk]:
        return [key.public() for key in self._keys]


def certificate(key: Jwk, /, **changes: Any) -> Certificate:
    """A certificate of Alice's, for an hour from ``NOW``."""
    members: dict[str, Any] = {
        "subject": "alice",
        "role": Role.PLAYER,
        "key": key.public(),
        "instance": INSTANCE,
        "issued_at": NOW,
        "expires_at": NOW + 3600,
        "id": ID,
    }
    return Certificate(**{**members, **changes})


def access_token(key: Jwk, /, **changes: Any) -> AccessToken:
    """An access token of Alice's, for its longest time from ``NOW``."""
    members: dict[str, Any] = {
        "subject": "alice",
        "role": Role.PLAYER,
        "thumbprint": key.thumbprint(),
        "instance": INSTANCE,
        "issued_at": NOW,
        "expires_at": NOW + AccessToken.MAX_LIFETIME_S,
        "id": ID,
    }
    return AccessToken(**{**members, **changes})
