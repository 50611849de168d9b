"""What every request of the REST service works with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry

from bridge.homeserver.federation import Desk
from bridge.homeserver.issuing import Issuing
from bridge.homeserver.rest.callers import Authenticator
from bridge.homeserver.rest.settings import RestSettings
from bridge.jose.credentials import Signer
from bridge.khepri import Khepri
from bridge.registry import Ownership
from bridge.registry.journal import Journal


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The same for all requests of a service process; nothing in it is of one caller.

    Attributes:
        store: client of the instance's store, over all its members.
        ownership: requests without an ``Idempotency-Key``.
        instance: name of the instance.
        authenticator: who a bearer token is of.
        settings: limits and deadlines.
        desk: answers other instances; ``None`` where the instance's signer is not at hand.
        registry: of the metrics of this process.
        stopping: set once the service is to end, so that feeds do.
        issuing: has certificates, tokens and tickets signed; ``None`` without a signer.
        signer: of the instance, if the service has one.
        journal: records what callers ask for, where that is wanted.
        clock: gives Unix seconds.
    """

    store: Khepri
    ownership: Ownership
    instance: str
    authenticator: Authenticator
    settings: RestSettings = field(default_factory=RestSettings)
    desk: Desk | None = None
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    issuing: Issuing | None = None
    signer: Signer | None = None
    journal: Journal | None = None
    clock: Callable[[], float] = time.time


async def context(request: Request) -> Context:
    """The context that ``create_app`` was given."""
    # Asynchronous like all dependencies here: FastAPI runs others in threads, which costs more than they do.
    found: Context = request.app.state.context
    return found


Here = Annotated[Context, Depends(context)]
