"""A desk and a courier over one store: what one process of an instance does for federation."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from prometheus_client import CollectorRegistry, Counter

from bridge.authority import Message
from bridge.errors import BridgeError
from bridge.homeserver.federation.courier import Courier, CourierConfig
from bridge.homeserver.federation.desk import Desk
from bridge.homeserver.federation.escrows import Escrows
from bridge.homeserver.federation.link import HttpLink
from bridge.jose.credentials import Signer
from bridge.khepri import Khepri

_log = logging.getLogger("bridge.homeserver.federation")
_AGAIN_SECONDS = 1.0
"""after a courier's feed failed for good: the store has no member that answers"""


@contextlib.asynccontextmanager
async def federating(
    store: Khepri,
    *,
    instance: str,
    signer: Signer,
    config: CourierConfig | None = None,
    on_message: Callable[[Message], None] = lambda message: None,
    registry: CollectorRegistry | None = None,
    checkpoint: Callable[[str], Awaitable[None]] | None = None,
) -> AsyncIterator[Desk]:
    """Carry what is in escrow, and yield the desk that answers others.

    Args:
        store: client of the instance's store.
        instance: its name.
        signer: its key.
        config: times and bounds of the courier.
        on_message: is told of each document of a transfer that crossed, for traces.
        registry: gets a count of the questions to other instances.
        checkpoint: of the courier, for tests that end it there.
    """
    questions = Counter(
        "khepri_bridge_federation_questions",
        "Questions of this process to other instances, by how they ended: answered, rejected, unreachable.",
        ["instance", "outcome"],
        registry=registry,
    )
    async with HttpLink() as link:
        courier = Courier(
            store,
            instance=instance,
            signer=signer,
            link=link,
            config=config,
            on_message=on_message,
            on_question=lambda instance, outcome: questions.labels(instance, outcome).inc(),
            checkpoint=checkpoint,
        )
        carrying = asyncio.create_task(_carry(courier))
        try:
            yield Desk(Escrows(store), instance=instance, signer=signer, on_message=on_message)
        finally:
            carrying.cancel()
            await asyncio.gather(carrying, return_exceptions=True)


async def _carry(courier: Courier) -> None:
    while True:
        try:
            await courier.run()
        except* BridgeError as errors:
            _log.warning("the courier begins again: %s", errors.exceptions[0])
        await asyncio.sleep(_AGAIN_SECONDS)
