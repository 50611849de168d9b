"""Signed grants and session tickets: what a server shows to those who do not ask this homeserver (B-2).

A grant is got once and never expires; a session ticket every few seconds, whatever the session holds.
Together they say that this server acts for that entity now (``docs/protocol.md`` §10).
"""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from bridge.homeserver.rest.authentication import ServerOnly
from bridge.homeserver.rest.entities import EntityName
from bridge.homeserver.rest.issuing import Issues
from bridge.homeserver.rest.sessions import SessionId
from bridge.homeserver.rest.shapes import Epoch
from bridge.jose.encoding import base64url_decode_untrusted

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])


class SignedSession(BaseModel):
    """A session ticket."""

    ticket: str = Field(description="A `kb-session+jwt`.", examples=["eyJhbGci.eyJpc3Mi.c2lnbmF0"])
    expires: int = Field(description="Unix seconds.", examples=[1795297739])


class SignedGrant(BaseModel):
    """A grant."""

    grant: str = Field(description="A `kb-grant+jwt`.", examples=["eyJhbGci.eyJpc3Mi.c2lnbmF0"])
    epoch: Epoch


@router.post("/{session}/ticket")
async def session_ticket(session: SessionId, who: ServerOnly, issues: Issues) -> SignedSession:
    """Say that a session of the caller is open, for five seconds."""
    given = await issues.session_ticket(
        base64url_decode_untrusted(session), server=who.subject, thumbprint=who.thumbprint
    )
    return SignedSession(ticket=given.token, expires=given.expires_at)


@router.post("/{session}/entities/{entity}/grant")
async def grant(session: SessionId, entity: EntityName, who: ServerOnly, issues: Issues) -> SignedGrant:
    """Say that a session of the caller was given an entity."""
    token, epoch = await issues.grant(
        base64url_decode_untrusted(session), entity, server=who.subject, thumbprint=who.thumbprint
    )
    return SignedGrant(grant=token, epoch=str(epoch))
