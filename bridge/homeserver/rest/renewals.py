"""Renewals of leases by servers without a cookie: passed on to the lessor, whose word is awaited.

The server counts its lease from before it sent the request, so that HTTP, balancers and this process can only
shorten it (``docs/leases.md``). Nothing is repeated here: a renewal that is lost is followed by the next one.
"""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import APIRouter
from pydantic import BaseModel, Field

from bridge.authority import Lost, Recalled, Renewed, lessor_message, renew
from bridge.authority.lessor import LESSOR
from bridge.errors import BridgeError, DecodeError
from bridge.homeserver.rest.context import Context, Here
from bridge.homeserver.rest.problems import ProblemError
from bridge.homeserver.rest.sessions import Own
from bridge.homeserver.rest.shapes import Epoch, Name, Number
from bridge.khepri import NodeCaller

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

_PATIENCE: Final = 1.0
"""seconds; the lessor answers every 50 ms, and a server has sent two more by then"""
_MAX_RECALLS: Final = 100
"""of one acknowledgement, so as many may have been obeyed since"""
_MAX_NUMBER: Final = 2**53 - 1


class RecallRef(BaseModel):
    """An entity that another server was granted."""

    entity: Name = Field(examples=["ball"])
    epoch: Epoch


class Renewal(BaseModel):
    """One renewal of a session's lease."""

    number: Number = Field(ge=1, le=_MAX_NUMBER, description="Rises by one from 1; each is sent once.")
    tick: Number = Field(
        ge=0, le=_MAX_NUMBER, description="The simulation's step counter: one that stands still is a hang."
    )
    load: Number = Field(ge=0, le=1_000_000_000, description="Entities held.")
    obeyed: list[RecallRef] = Field(
        default_factory=list, max_length=_MAX_RECALLS, description="Of the recalls told last, those obeyed."
    )


class Acknowledged(BaseModel):
    """The lease holds: from before that renewal was sent, for as long as the session's opening said."""

    number: int = Field(description="The newest renewal that was taken.", ge=1)
    generation: int = Field(description="Of the lessor.", ge=0)
    recalls: list[RecallRef] = Field(description="Recalls that are still open, as far as the lessor knows.")


@router.post("/{session}/renewals")
async def renewal(session: Own, body: Renewal, here: Here) -> Acknowledged:
    """Renew the lease of a session; send one every sixth of it, and wait for none."""
    try:
        async with asyncio.timeout(_PATIENCE):
            word = await _word(here, session, body)
    except TimeoutError:
        raise ProblemError(
            "not_acknowledged", f"renewal {body.number} was not acknowledged in time"
        ) from None
    if word is None:
        raise ProblemError("no_session", "the session is open no more: stop acting in it")
    return Acknowledged(
        number=word.number,
        generation=word.generation,
        recalls=[RecallRef(entity=entity, epoch=str(epoch)) for entity, epoch in word.recalls],
    )


async def _word(here: Context, session: bytes, body: Renewal) -> Renewed | None:
    """What the lessor says of this renewal; ``None``: the session is lost."""
    caller = here.store.caller
    if not isinstance(caller, NodeCaller) or caller.current is None:
        raise ProblemError("not_acknowledged", "no homeserver is connected now")
    node = caller.gateway.node
    obeyed: list[Recalled] = [(recall.entity, int(recall.epoch)) for recall in body.obeyed]
    async with node.mailbox() as mailbox:
        message = renew(
            mailbox.pid,
            session=session,
            number=body.number,
            tick=body.tick,
            load=body.load,
            obeyed=obeyed,
        )
        try:
            await node.send((LESSOR, caller.current), message)
        except BridgeError as error:
            raise ProblemError("not_acknowledged", "no homeserver took the renewal") from error
        while True:
            try:
                match lessor_message(await mailbox.receive()):
                    case Renewed(number=number) as renewed if number >= body.number:
                        return renewed
                    case Lost():
                        return None
            except DecodeError:
                # Of a later version: not the answer that is awaited.
                continue
