"""What the signer signs: known kinds of its instance, issued now, that every reader would take; not too many.

Whoever has the socket can have all that signed; what lies beyond is out of reach for a homeserver that was
taken over: the key itself, another instance's name, credentials of other times or longer lives, and
certificates of operators, which are made from the key file alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge.errors import ConfigurationError, SignatureError
from bridge.jose import Jwk
from bridge.jose.credentials import (
    AccessToken,
    Certificate,
    GrantToken,
    PeerToken,
    Role,
    Seal,
    SessionTicket,
    Ticket,
    keyring,
)
from bridge.jose.credentials.claims import check_name
from bridge.jose.credentials.reading import Credential
from bridge.jose.credentials.token import encode_token
from bridge.udp.bucket import TokenBucket

KINDS: Final[Mapping[str, type[Credential]]] = {
    kind.TYP: kind for kind in (Certificate, AccessToken, PeerToken, Ticket, GrantToken, SessionTicket, Seal)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerLimits:
    """How much a signer signs."""

    rate: float = 1_000.0
    """signatures a second; a core makes some ten thousand, and a thousand logins a second are a busy day"""
    burst: int = 2_000
    """signatures after a quiet time"""
    certificate_rate: float = 20.0
    """certificates a second: they outlive all the rest"""
    certificate_burst: int = 500
    """certificates after a quiet time: a tournament begins"""
    max_skew: float = 10.0
    """seconds by which the time that a caller writes into a credential may differ from the signer's own"""

    def __post_init__(self) -> None:
        numbers = (self.rate, self.burst, self.certificate_rate, self.certificate_burst, self.max_skew)
        if not all(number > 0 for number in numbers):
            raise ConfigurationError("limits of a signer are above zero")


class SigningPolicy:
    """Signs for one instance, with one key.

    Args:
        instance: for which it signs, and no other.
        current: private key on P-256.
        following: keys that will sign later, to be published now; of private ones the public half is kept.

    Attributes:
        signed: how many of each kind.
        refused: how many requests were.

    Raises:
        ConfigurationError: keys of another kind, or no instance.
    """

    def __init__(
        self,
        *,
        instance: str,
        current: Jwk,
        following: Sequence[Jwk] = (),
        limits: SignerLimits | None = None,
    ) -> None:
        try:
            check_name(instance, "the instance")
            ring = keyring([current, *following])
        except SignatureError as error:
            raise ConfigurationError(f"this signer cannot work: {error}") from error
        if not current.is_private:
            raise ConfigurationError("the signer's key is a private one: make it with homeserver keygen")
        limits = limits or SignerLimits()
        self.instance = instance
        self.signed: dict[str, int] = dict.fromkeys(KINDS, 0)
        self.refused = 0
        self._key = current
        self._ring = list(ring.values())
        self._max_skew = limits.max_skew
        self._all = TokenBucket(rate=limits.rate, burst=limits.burst)
        self._certificates = TokenBucket(rate=limits.certificate_rate, burst=limits.certificate_burst)

    def public_keys(self) -> list[Jwk]:
        """Public keys; the first signs, the others will."""
        return list(self._ring)

    def sign(self, typ: str, claims: Mapping[str, Any], *, now: float, monotonic: float) -> str:
        """Sign claims that are those of a credential of that type.

        Args:
            now: Unix seconds.
            monotonic: seconds of a clock that never goes back, for the limits.

        Raises:
            SignatureError: they are not, or not of this instance, or not of now; or there were too many.
        """
        try:
            kind, credential = self._checked(typ, claims, now=now)
            if not self._all.take(monotonic) or (
                kind is Certificate and not self._certificates.take(monotonic)
            ):
                raise SignatureError("too many at once: ask again in a moment")
            # What was read is signed, not what was sent: they are the same, or it would have been refused.
            token = encode_token(typ, credential.claims(), self._key, max_bytes=kind.MAX_BYTES)
        except SignatureError:
            self.refused += 1
            raise
        self.signed[typ] += 1
        return token

    def _checked(
        self, typ: str, claims: Mapping[str, Any], *, now: float
    ) -> tuple[type[Credential], Credential]:
        kind = KINDS.get(typ)
        if kind is None:
            raise SignatureError(f"the signer knows no type {typ!r:.80}")
        credential = kind.from_claims_untrusted(claims)
        if credential.instance != self.instance:
            raise SignatureError(f"this signer is of the instance {self.instance}")
        issued_at = getattr(credential, "issued_at", None)
        if issued_at is not None and abs(issued_at - now) > self._max_skew:
            raise SignatureError(
                f"'iat' is {issued_at - now:+.0f} s from the signer's time: check the clocks"
            )
        if isinstance(credential, Certificate) and credential.role is Role.OPERATOR:
            raise SignatureError(
                "certificates of operators are made with homeserver certify, from the key file"
            )
        return kind, credential
