"""Hand-off tickets, and the players' data that travels in them (R4-1…R4-8)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from bridge.homeserver.rest.authentication import Anyone, PlayerOrOperator
from bridge.homeserver.rest.context import Here
from bridge.homeserver.rest.issuing import Issues, Known, refusing
from bridge.homeserver.rest.problems import ProblemError
from bridge.homeserver.rest.reading import server_named
from bridge.homeserver.rest.shapes import Name
from bridge.homeserver.rest.tokens import Peer
from bridge.jose.credentials import Role
from bridge.registry import OPERATOR, Party

router = APIRouter(prefix="/v1", tags=["tickets"])

PlayerName = Annotated[Name, Path(description="Name of a player.", examples=["Player1"])]


class Travelling(BaseModel):
    """Where a player wants to go."""

    server: Name = Field(examples=["sim1"])
    room: Name = Field(description="At that server.", examples=["tavern"])
    player: Name | None = Field(default=None, description="Whose ticket, where an operator asks.")


class TicketGiven(BaseModel):
    """A ticket, and where to go with it."""

    ticket: str = Field(
        description="A `kb-ticket+jwt`: for that server's present run, that room, one use.",
        examples=["eyJhbGci.eyJpc3Mi.c2lnbmF0"],
    )
    expires: int = Field(description="Unix seconds.", examples=[1795297739])
    server: Peer


class PlayerData(BaseModel):
    """What the homeserver keeps of a player for the next hand-off."""

    data: dict[str, Any] = Field(
        description="Any JSON object of up to 8192 bytes and 7 levels.", examples=[{"gold": 7}]
    )


class Written(BaseModel):
    """How often a player's data was written."""

    version: int


@router.post("/tickets", status_code=201)
async def ticket(body: Travelling, here: Here, who: PlayerOrOperator, issues: Issues) -> TicketGiven:
    """Give a player a ticket into a room, with the player's data in it."""
    player = body.player or who.subject
    who.may_name(player)
    server = await server_named(here, body.server, current=True)
    if server.session is None:
        raise ProblemError("server_away", f"the server {body.server} has no session")
    given = await issues.ticket(player, server=server, room=body.room)
    return TicketGiven(
        ticket=given.token,
        expires=given.expires_at,
        server=Peer.of(server),
    )


@router.get("/players/{player}/data", tags=["players"])
async def player_data(player: PlayerName, known: Known, who: PlayerOrOperator) -> PlayerData:
    """Tell a player what would be in a ticket now."""
    who.may_name(player)
    return PlayerData(data=await known.player_data(player))


@router.put("/players/{player}/data", tags=["players"])
async def set_player_data(player: PlayerName, body: PlayerData, known: Known, who: Anyone) -> Written:
    """Keep a player's data: by an operator, or by the server where the player is."""
    if who.role is Role.PLAYER:
        raise ProblemError("role", "players do not write this", members={"roles": ["server", "operator"]})
    by: Party = OPERATOR if who.role is Role.OPERATOR else who.subject
    with refusing("invalid_request"):
        version = await known.set_player_data(player, body.data, by=by)
    return Written(version=version)
