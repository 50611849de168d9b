"""Case 3: a player changes an entity that another server simulates, directly (R0-30, R0-31).

The owner's server sends the holder one reliable message; the credit that the holder gives back for its bytes
is the acknowledgement. No homeserver takes part: the holder knows the owner, and where each player is, from
the feed. What this moves is the entity and, at the holder's word, its owner. It never moves authority, so
there is nothing to fence beyond the epoch that the message names.

A next owner counts at the holder at once, who is the judge of its play, and is then given at the homeserver
behind the play. Until that is committed only the holder knows; its death before then leaves the former owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Final, Protocol

import numpy as np

from bridge.authority import Message, Update, decode_message_untrusted, encode_message
from bridge.errors import BridgeError, ConnectionLostError, DeadlineError, DecodeError, InvalidStateError
from bridge.registry import EntityRecord, PlayerRecord, Step
from bridge.sim.dataplane import DataPlaneClient
from bridge.sim.dataplane.messages import SendMessage
from bridge.sim.events import EntityUpdated, ServerEvent

MAX_SPEED: Final = 1_000.0
"""metres a second that an update may ask for on each axis"""
_CREDIT_SECONDS: Final = 10.0
_AGAIN_SECONDS: Final = 0.5
"""between tries to tell a homeserver that is not there who the owner is now"""

Vector = tuple[float, float, float]


class Holder(Protocol):
    """What the server does with the entities that it holds."""

    def held_epoch(self, entity: str) -> int | None:
        """Epoch under which it acts for the entity now; ``None`` where it does not."""

    def recorded_owner(self, entity: str) -> str:
        """Owner as the homeserver told last; empty where it told nothing."""

    def steer(self, entity: str, velocity: Vector) -> None:
        """Give a held entity another velocity."""

    async def record_owner(self, entity: str, *, owner: str) -> EntityRecord:
        """Have the homeserver record another owner; the authority stays."""


class DirectUpdates:
    """Updates between this server and others.

    Args:
        name: of this server.
        holder: what it holds.
        plane: sends, and tells of credit.
        record: keeps a message that crossed.
        on_event: is told of updates obeyed.
        spawn: runs work in the background.

    Attributes:
        refused: updates that were not obeyed: of a player who is not the owner or not at the server that
            sent it, or for an entity that is not held here under that epoch (R0-6).
    """

    def __init__(
        self,
        *,
        name: str,
        holder: Holder,
        plane: DataPlaneClient,
        record: Callable[[Message], None],
        on_event: Callable[[ServerEvent], None],
        spawn: Callable[[Coroutine[object, object, None]], None],
    ) -> None:
        self.refused = 0
        self._name = name
        self._holder = holder
        self._plane = plane
        self._record = record
        self._on_event = on_event
        self._spawn = spawn
        self._players: dict[str, bytes] = {}
        self._named: dict[str, str] = {}
        self._waiting: dict[bytes, asyncio.Future[None]] = {}

    def learn_player(self, record: PlayerRecord) -> None:
        """Hear from the feed where a player is."""
        self._players[record.player] = record.session

    def forget_player(self, player: str) -> None:
        """Hear from the feed that a player is nowhere."""
        self._players.pop(player, None)

    def knows_of(self) -> int:
        """Players who are somewhere, and what is under way."""
        return len(self._players) + len(self._named) + len(self._waiting)

    def owner(self, entity: str) -> str:
        """Who may change a held entity: whom the holder named last, else whom the homeserver tells."""
        return self._named.get(entity) or self._holder.recorded_owner(entity)

    async def send(
        self, known: EntityRecord, *, by: str, velocity: Vector, owner: str | None, step: Step
    ) -> None:
        """Change an entity at its holder; returns once the holder has taken the message.

        Taken is not obeyed: what became of it the holder's state shows.

        Raises:
            InvalidStateError: nobody holds it, or no credit came in time; the message may arrive yet.
        """
        if known.server is None:
            raise InvalidStateError(f"nobody simulates {known.entity}")
        message = encode_message(
            Update(
                trace=step.trace,
                hop=step.hop,
                entity=known.entity,
                epoch=known.epoch,
                by=by,
                velocity=velocity,
                owner=owner,
            )
        )
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[step.trace] = waiting
        try:
            self._plane.tell(SendMessage(to=known.server, message=message, credited=True))
            async with asyncio.timeout(_CREDIT_SECONDS):
                await waiting
        except TimeoutError:
            raise InvalidStateError(f"{known.server} has given no credit for an update") from None
        finally:
            self._waiting.pop(step.trace, None)

    def credited(self, server: str, data: bytes, at_ns: int) -> None:
        """The holder gave credit back for a message of ``send``."""
        with contextlib.suppress(DecodeError):
            message = decode_message_untrusted(data)
            if isinstance(message, Update):
                step = Step(trace=message.trace, hop=message.hop).next()
                self._crossed(step, "credit", server, self._name, at_ns)
                waiting = self._waiting.get(message.trace)
                if waiting is not None and not waiting.done():
                    waiting.set_result(None)

    def take(self, server: str, session: bytes | None, update: Update, at_ns: int) -> None:
        """Obey another server's update, or refuse it and count that.

        Args:
            server: who sent it, as the datagram session proves.
            session: its session, as the homeserver tells.
        """
        self._crossed(Step(trace=update.trace, hop=update.hop), "update", server, self._name, at_ns)
        velocity = np.array(update.velocity)
        if (
            self._holder.held_epoch(update.entity) != update.epoch
            or update.by != self.owner(update.entity)
            or session is None
            or self._players.get(update.by) != session
            or not (np.abs(velocity) <= MAX_SPEED).all()
        ):
            self.refused += 1
            return
        self._holder.steer(update.entity, update.velocity)
        if update.owner is not None and update.owner != update.by:
            self.name_owner(update.entity, update.owner)
        self._on_event(
            EntityUpdated(
                entity=update.entity,
                by=update.by,
                owner=self.owner(update.entity),
                at_ns=time.monotonic_ns(),
            )
        )

    def name_owner(self, entity: str, owner: str) -> None:
        """Let another player of a held entity count as its owner from now on, and have it recorded."""
        settling = entity in self._named
        self._named[entity] = owner
        if not settling:
            self._spawn(self._settle(entity))

    def supersede(self, entity: str, owner: str) -> None:
        """The server itself gives the entity to somebody; whom a player named before does not matter."""
        if entity in self._named:
            self._named[entity] = owner

    async def _settle(self, entity: str) -> None:
        """Have the newest owner recorded; those before it that nobody recorded yet do not matter."""
        try:
            while self._holder.recorded_owner(entity) != (owner := self._named[entity]):
                try:
                    await self._holder.record_owner(entity, owner=owner)
                except (ConnectionLostError, DeadlineError):
                    await asyncio.sleep(_AGAIN_SECONDS)
                except BridgeError:
                    # It is not this server's any more: whoever holds it now says who owns it.
                    return
        finally:
            del self._named[entity]

    def _crossed(self, step: Step, kind: str, sender: str, receiver: str, at_ns: int) -> None:
        self._record(
            Message(trace=step.trace, hop=step.hop, kind=kind, sender=sender, receiver=receiver, at_ns=at_ns)
        )
