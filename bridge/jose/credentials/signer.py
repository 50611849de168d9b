"""Who signs for an instance. The key is behind it, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from bridge.jose.key import Jwk


class Signer(Protocol):
    """Signs credentials of one instance."""

    async def sign(self, typ: str, claims: Mapping[str, object]) -> str:
        """Return the claims as a compact JWS of that type, by the instance's current key.

        Raises:
            SignatureError: an unknown type, claims that no reader would take, another instance, an issue time
                that is not now.
            ConnectionLostError: the signer is away.
        """

    async def keys(self) -> list[Jwk]:
        """Return the public keys that this signer has: the first signs, the others will, later."""
