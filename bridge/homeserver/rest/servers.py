"""Simulation servers: where each one listens, and with which key (R0-15, R0-16)."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from bridge.homeserver.rest.authentication import Anyone
from bridge.homeserver.rest.context import Here
from bridge.homeserver.rest.paging import DEFAULT_LIMIT, After, Limit, Page, names_below, page_of
from bridge.homeserver.rest.reading import Fresh, bridge_path, records_at, server_named
from bridge.homeserver.rest.scenes import hides_address
from bridge.homeserver.rest.shapes import Name, Number
from bridge.registry import ServerRecord

router = APIRouter(prefix="/v1/servers", tags=["servers"])

ServerName = Annotated[Name, Path(description="Name of a server.", examples=["sim1"])]


class Address(BaseModel):
    """Where a server's data plane listens."""

    host: str = Field(min_length=1, max_length=255, pattern=r"^[0-9A-Za-z.:_-]+$", examples=["192.0.2.7"])
    port: Number = Field(description="UDP.", ge=1, le=65_535, examples=[4000])


class ServerInfo(BaseModel):
    """A simulation server."""

    server: str = Field(examples=["sim1"])
    online: bool = Field(description="Whether it has a session.")
    key: dict[str, Any] = Field(
        description="Its public key, a JWK: datagrams of it are checked with this one."
    )
    thumbprint: str = Field(description="RFC 7638 thumbprint of that key.")
    address: Address | None = Field(
        description="null where a scene hides it: a hand-off ticket or a peer token comes with it."
    )


class ServerPage(Page):
    """Some servers, by name."""

    servers: list[ServerInfo]


@router.get("", dependencies=[Fresh])
async def servers(here: Here, _: Anyone, after: After = None, limit: Limit = DEFAULT_LIMIT) -> ServerPage:
    """List the servers that have ever opened a session."""
    names, following = page_of(await names_below(here, bridge_path("servers")), after, limit)
    found = await records_at(here, (bridge_path("servers", name) for name in names))
    hidden = await hides_address(here)
    return ServerPage(
        servers=[
            info_of(record, hidden=record.server in hidden) for record in map(ServerRecord.from_term, found)
        ],
        next=following,
    )


@router.get("/{server}", dependencies=[Fresh])
async def show(server: ServerName, here: Here, _: Anyone) -> ServerInfo:
    """Tell a server's key and address."""
    record = await server_named(here, server)
    return info_of(record, hidden=server in await hides_address(here))


def info_of(record: ServerRecord, *, hidden: bool) -> ServerInfo:
    """What callers are told of a server.

    Args:
        record: the server's.
        hidden: whether its address is not told.
    """
    return ServerInfo(
        server=record.server,
        online=record.session is not None,
        key=msgspec.json.decode(record.key),
        thumbprint=record.thumbprint,
        address=None if hidden else Address(host=record.host, port=record.port),
    )
