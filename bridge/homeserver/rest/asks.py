"""Requests for entities, and what masters answer: each pending one is a resource (R0-8)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field, StrictBool
from starlette.requests import Request

from bridge.etf import Atom
from bridge.homeserver.rest.authentication import Anyone, PlayerOrOperator
from bridge.homeserver.rest.context import Context, Here
from bridge.homeserver.rest.entities import EntityName
from bridge.homeserver.rest.idempotency import Writes
from bridge.homeserver.rest.players import PlayerName
from bridge.homeserver.rest.problems import ProblemError
from bridge.homeserver.rest.reading import Fresh, bridge_path, entity_named, record_at, session_of_player
from bridge.homeserver.rest.shapes import Entity, Epoch, Name
from bridge.homeserver.rest.tracing import step_of
from bridge.jose.credentials import Role
from bridge.registry import AskEnded, Outcome, inbox_message

router = APIRouter(prefix="/v1", tags=["requests"])

Asker = Annotated[Name, Path(description="The player who asked.", examples=["Player2"])]


class Wanted(BaseModel):
    """What a player asks for, and what the player saw: whoever has changed that since was faster."""

    known_owner: Name = Field(description="The owner as the player saw it.", examples=["Player1"])
    known_epoch: Epoch = Field(default="0", description="The epoch likewise; it counts with `authority`.")
    authority: StrictBool = Field(
        default=False, description="Whether the player's server is to simulate it, too."
    )
    seconds: float = Field(
        default=30.0,
        strict=True,
        ge=0.001,
        le=3600,
        allow_inf_nan=False,
        description="How long the master may take.",
    )
    player: Name | None = Field(
        default=None, description="In whose name, for operators.", examples=["Player2"]
    )


class Requested(BaseModel):
    """What a request came to."""

    entity: str = Field(examples=["ball"])
    player: str = Field(description="Who asked.", examples=["Player2"])
    outcome: Outcome = Field(description="`pending`: its master was asked.")
    expires: int | None = Field(description="When a pending one ends by itself, Unix milliseconds.")
    record: Entity | None = Field(
        description="The entity as the outcome left it; null while that is pending."
    )


class Ask(BaseModel):
    """A question to a master."""

    entity: str = Field(examples=["ball"])
    player: str = Field(description="Who asks.", examples=["Player2"])
    server: str = Field(description="Where that player is.", examples=["sim2"])
    authority: bool = Field(description="Whether that server is to simulate it, too.")
    expires: int = Field(description="When it ends by itself, Unix milliseconds.")


class Asks(BaseModel):
    """Questions, oldest first."""

    asks: list[Ask]


class Decision(BaseModel):
    """What the master says."""

    grant: StrictBool = Field(description="true: the player gets it.")


@router.post(
    "/entities/{entity}/requests",
    responses={202: {"description": "Its master was asked; Location says where to look", "model": Requested}},
)
async def ask(
    entity: EntityName,
    body: Wanted,
    here: Here,
    who: PlayerOrOperator,
    writes: Writes,
    request: Request,
    response: Response,
) -> Requested:
    """Ask for an entity: its rule decides at once, or its master is asked."""
    player = _asker(body.player, who)
    session = await session_of_player(here, player)
    if session is None:
        raise ProblemError("no_player", f"{player} is at no server")
    seen = replace(await entity_named(here, entity), owner=body.known_owner, epoch=int(body.known_epoch))
    asked = await writes.ownership.request(
        seen,
        player=player,
        session=session,
        authority=body.authority,
        seconds=body.seconds,
        step=step_of(request),
    )
    if asked.pending:
        response.status_code = 202
        response.headers["Location"] = request.url_for("look", entity=entity, player=player).path
    return Requested(
        entity=entity,
        player=player,
        outcome=Outcome.PENDING if asked.pending else Outcome.GRANTED,
        expires=asked.expires_ms if asked.pending else None,
        record=None if asked.pending else Entity.of(asked.record),
    )


@router.get("/entities/{entity}/requests", dependencies=[Fresh])
async def pending(entity: EntityName, here: Here, _: Anyone) -> Asks:
    """List who is asking for an entity."""
    master = (await entity_named(here, entity)).master
    return Asks(asks=[one for one in await _asks_of(here, master) if one.entity == entity])


@router.get("/entities/{entity}/requests/{player}", dependencies=[Fresh])
async def look(entity: EntityName, player: Asker, here: Here, _: Anyone) -> Requested:
    """Tell what has become of a player's request, as long as the player stays at that server."""
    record = await entity_named(here, entity)
    for one in await _asks_of(here, record.master):
        if (one.entity, one.player) == (entity, player):
            over = one.expires <= time.time() * 1000
            return Requested(
                entity=entity,
                player=player,
                outcome=Outcome.EXPIRED if over else Outcome.PENDING,
                expires=one.expires,
                record=Entity.of(record) if over else None,
            )
    ended = await _ended(here, entity, player)
    if ended is None:
        raise ProblemError("no_ask", f"nothing is known of a request of {player} for {entity}")
    return Requested(
        entity=entity, player=player, outcome=ended.outcome, expires=None, record=Entity.of(ended.record)
    )


@router.delete("/entities/{entity}/requests/{player}")
async def withdraw(entity: EntityName, player: Asker, who: PlayerOrOperator, writes: Writes) -> Entity:
    """Take a request back; for whoever asked."""
    who.may_name(player)
    return Entity.of(await writes.ownership.withdraw(entity, player=player))


@router.post("/entities/{entity}/requests/{player}/answer")
async def answer(
    entity: EntityName, player: Asker, body: Decision, who: PlayerOrOperator, writes: Writes, request: Request
) -> Requested:
    """Grant or refuse what a player asked for; for its master."""
    answered = await writes.ownership.answer(
        entity, player=player, by=who.party, grant=body.grant, step=step_of(request)
    )
    return Requested(
        entity=entity,
        player=player,
        outcome=answered.outcome,
        expires=None,
        record=Entity.of(answered.record),
    )


@router.get("/players/{player}/asks", dependencies=[Fresh])
async def questions(player: PlayerName, here: Here, who: PlayerOrOperator) -> Asks:
    """List what a player is asked as a master."""
    who.may_name(player)
    return Asks(asks=await _asks_of(here, player))


def _asker(named: str | None, who: PlayerOrOperator) -> str:
    if who.role is Role.OPERATOR:
        if named is None:
            raise ProblemError("invalid_request", "an operator names the `player` who asks")
        return named
    if named is not None:
        who.may_name(named)
    return who.subject


async def _asks_of(here: Context, master: str) -> list[Ask]:
    record = await record_at(here, bridge_path("asks", master))
    return [] if record is None else asks_in(record)


def asks_in(record: Mapping[Any, Any]) -> list[Ask]:
    """What a master is asked, of the master's record in the tree."""
    return [_ask(term) for term in record[Atom("pending")]]


async def _ended(here: Context, entity: str, player: str) -> AskEnded | None:
    session = await session_of_player(here, player)
    if session is None:
        return None
    term = await record_at(here, bridge_path("inbox", session, Atom("asks"), entity, player))
    message = None if term is None else inbox_message(term)
    return message if isinstance(message, AskEnded) else None


def _ask(term: Mapping[Any, Any]) -> Ask:
    def text(name: str) -> str:
        decoded: str = term[Atom(name)].decode(errors="replace")
        return decoded

    return Ask(
        entity=text("entity"),
        player=text("player"),
        server=text("server"),
        authority=term[Atom("authority")],
        expires=term[Atom("expires")],
    )
