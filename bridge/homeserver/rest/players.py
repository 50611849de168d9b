"""Players: at which server each one is, and what becomes of what they own when they leave (R0-8)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from bridge.etf import Atom
from bridge.homeserver.rest.authentication import Anyone, PlayerOrOperator
from bridge.homeserver.rest.context import Here
from bridge.homeserver.rest.idempotency import Writes
from bridge.homeserver.rest.problems import ProblemError
from bridge.homeserver.rest.reading import Fresh, bridge_path, record_at, server_named, session_of_player
from bridge.homeserver.rest.shapes import Name

router = APIRouter(prefix="/v1/players", tags=["players"])

PlayerName = Annotated[Name, Path(description="Name of a player.", examples=["Player1"])]


class Presence(BaseModel):
    """Where a player is."""

    player: str = Field(examples=["Player1"])
    server: str = Field(description="The server where the player is.", examples=["sim1"])


class Entering(BaseModel):
    """Where a player goes."""

    server: Name = Field(description="The server to be at from now on.", examples=["sim1"])


class Left(BaseModel):
    """What a player who left has passed on."""

    player: str = Field(examples=["Player1"])
    passed: list[str] = Field(description="Entities that others own now.", examples=[["ball"]])


@router.get("/{player}/presence", dependencies=[Fresh])
async def presence(player: PlayerName, here: Here, _: Anyone) -> Presence:
    """Tell at which server a player is."""
    place = await record_at(here, bridge_path("players", player))
    if place is None or await record_at(here, bridge_path("sessions", place[Atom("session")])) is None:
        raise ProblemError("no_player", f"{player} is at no server", members={"status": 404})
    return Presence(player=player, server=place[Atom("server")].decode(errors="replace"))


@router.put("/{player}/presence")
async def enter(
    player: PlayerName, body: Entering, here: Here, who: PlayerOrOperator, writes: Writes
) -> Presence:
    """Have a player be at a server: requests come from there, and a master is asked there."""
    who.may_name(player)
    server = await server_named(here, body.server, current=True)
    if server.session is None:
        raise ProblemError("server_away", f"the server {body.server} has no session")
    await writes.ownership.enter(player, server.session)
    return Presence(player=player, server=body.server)


@router.delete("/{player}/presence")
async def leave(player: PlayerName, here: Here, who: PlayerOrOperator, writes: Writes) -> Left:
    """Have a player leave: what they own passes to its default owner, or to its master."""
    who.may_name(player)
    session = await session_of_player(here, player) or bytes(16)
    return Left(player=player, passed=await writes.ownership.leave(player, session))
