"""The instance's keys, for whoever checks what it signed, and what was revoked (R0-24)."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field, StringConstraints

from bridge.homeserver.rest.authentication import Anyone
from bridge.homeserver.rest.context import Here
from bridge.homeserver.rest.issuing import Known
from bridge.homeserver.rest.paging import DEFAULT_LIMIT, After, Limit, Page, newest_first, page_of
from bridge.homeserver.rest.problems import ProblemError
from bridge.homeserver.rest.shapes import Name
from bridge.jose.credentials import Role
from bridge.registry import InstanceKey, KeyState

router = APIRouter(prefix="/v1", tags=["keys"])

CACHE_SECONDS: Final = 60
"""for which others may keep the set of keys: one that is to sign is published earlier than that before"""

CredentialId = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9_-]{43}|[A-Za-z0-9_-]{22})$")]
"""thumbprint of a key, or id of a certificate, base64url"""


class KeySet(BaseModel):
    """A JWK set (RFC 7517 section 5)."""

    keys: list[dict[str, Any]] = Field(description="Keys whose signatures hold now, public halves.")


class PublishedKey(BaseModel):
    """A key of the instance."""

    kid: str = Field(description="RFC 7638 thumbprint; in the header of what it signed.")
    state: KeyState = Field(description="It only goes forward.")
    since: int = Field(description="Unix seconds, when it was published in its state or the one before.")
    until: int | None = Field(description="Unix seconds, until when its signatures hold; null: no end yet.")


class PublishedKeys(Page):
    """Some of the keys that the instance ever published, the newest first."""

    keys: list[PublishedKey]


class Revoking(BaseModel):
    """What is to count no more."""

    id: CredentialId = Field(
        description="Thumbprint of a key, or id of a certificate.",
        examples=["NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"],
    )
    reason: Name = Field(default="revoked by its holder", description="Why, for the record.")


class Revocation(BaseModel):
    """What counts no more."""

    id: str = Field(description="Thumbprint of a key, or id of a certificate.")
    reason: str
    at: int = Field(description="Unix milliseconds.")


class Revocations(Page):
    """Some of what was revoked, the newest first."""

    revoked: list[Revocation]


@router.get("/jwks.json")
async def key_set(here: Here, known: Known, response: Response) -> KeySet:
    """Tell the public keys by which everything that this instance signed can be checked."""
    keys = await known.keys()
    response.headers["Cache-Control"] = f"public, max-age={CACHE_SECONDS}"
    now = here.clock()
    return KeySet(keys=[_member(key) for key in keys if key.verifies(now)])


@router.get("/keys")
async def published_keys(known: Known, after: After = None, limit: Limit = DEFAULT_LIMIT) -> PublishedKeys:
    """Tell how far each key of the instance has got: next, current, retired, revoked."""
    found = {newest_first(key.since * 1000, key.key.thumbprint()): key for key in await known.keys()}
    places, following = page_of(found, after, limit)
    return PublishedKeys(
        keys=[
            PublishedKey(kid=key.key.thumbprint(), state=key.state, since=key.since, until=key.until)
            for key in map(found.__getitem__, places)
        ],
        next=following,
    )


@router.get("/revocations")
async def revocations(known: Known, after: After = None, limit: Limit = DEFAULT_LIMIT) -> Revocations:
    """Tell what was revoked, the newest first."""
    found = {newest_first(one.at_ms, one.credential): one for one in await known.revocations()}
    places, following = page_of(found, after, limit)
    return Revocations(
        revoked=[
            Revocation(id=one.credential, reason=one.reason, at=one.at_ms)
            for one in map(found.__getitem__, places)
        ],
        next=following,
    )


@router.post("/revocations")
async def revoke(body: Revoking, known: Known, who: Anyone) -> Revocation:
    """Revoke a key or a certificate for good: an operator any, everybody else the own key."""
    if who.role is not Role.OPERATOR and body.id != who.thumbprint:
        raise ProblemError("other_name", "the token was got with another key than this one")
    done = await known.revoke(body.id, reason=body.reason)
    return Revocation(id=done.credential, reason=done.reason, at=done.at_ms)


def _member(key: InstanceKey) -> dict[str, Any]:
    return {**key.key.public_members(), "kid": key.key.thumbprint(), "use": "sig", "alg": "ES256"}
