"""Session tickets: this session is open, as of a moment ago. With them, all grants of a session live and die.

One signature for each session and a few seconds, however many entities it holds.

Source: ``docs/protocol.md`` §10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from bridge.errors import SignatureError
from bridge.jose.credentials.claims import (
    check_id,
    check_lifetime,
    check_members,
    check_name,
    check_now,
    check_thumbprint,
)
from bridge.jose.credentials.grant import GrantToken
from bridge.jose.credentials.reading import read_untrusted
from bridge.jose.credentials.token import MAX_CREDENTIAL_BYTES, Keyring

_MEMBERS: Final = frozenset({"iss", "sub", "sid", "jkt", "iat", "exp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTicket:
    """A session is open.

    Attributes:
        server: whose session.
        session: 16 bytes, base64url.
        thumbprint: of the server's key.
        instance: whose homeservers say so.
        issued_at: Unix seconds.
        expires_at: Unix seconds, up to ``MAX_LIFETIME_S`` later.

    Raises:
        SignatureError: a member out of its range.
    """

    TYP: ClassVar[str] = "kb-session+jwt"
    MAX_LIFETIME_S: ClassVar[int] = 5
    MAX_BYTES: ClassVar[int] = MAX_CREDENTIAL_BYTES

    server: str
    session: str
    thumbprint: str
    instance: str
    issued_at: int
    expires_at: int

    def __post_init__(self) -> None:
        check_name(self.server, "'sub'")
        check_id(self.session, "'sid'")
        check_thumbprint(self.thumbprint)
        check_name(self.instance, "'iss'")
        check_lifetime(self.issued_at, self.expires_at, self.MAX_LIFETIME_S)

    def claims(self) -> dict[str, object]:
        """Return what is signed."""
        return {
            "iss": self.instance,
            "sub": self.server,
            "sid": self.session,
            "jkt": self.thumbprint,
            "iat": self.issued_at,
            "exp": self.expires_at,
        }

    @classmethod
    def from_claims_untrusted(cls, claims: Mapping[str, Any]) -> Self:
        """Take claims for what they say.

        Raises:
            SignatureError: the only one.
        """
        check_members(claims, _MEMBERS)
        return cls(
            server=claims["sub"],
            session=claims["sid"],
            thumbprint=claims["jkt"],
            instance=claims["iss"],
            issued_at=claims["iat"],
            expires_at=claims["exp"],
        )


def read_session_ticket_untrusted(token: str, *, keys: Keyring, instance: str, now: float) -> SessionTicket:
    """Check a session ticket in full.

    Raises:
        SignatureError: the only one.
    """
    return read_untrusted(SessionTicket, token, keys=keys, instance=instance, now=now)


def check_standing(grant: GrantToken, ticket: SessionTicket, *, now: float) -> None:
    """Demand that a grant counts: its session is open, under the key that it was granted to.

    Whether a later epoch of the entity is known is the caller's to check (``bridge.authority.fence``).

    Args:
        now: Unix seconds; the ticket may have been checked a while ago.

    Raises:
        SignatureError: it does not.
    """
    check_now(ticket.issued_at, ticket.expires_at, now)
    if grant.session != ticket.session:
        raise SignatureError("the grant is another session's")
    if grant.thumbprint != ticket.thumbprint or grant.instance != ticket.instance:
        raise SignatureError("the grant is for another key, or of another instance")
