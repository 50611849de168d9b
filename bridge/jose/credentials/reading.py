"""How credentials are read: form, type, issuer, signature, claims, instance, time, in this order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self, TypeVar

from bridge.errors import SignatureError
from bridge.jose.credentials.claims import check_now
from bridge.jose.credentials.token import Keyring, decode_token_untrusted


class Credential(Protocol):
    """What every kind that an instance issues has."""

    TYP: ClassVar[str]
    MAX_BYTES: ClassVar[int]

    @property
    def instance(self) -> str:
        """Whose homeservers issued it."""

    def claims(self) -> dict[str, object]:
        """Return what is signed."""

    @classmethod
    def from_claims_untrusted(cls, claims: Mapping[str, Any]) -> Self:
        """Take claims for what they say; ``SignatureError`` is the only one raised."""


class Expiring(Credential, Protocol):
    """What every kind that expires has: a longest lifetime, and times in Unix seconds."""

    MAX_LIFETIME_S: ClassVar[int]

    @property
    def issued_at(self) -> int:
        """From when it is good."""

    @property
    def expires_at(self) -> int:
        """Until when it is good, exclusive."""


Lasting = TypeVar("Lasting", bound=Credential)
Passing = TypeVar("Passing", bound=Expiring)


def read_lasting_untrusted(kind: type[Lasting], token: str, *, keys: Keyring, instance: str) -> Lasting:
    """Check a credential that does not expire by itself.

    Raises:
        SignatureError: the only one.
    """
    claims = decode_token_untrusted(token, typ=kind.TYP, keys=keys, max_bytes=kind.MAX_BYTES)
    credential = kind.from_claims_untrusted(claims)
    if credential.instance != instance:
        raise SignatureError(f"the {kind.TYP} is of another instance")
    return credential


def read_untrusted(kind: type[Passing], token: str, *, keys: Keyring, instance: str, now: float) -> Passing:
    """Check a credential in full. Whether it, or its key, was revoked is the caller's to check.

    Args:
        keys: of the instance, at this time.
        instance: that must have issued it.
        now: Unix seconds.

    Raises:
        SignatureError: the only one.
    """
    credential = read_lasting_untrusted(kind, token, keys=keys, instance=instance)
    check_now(credential.issued_at, credential.expires_at, now)
    return credential
