"""Session tickets: this session is open, as of a moment ago. With them, all grants of a session live and die.

One signature for each session and a few seconds, however many entities it holds.

Source: ``docs/protocol.md`` §10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from bridge.errors import SignatureError
from bridge.jose.credentials.claims import check_id, check_name, check_now, check_thumbprint
from bridge.jose.credentials.declared import EXPIRES, ISSUED, Claim, Declared
from bridge.jose.credentials.grant import GrantToken
from bridge.jose.credentials.reading import read_untrusted
from bridge.jose.credentials.token import MAX_CREDENTIAL_BYTES, Keyring


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTicket(Declared):
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

    server: Annotated[str, Claim("sub", check_name)]
    session: Annotated[str, Claim("sid", check_id)]
    thumbprint: Annotated[str, Claim("jkt", check_thumbprint)]
    instance: Annotated[str, Claim("iss", check_name)]
    issued_at: Annotated[int, ISSUED]
    expires_at: Annotated[int, EXPIRES]


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
