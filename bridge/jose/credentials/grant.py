"""Grants: an entity was given to a session at an epoch. Signed once, true for ever, worth nothing alone.

A grant does not expire: it says what was granted, not what holds now. It counts only together with the
session ticket of its holder that is in force (``session_ticket``), and below no later epoch.

Source: ``docs/protocol.md`` §10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from bridge.errors import SignatureError
from bridge.jose.credentials.claims import check_id, check_name, check_thumbprint
from bridge.jose.credentials.declared import Claim, Declared
from bridge.jose.credentials.reading import read_lasting_untrusted
from bridge.jose.credentials.token import MAX_CREDENTIAL_BYTES, Keyring

_U64: Final = 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantToken(Declared):
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

    entity: Annotated[str, Claim("entity", check_name)]
    epoch: Annotated[int, Claim("epoch", _check_epoch, read=_epoch_of, write=str)]
    session: Annotated[str, Claim("sid", check_id)]
    thumbprint: Annotated[str, Claim("jkt", check_thumbprint)]
    instance: Annotated[str, Claim("iss", check_name)]


def _check_epoch(value: object, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _U64:
        raise SignatureError(f"{what} is a positive number of 64 bits")


def _epoch_of(claim: object) -> int:
    if not isinstance(claim, str) or len(claim) > 20 or not claim.isascii() or not claim.isdecimal():
        raise SignatureError("'epoch' is a number in decimal, as text")
    if claim.startswith("0"):
        raise SignatureError("'epoch' is positive, and has no leading zeros")
    return int(claim)


def read_grant_untrusted(token: str, *, keys: Keyring, instance: str) -> GrantToken:
    """Check a grant: it was made. Whether it holds, only the holder's session ticket says.

    Raises:
        SignatureError: the only one.
    """
    return read_lasting_untrusted(GrantToken, token, keys=keys, instance=instance)
