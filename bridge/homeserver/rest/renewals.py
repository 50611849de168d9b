"""Renewals of leases by servers without a cookie: passed on to the lessor, whose word is awaited.

The server counts its lease from before it sent the request, so that HTTP, balancers and this process can only
shorten it (``docs/leases.md``). Nothing is repeated here: a renewal that is lost is followed by the next one.
"""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from bridge.errors import BridgeError
from bridge.homeserver.rest.leasing import Leasing, Word
from bridge.homeserver.rest.problems import ProblemError
from bridge.homeserver.rest.sessions import OwnLease
from bridge.homeserver.rest.shapes import Epoch, Name, Number

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

_PATIENCE: Final = 1.0
"""seconds; the lessor answers every 50 ms, and a server has sent two more by then"""
_MAX_RECALLS: Final = 100
"""of one acknowledgement, so as many may have been obeyed since"""
_MAX_STREAMED: Final = 256
"""entities; a body has room for that many names of ordinary length"""
_MAX_NUMBER: Final = 2**53 - 1


class Granted(BaseModel):
    """An entity, and an epoch of it."""

    entity: Name = Field(examples=["ball"])
    epoch: Epoch


class Renewal(BaseModel):
    """One renewal of a session's lease."""

    number: Number = Field(
        ge=1, le=_MAX_NUMBER, description="Rises by one from 1; each is sent once.", examples=[7]
    )
    tick: Number = Field(
        ge=0,
        le=_MAX_NUMBER,
        description="The simulation's step counter: one that stands still is a hang.",
        examples=[4711],
    )
    load: Number = Field(ge=0, le=1_000_000_000, description="Entities held.", examples=[12])
    obeyed: list[Granted] = Field(
        default_factory=list, max_length=_MAX_RECALLS, description="Of the recalls told last, those obeyed."
    )
    streamed: list[Name] = Field(
        default_factory=list,
        max_length=_MAX_STREAMED,
        description=(
            "Entities of other servers whose newest state is here, no older than a lease. Should such a "
            "server end, this one may be granted those whose owner or master has entered here."
        ),
        examples=[["ball"]],
    )
    released: list[Granted] = Field(
        default_factory=list,
        max_length=_MAX_STREAMED,
        description=(
            "Entities that this session has released, with the newest epoch: nothing acts under that one "
            "or an older one of this session, or ever will."
        ),
    )


class Acknowledged(BaseModel):
    """The lease holds: from before that renewal was sent, for as long as the session's opening said."""

    number: int = Field(description="The newest renewal that was taken.", ge=1, examples=[7])
    generation: int = Field(description="Of the lessor.", ge=0, examples=[3])
    recalls: list[Granted] = Field(description="Recalls that are still open, as far as the lessor knows.")


@router.post("/{session}/renewals")
async def renewal(session: OwnLease, body: Renewal, request: Request) -> Acknowledged:
    """Renew the lease of a session; send one every sixth of it, and wait for none."""
    leasing: Leasing = request.app.state.leasing
    try:
        async with asyncio.timeout(_PATIENCE):
            word = await leasing.renew(session.id, _word(body), lease=session.lease_ms / 1000)
    except TimeoutError:
        raise ProblemError(
            "not_acknowledged", f"renewal {body.number} was not acknowledged in time"
        ) from None
    except BridgeError as error:
        raise ProblemError("not_acknowledged", "no homeserver took the renewal") from error
    if word is None:
        raise ProblemError("no_session", "the session is open no more: stop acting in it")
    return Acknowledged(
        number=word.number,
        generation=word.generation,
        recalls=[Granted(entity=entity, epoch=str(epoch)) for entity, epoch in word.recalls],
    )


def _word(body: Renewal) -> Word:
    return Word(
        number=body.number,
        tick=body.tick,
        load=body.load,
        obeyed=[(recall.entity, int(recall.epoch)) for recall in body.obeyed],
        streamed=frozenset(body.streamed),
        released={grant.entity: int(grant.epoch) for grant in body.released},
    )
