"""What becomes of an entity that was let go of, where nobody answers: somebody must act for it.

A push whose outcome is not known may come to pass still, and an offer may be claimed late. So nothing is
resumed: the entity is released, after which both are refused, and taken anew. And a session may end whose
grant waits for a release still: then the entity is nobody's, and whoever owed that takes it, once it has
released.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from bridge.authority import Phase
from bridge.errors import BridgeError
from bridge.registry import REFUSED, EntityRecord, Homeserver, NotHolderError
from bridge.sim.standing import Spawn, Standing, first_step

_AGAIN_SECONDS: Final = 1.0
"""between tries while no homeserver answers"""

_log = logging.getLogger("bridge.sim")


class Settling:
    """Takes back what one session let go of and nobody took.

    Args:
        standing: what the session holds.
        home: its requests.
        streamed: those of some entities whose newest state is here.
        spawn: runs work in the background and reports its failure.
    """

    def __init__(
        self,
        *,
        standing: Standing,
        home: Homeserver,
        streamed: Callable[[tuple[str, ...]], Awaitable[tuple[str, ...]]],
        spawn: Spawn,
    ) -> None:
        self._standing = standing
        self._home = home
        self._streamed = streamed
        self._spawn = spawn

    @contextlib.contextmanager
    def unless_answered(self, entity: str, epoch: int) -> Iterator[None]:
        """Around the homeserver's answer to a request that gives away what was stopped before."""
        try:
            yield
        except NotHolderError:
            raise
        except BaseException:
            if self._is_open(entity, epoch):
                self._spawn(self.settle(entity, epoch))
            raise

    def unless_claimed(self, entity: str, epoch: int, *, seconds: float) -> None:
        """Settle an offer that nobody claims in time."""
        self._spawn(self.settle(entity, epoch, seconds=seconds))

    def unless_left(self, record: EntityRecord) -> None:
        """Take an entity that is nobody's, since the one it was given to is gone and did not have it yet.

        Its release was due when the lessor looked for a successor, who would have waited for it for ever or
        acted beside it, so there was none. That is over once it has released.
        """
        if self._is_left(record):
            self._spawn(self._take_left(record))

    async def _take_left(self, record: EntityRecord) -> None:
        standing, entity = self._standing, record.entity
        while True:
            async with standing.locks[entity]:
                try:
                    # As of any successor: who has its newest state, and not an old one.
                    if not self._is_left(record) or not await self._streamed((entity,)):
                        return
                    pulled = await self._home.pull(
                        entity=entity, epoch=record.epoch, owner=record.owner, step=first_step()
                    )
                except REFUSED:
                    return  # Another one was faster.
                except BridgeError as error:
                    _log.info("%s is not taken back yet: %s", entity, error)
                else:
                    await standing.granted(pulled)
                    return
            await asyncio.sleep(_AGAIN_SECONDS)

    def _is_left(self, record: EntityRecord) -> bool:
        standing, due = self._standing, record.awaiting
        return (
            record.session is None
            and due is not None
            and due.session == standing.session
            and due.epoch <= standing.released_for_good(record.entity)
            and not (record.is_deleted or record.away is not None or standing.is_over)
            and standing.entities.get(record.entity) is record
            and standing.holdings[record.entity].phase is Phase.FOLLOWING
        )

    async def settle(self, entity: str, epoch: int, *, seconds: float = 0.0) -> None:
        """Release the entity and take it anew, unless another server has it or its recall comes first.

        Args:
            epoch: under which this session acted, until it stopped.
            seconds: to wait before.

        Raises:
            AuthorityError: another server took it meanwhile.
        """
        await asyncio.sleep(seconds)
        while True:
            async with self._standing.locks[entity]:
                if not self._is_open(entity, epoch):
                    return
                with contextlib.suppress(BridgeError):
                    if not await self._is_released(entity, epoch):
                        return
                    break
            await asyncio.sleep(_AGAIN_SECONDS)
        async with self._standing.locks[entity]:
            self._standing.must_follow(entity)
            owner = self._standing.owner(entity)
            record = await self._home.pull(entity=entity, epoch=epoch, owner=owner, step=first_step())
            await self._standing.granted(record)

    async def _is_released(self, entity: str, epoch: int) -> bool:
        """Whether it is dormant now; else another server holds it, and the feed or the inbox says so."""
        try:
            record = await self._home.release(entity=entity, epoch=epoch)
        except REFUSED:
            return False
        self._standing.note_owner(record)
        self._standing.holdings.follow(entity, record.epoch)
        self._standing.pinned.add(entity)
        return True

    def _is_open(self, entity: str, epoch: int) -> bool:
        holding = self._standing.holdings[entity]
        return not self._standing.is_over and (holding.phase, holding.epoch) == (Phase.RELEASING, epoch)
