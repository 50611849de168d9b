"""Sessions of servers that run elsewhere than in the cluster: players' own, which have a key and no cookie.

What a server does in the cluster by distribution it does here by REST, in the name of its token: the session
is of the server that the token names, under the key that the token was got with. A server speaks for those
players only who have entered at it, which the transaction demands that does what it asks: under the rule
``deny``, say, the owner's leave is the owner's to give, and not any server's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, Field, StringConstraints
from starlette.requests import Request

from bridge.errors import KeyFormatError
from bridge.etf import Atom
from bridge.homeserver.rest.authentication import ServerOnly
from bridge.homeserver.rest.callers import Caller
from bridge.homeserver.rest.context import Context, Here
from bridge.homeserver.rest.entities import EntityName
from bridge.homeserver.rest.idempotency import Writes
from bridge.homeserver.rest.problems import ProblemError
from bridge.homeserver.rest.reading import bridge_path, record_at
from bridge.homeserver.rest.servers import Address
from bridge.homeserver.rest.shapes import Entity, Epoch, Name
from bridge.homeserver.rest.tracing import step_of
from bridge.jose import Jwk
from bridge.jose.encoding import base64url_decode_untrusted
from bridge.registry import EntityRecord, Rule

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

MAX_BOX_CHARACTERS = 16_384
SessionId = Annotated[
    str,
    StringConstraints(pattern="^[A-Za-z0-9_-]{21}[AQgw]$"),
    Field(description="16 bytes, base64url.", examples=["AAECAwQFBgcICQoLDA0ODw"]),
]
Box = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_BOX_CHARACTERS, pattern=r"^[A-Za-z0-9_.-]+$"),
    Field(description="The holder's signed release, as it came.", examples=["eyJhbGci.eyJh..x.y.z.s"]),
]


class Opening(BaseModel):
    """A server that begins."""

    session: SessionId = Field(description="16 random bytes of your choice, base64url: new for each start.")
    key: dict[str, Any] = Field(
        description="The server's public key, a JWK on P-256: that of its certificate.",
        examples=[{"kty": "EC", "crv": "P-256", "x": "…", "y": "…"}],
    )
    address: Address


class Opened(BaseModel):
    """A session."""

    session: SessionId
    server: str = Field(examples=["sim1"])
    held: list[Entity] = Field(description="What it holds: what an answer that was lost had given it.")
    lease_ms: int = Field(
        description="How long it lasts unless it is renewed, from before it was asked for.", examples=[3000]
    )


class Spawned(BaseModel):
    """A new entity; owner and master are players at this server."""

    entity: Name = Field(examples=["ball"])
    owner: Name = Field(examples=["Player1"])
    master: Name = Field(examples=["Player1"])
    rule: Rule = Rule.ASK


class Given(BaseModel):
    """A new owner, at the same server."""

    epoch: Epoch
    owner: Name = Field(description="The server is the judge of its play: any player.", examples=["Player2"])


class Pushed(Given):
    """A new owner at another server."""

    to: Name = Field(description="The server that is to simulate it.", examples=["sim2"])
    box: Box


class Pulled(BaseModel):
    """An entity that a player at this server takes."""

    epoch: Epoch
    owner: Name = Field(description="A player who has entered at this server.", examples=["Player2"])


class Claimed(BaseModel):
    """An entity whose holder handed its release over."""

    owner: Name = Field(
        description="Its owner, or a player who has entered at this server.", examples=["Player2"]
    )
    box: Box


class Released(BaseModel):
    """An entity that this server gives up."""

    epoch: Epoch


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session that is the caller's own."""

    id: bytes
    lease_ms: int


async def own_lease(
    session: Annotated[SessionId, Path(description="16 bytes, base64url.")], here: Here, who: ServerOnly
) -> OpenSession:
    """The session in the path, which is the caller's own.

    Raises:
        ProblemError: it is not, or not open.
    """
    return await session_of(here, who, session)


async def session_of(here: Context, who: Caller, session: str) -> OpenSession:
    """A session that is the caller's own.

    Raises:
        ProblemError: it is not, or not open.
    """
    raw = base64url_decode_untrusted(session)
    path = bridge_path("sessions", raw)
    term = await record_at(here, path) or await record_at(here, path, current=True)
    if (
        term is None
        or term[Atom("server")] != who.subject.encode()
        or term[Atom("thumbprint")] != who.thumbprint.encode()
    ):
        raise ProblemError("no_session", f"{who.subject} has no open session of this name")
    return OpenSession(raw, term[Atom("lease_ms")])


OwnLease = Annotated[OpenSession, Depends(own_lease)]


async def own_session(lease: OwnLease) -> bytes:
    """The id of the session in the path."""
    return lease.id


Own = Annotated[bytes, Depends(own_session)]


@router.post("", status_code=201)
async def open_session(body: Opening, who: ServerOnly, writes: Writes) -> Opened:
    """Begin: register the server's key and where it listens."""
    try:
        key = Jwk.from_dict(body.key).public()
    except KeyFormatError as error:
        raise ProblemError("invalid_key", f"the key is none: {error}") from error
    if key.thumbprint() != who.thumbprint:
        raise ProblemError("invalid_key", "the key is not the one that the access token was got with")
    home = writes.homeserver(base64url_decode_untrusted(body.session))
    opened = await home.open_session(
        server=who.subject,
        key=key.to_json().encode(),
        thumbprint=who.thumbprint,
        address=(body.address.host, body.address.port),
    )
    return Opened(
        session=body.session,
        server=who.subject,
        held=[Entity.of(record) for record in opened.held],
        lease_ms=opened.lease_ms,
    )


@router.delete("/{session}", status_code=204)
async def close_session(session: Own, writes: Writes) -> None:
    """End: what the session holds goes to a server that streams it, or becomes dormant."""
    await writes.homeserver(session).close_session()


@router.post("/{session}/entities", status_code=201)
async def create_entity(session: Own, body: Spawned, writes: Writes) -> Entity:
    """Make an entity, which the session holds."""
    return Entity.of(
        await writes.homeserver(session).create_entity(
            entity=body.entity,
            owner=body.owner,
            master=body.master,
            rule=body.rule,
            present=(body.owner, body.master),
        )
    )


@router.post("/{session}/entities/{entity}/give")
async def give(session: Own, entity: EntityName, body: Given, writes: Writes, request: Request) -> Entity:
    """Change the owner of what the session holds, and go on simulating it."""
    return Entity.of(
        await writes.homeserver(session).give(
            entity=entity, epoch=int(body.epoch), owner=body.owner, step=step_of(request)
        )
    )


@router.post("/{session}/entities/{entity}/push")
async def push(session: Own, entity: EntityName, body: Pushed, writes: Writes, request: Request) -> Entity:
    """Give what the session holds to another server, with the release sealed for that one."""
    return Entity.of(
        await writes.homeserver(session).push(
            entity=entity,
            epoch=int(body.epoch),
            owner=body.owner,
            to=body.to,
            box=body.box,
            step=step_of(request),
        )
    )


@router.post("/{session}/entities/{entity}/pull")
async def pull(session: Own, entity: EntityName, body: Pulled, writes: Writes, request: Request) -> Entity:
    """Take an entity for a player who is here; act once the release that `awaiting` names has come."""
    return Entity.of(
        await writes.homeserver(session).pull(
            entity=entity,
            epoch=int(body.epoch),
            owner=body.owner,
            step=step_of(request),
            present=(body.owner,),
        )
    )


@router.post("/{session}/entities/{entity}/claim")
async def claim(session: Own, entity: EntityName, body: Claimed, writes: Writes, request: Request) -> Entity:
    """Take an entity whose holder handed its release to this server."""
    return Entity.of(
        await writes.homeserver(session).claim(
            entity=entity,
            owner=body.owner,
            box=body.box,
            step=step_of(request),
            present=(body.owner,),
        )
    )


@router.post("/{session}/entities/{entity}/release")
async def release(session: Own, entity: EntityName, body: Released, writes: Writes) -> Entity:
    """Give an entity up: it is dormant until somebody pulls it. One that was deleted is gone for good."""
    record: EntityRecord = await writes.homeserver(session).release(entity=entity, epoch=int(body.epoch))
    return Entity.of(record)
