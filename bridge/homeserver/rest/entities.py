"""Entities: who owns, masters and simulates each, and what owner, master and operator change (R0-6…R0-9)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response
from pydantic import BaseModel, Field

from bridge.homeserver.rest.authentication import Anyone, PlayerOrOperator
from bridge.homeserver.rest.context import Context, Here
from bridge.homeserver.rest.idempotency import Writes
from bridge.homeserver.rest.paging import DEFAULT_LIMIT, After, Limit, Page, page_of
from bridge.homeserver.rest.players import PlayerName
from bridge.homeserver.rest.reading import Fresh, entity_named, entity_records, names_held, names_owned
from bridge.homeserver.rest.servers import ServerName
from bridge.homeserver.rest.shapes import Entity, Name
from bridge.homeserver.rest.tracing import step_of
from bridge.registry import EntityRecord, Rule

router = APIRouter(prefix="/v1", tags=["entities"])

EntityName = Annotated[Name, Path(description="Name of an entity.", examples=["ball"])]


class EntityPage(Page):
    """Some entities, by name."""

    entities: list[Entity]


class NewRule(BaseModel):
    """Another rule."""

    rule: Rule = Field(examples=["ask"])


class NewMaster(BaseModel):
    """Another master."""

    master: Name = Field(description="A player.", examples=["Player2"])


class NewDefaultOwner(BaseModel):
    """To whom ownership falls."""

    default_owner: Name | None = Field(description="A player; null: the master.", examples=["Player2"])


class Receiver(BaseModel):
    """Who gets it."""

    to: Name = Field(description="A player.", examples=["Player2"])


@router.get("/entities/{entity}", dependencies=[Fresh], responses={304: {"description": "It is as it was"}})
async def show(
    entity: EntityName,
    here: Here,
    _: Anyone,
    response: Response,
    known: Annotated[
        str | None, Header(alias="If-None-Match", max_length=100, description="An ETag that was told before.")
    ] = None,
) -> Entity:
    """Tell who owns, masters and simulates an entity."""
    record = await entity_named(here, entity)
    tag = etag(record)
    if known is not None and {tag, "*"} & {part.strip().removeprefix("W/") for part in known.split(",")}:
        return Response(status_code=304, headers={"ETag": tag})  # type: ignore[return-value]
    response.headers["ETag"] = tag
    return Entity.of(record)


@router.put("/entities/{entity}/rule")
async def set_rule(entity: EntityName, body: NewRule, who: PlayerOrOperator, writes: Writes) -> Entity:
    """Change what happens when another player requests it; for its master."""
    return Entity.of(await writes.ownership.set_rule(entity, body.rule, by=who.party))


@router.put("/entities/{entity}/master")
async def set_master(entity: EntityName, body: NewMaster, who: PlayerOrOperator, writes: Writes) -> Entity:
    """Name another master; for its master."""
    return Entity.of(await writes.ownership.set_master(entity, body.master, by=who.party))


@router.put("/entities/{entity}/default-owner")
async def set_default_owner(
    entity: EntityName, body: NewDefaultOwner, who: PlayerOrOperator, writes: Writes
) -> Entity:
    """Name to whom ownership falls when its owner leaves, or it is revoked; for its master."""
    return Entity.of(await writes.ownership.set_default_owner(entity, body.default_owner, by=who.party))


@router.post("/entities/{entity}/transfer")
async def transfer(entity: EntityName, body: Receiver, who: PlayerOrOperator, writes: Writes) -> Entity:
    """Give it to a player, whoever simulates it; for its owner and its master."""
    return Entity.of(await writes.ownership.transfer(entity, body.to, by=who.party))


@router.post("/entities/{entity}/revoke")
async def revoke(entity: EntityName, who: PlayerOrOperator, writes: Writes) -> Entity:
    """Take it from its owner, or give it back, to its default owner; for its owner and its master."""
    return Entity.of(await writes.ownership.revoke(entity, by=who.party))


@router.delete("/entities/{entity}", status_code=204)
async def delete(entity: EntityName, who: PlayerOrOperator, writes: Writes, request: Request) -> None:
    """Let there be no such entity any more; for its master.

    Whoever simulates it is told to stop. The name is free again once they have.
    """
    await writes.ownership.delete_entity(entity, by=who.party, step=step_of(request))


@router.get("/players/{player}/entities", dependencies=[Fresh])
async def owned(
    player: PlayerName, here: Here, _: Anyone, after: After = None, limit: Limit = DEFAULT_LIMIT
) -> EntityPage:
    """List what a player owns."""
    return await _page(
        here, await names_owned(here, player), lambda record: record.owner == player, after, limit
    )


@router.get("/servers/{server}/entities", dependencies=[Fresh])
async def simulated(
    server: ServerName, here: Here, _: Anyone, after: After = None, limit: Limit = DEFAULT_LIMIT
) -> EntityPage:
    """List what a server simulates."""
    return await _page(
        here, await names_held(here, server), lambda record: record.server == server, after, limit
    )


async def _page(
    here: Context,
    found: Iterable[str],
    still: Callable[[EntityRecord], bool],
    after: str | None,
    limit: int,
) -> EntityPage:
    names, following = page_of(found, after, limit)
    records = await entity_records(here, names)
    return EntityPage(
        # Index and records are read one after the other: what moved in between is in its new place.
        entities=[Entity.of(record) for record in records if still(record)],
        next=following,
    )


def etag(record: EntityRecord) -> str:
    """Tells one version of an entity from another."""
    epoch, version = record.age
    return f'"{epoch:x}.{version}"'
