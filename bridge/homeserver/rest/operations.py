"""Whether this process lives, and whether it can serve: for whoever starts it, and for a balancer."""

from __future__ import annotations

import asyncio
from typing import Final, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

import bridge
from bridge.errors import BridgeError
from bridge.homeserver.rest.context import Here
from bridge.homeserver.rest.problems import ProblemError
from bridge.homeserver.rest.reading import bridge_path
from bridge.khepri import Exists, Khepri

router = APIRouter(tags=["operations"])

_ANSWER_SECONDS: Final = 1.0
"""An election takes less; a balancer should turn elsewhere after that."""
_VALID_SECONDS: Final = 1.0


class Readiness:
    """Whether a majority takes writes: one write tells, for all who ask within a second.

    A read would not do: a leader that lost its majority goes on answering reads.

    Args:
        store: the instance's store.
    """

    def __init__(self, store: Khepri) -> None:
        self._store = store
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def check(self) -> None:
        """Return where it is so.

        Raises:
            ProblemError: it is not.
        """
        async with self._asking:
            clock = asyncio.get_running_loop().time
            if clock() >= self._until:
                try:
                    await self._store.transaction([Exists(bridge_path("identity"))], timeout=_ANSWER_SECONDS)
                except BridgeError as error:
                    raise ProblemError(
                        "unavailable",
                        "no majority of the homeservers took a write in time",
                        headers={"Retry-After": "1"},
                    ) from error
                self._until = clock() + _VALID_SECONDS


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"
    version: str = Field(description="Of the service.", examples=[bridge.__version__])


class Ready(BaseModel):
    """The cluster answers too."""

    status: Literal["ready"] = "ready"
    instance: str = Field(description="The logical homeserver that is served.", examples=["local"])


@router.get("/health")
async def health() -> Alive:
    """Tell that this process answers; start it anew where it does not. It asks nothing of the cluster."""
    return Alive(version=bridge.__version__)


@router.get("/ready")
async def ready(request: Request, here: Here) -> Ready:
    """Tell that requests can be served now, or 503: a majority of the homeservers took a write in time."""
    readiness: Readiness = request.app.state.readiness
    await readiness.check()
    return Ready(instance=here.instance)
