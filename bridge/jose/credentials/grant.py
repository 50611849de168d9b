"""Grants: an entity was given to a session at an epoch. Signed once, true for ever, worth nothing alone.

A grant does not expire: it says what was granted, not what holds now. It counts only together with the
session ticket of its holder that is in force (``session_ticket``), and below no later epoch.

Source: ``docs/protocol.md`` §10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from bridge.errors import SignatureError
from bridge.jose.credentials.claims import check_id, check_members, check_name, check_thumbprint
from bridge.jose.credentials.reading import read_lasting_untrusted
from bridge.jose.credentials.token import MAX_CREDENTIAL_BYTES, Keyring

_MEMBERS: Final = frozenset({"iss", "entity", "epoch", "sid", "jkt"})
_U64: Final = 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantToken:
    """An entity was granted to a session.

    Attributes:
        entity: its name.
        epoch: of the grant, 64 bits; as text in the claims, since a number of JSON has 53.
        session: the holder's, 16 bytes in base64url.
        thumbprint: of the holder's key, which seals the entity's state.
        instance: whose homeservers granted it.

    Raises:
        SignatureError: a member out of its range.
    """

    TYP: ClassVar[str] = "kb-grant+jwt"
    MAX_BYTES: ClassVar[int] = MAX_CREDENTIAL_BYTES

    entity: str
    epoch: int
    session: str
    thumbprint: str
    instance: str

    def __post_init__(self) -> None:
        check_name(self.entity, "'entity'")
        if isinstance(self.epoch, bool) or not isinstance(self.epoch, int) or not 0 < self.epoch < _U64:
            raise SignatureError("'epoch' is a positive number of 64 bits")
        check_id(self.session, "'sid'")
        check_thumbprint(self.thumbprint)
        check_name(self.instance, "'iss'")

    def claims(self) -> dict[str, object]:
        """Return what is signed."""
        return {
            "iss": self.instance,
            "entity": self.entity,
            "epoch": str(self.epoch),
            "sid": self.session,
            "jkt": self.thumbprint,
        }

    @classmethod
    def from_claims_untrusted(cls, claims: Mapping[str, Any]) -> Self:
        """Take claims for what they say.

        Raises:
            SignatureError: the only one.
        """
        check_members(claims, _MEMBERS)
        epoch = claims["epoch"]
        if not isinstance(epoch, str) or len(epoch) > 20 or not epoch.isascii() or not epoch.isdecimal():
            raise SignatureError("'epoch' is a number in decimal, as text")
        if epoch.startswith("0"):
            raise SignatureError("'epoch' is positive, and has no leading zeros")
        return cls(
            entity=claims["entity"],
            epoch=int(epoch),
            session=claims["sid"],
            thumbprint=claims["jkt"],
            instance=claims["iss"],
        )


def read_grant_untrusted(token: str, *, keys: Keyring, instance: str) -> GrantToken:
    """Check a grant: it was made. Whether it holds, only the holder's session ticket says.

    Raises:
        SignatureError: the only one.
    """
    return read_lasting_untrusted(GrantToken, token, keys=keys, instance=instance)
