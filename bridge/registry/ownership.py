"""What players do with entities at the homeserver: ask, answer, pass on, take back, make rules (R0-6…R0-9).

Each request is one transaction there, decided by the rule of the entity and by who asks. Who a request comes
from is what the caller says: as with all of the store, whoever holds the cookie is trusted
(``docs/threat-model.md``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal

from bridge.errors import ConfigurationError
from bridge.etf import Atom
from bridge.khepri import Khepri, OperationId
from bridge.registry.journal import Journal
from bridge.registry.records import EntityRecord, Outcome, Rule, Step, outcome_of
from bridge.registry.requests import PATIENCE, Requests, name_bytes, step_members

MAX_ASK_SECONDS: Final = 3_600.0
"""seconds that an ask may stay open"""


class Operator(Enum):
    """Whoever runs the homeservers; may do what a master may, where the master is gone for good."""

    OPERATOR = "operator"


OPERATOR: Final = Operator.OPERATOR
Party = str | Literal[Operator.OPERATOR]
"""in whose name a request comes: a player, or the operator"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """The answer to a request.

    Attributes:
        record: the entity now; with authority granted, act on it as on that of a pull.
        pending: the master was asked; what becomes of it comes to the session's inbox.
        expires_ms: when the ask ends by itself, Unix time in milliseconds; 0 where nothing is pending.
    """

    record: EntityRecord
    pending: bool
    expires_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a master's answer came to: ``granted``, ``refused``, or ``gone`` where the asker is."""

    record: EntityRecord
    outcome: Outcome


class Ownership:
    """Requests in the names of players.

    Args:
        store: client of the instance's store.
        patience: seconds to repeat a request until its outcome is known.
        operations: gives each request its operation id, for whoever repeats them himself; by default new
            ones.
        journal: records requests and answers, where that is wanted.
    """

    def __init__(
        self,
        store: Khepri,
        *,
        patience: float = PATIENCE,
        operations: Callable[[], OperationId] | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._requests = Requests(store, patience=patience, operations=operations, journal=journal)

    async def enter(self, player: str, session: bytes) -> None:
        """The player is at this session's server from now on; what the player masters is asked for there.

        Raises:
            NotHolderError: the session is not open.
        """
        await self._requests.ask("enter", player=name_bytes(player), session=session)

    async def leave(self, player: str, session: bytes) -> list[str]:
        """The player leaves: all entities they own pass to the default owner, or to the master (R0-8).

        One transaction passes on 256 of them at most. Where this is interrupted, leaving again goes on.

        Returns:
            What was passed on.

        Raises:
            NotHereError: the player has entered at another session since.
        """
        passed: list[str] = []
        bucket: Any = 0
        while isinstance(bucket, int):
            value = await self._requests.ask(
                "leave", player=name_bytes(player), session=session, bucket=bucket
            )
            passed += [entity.decode(errors="replace") for entity in value[Atom("passed")]]
            bucket = value[Atom("next")]
        return passed

    async def request(
        self,
        known: EntityRecord,
        *,
        player: str,
        session: bytes,
        authority: bool = False,
        seconds: float = 30.0,
        step: Step | None = None,
    ) -> Requested:
        """Ask for an entity; its rule decides: at once, never, or after one round trip to its master.

        Args:
            known: the record that the player saw; who has changed it since won.
            player: who asks, and is at ``session``.
            session: of the server where the answer is awaited.
            authority: whether that server is to simulate the entity as well.
            seconds: how long the master may take.
            step: of this request, where it is traced.

        Raises:
            ConflictError: another one took it first.
            DeniedError: the rule forbids it.
            PendingError: the player has asked already.
            MasterAwayError: the rule is ``ask``, and the master is at no server.
            TooManyAsksError: the master has too many questions open.
            AlreadyOwnerError: the player has it.
            NotHereError: the player is not at this session.
        """
        if not 0.001 <= seconds <= MAX_ASK_SECONDS:
            raise ConfigurationError(f"an ask stays open for up to {MAX_ASK_SECONDS:.0f} s, not {seconds!r}")
        value = await self._requests.ask(
            "request",
            entity=name_bytes(known.entity),
            player=name_bytes(player),
            session=session,
            owner=name_bytes(known.owner),
            epoch=known.epoch,
            authority=authority,
            ttl=round(seconds * 1000),
            **step_members(step),
        )
        pending = outcome_of(value) is Outcome.PENDING
        return Requested(
            record=EntityRecord.from_term(value),
            pending=pending,
            expires_ms=value[Atom("expires")] if pending else 0,
        )

    async def answer(
        self, entity: str, *, player: str, by: Party, grant: bool, step: Step | None = None
    ) -> Answered:
        """Grant or refuse what ``player`` asked for.

        Whoever else had asked for the entity gets a conflict that names the winner.

        Raises:
            NotMasterError: ``by`` is not the master.
            NoAskError: the player did not ask, has withdrawn, or the ask has expired.
        """
        value = await self._requests.ask(
            "answer",
            entity=name_bytes(entity),
            player=name_bytes(player),
            by=_party(by),
            grant=grant,
            **step_members(step),
        )
        return Answered(record=EntityRecord.from_term(value), outcome=outcome_of(value))

    async def withdraw(self, entity: str, *, player: str) -> EntityRecord:
        """Take one's ask back.

        Raises:
            NoAskError: there is none (any more); it may have been granted.
        """
        return await self._requests.change("withdraw", entity=name_bytes(entity), player=name_bytes(player))

    async def set_rule(self, entity: str, rule: Rule, *, by: Party) -> EntityRecord:
        """Change the rule (R0-7); ``deny`` ends the asks that are open.

        Raises:
            NotMasterError: ``by`` is not the master.
        """
        return await self._change("set_rule", entity, by, rule=Atom(rule.value))

    async def set_master(self, entity: str, master: str, *, by: Party) -> EntityRecord:
        """Name another master, who inherits the asks that are open.

        Raises:
            NotMasterError: ``by`` is not the master.
            QuotaError: ``master`` has as many entities as one may.
        """
        return await self._change("set_master", entity, by, master=name_bytes(master))

    async def set_default_owner(self, entity: str, player: str | None, *, by: Party) -> EntityRecord:
        """Name who gets the entity when its owner leaves or it is revoked; ``None``: the master (R0-7).

        Raises:
            NotMasterError: ``by`` is not the master.
        """
        default = Atom("undefined") if player is None else name_bytes(player)
        return await self._change("set_default_owner", entity, by, default_owner=default)

    async def transfer(self, entity: str, to: str, *, by: Party) -> EntityRecord:
        """Give the entity to a player; who simulates it stays.

        Raises:
            NotOwnerError: ``by`` is neither owner nor master.
        """
        return await self._change("transfer", entity, by, to=name_bytes(to))

    async def revoke(self, entity: str, *, by: Party) -> EntityRecord:
        """Take the entity back from its owner, or give it back: to the default owner, or to the master.

        Raises:
            NotOwnerError: ``by`` is neither owner nor master.
        """
        return await self._change("revoke", entity, by)

    async def delete_entity(self, entity: str, *, by: Party, step: Step | None = None) -> EntityRecord:
        """Let there be no such entity any more, here at its home; whoever may act for it stops.

        Its name is free again once they have said so, or their sessions have ended; what comes of that name
        next begins at a higher epoch.

        Returns:
            Its last record.

        Raises:
            NotMasterError: ``by`` is not the master.
            AwayError: it is at another instance, or on its way there.
            AuthorityError: its home is another instance (``not_home``).
        """
        return await self._change("delete_entity", entity, by, **step_members(step))

    async def entity(self, entity: str) -> EntityRecord:
        """The record as the connected member has it: good to show, never to act on."""
        return await self._requests.entity(entity)

    async def refusals(self) -> dict[str, dict[str, int]]:
        """How often each request was refused for want of a right, by request and reason (R0-6)."""
        return await self._requests.refusals()

    async def _change(self, function: str, entity: str, by: Party, **members: Any) -> EntityRecord:
        return await self._requests.change(function, entity=name_bytes(entity), by=_party(by), **members)


def _party(by: Party) -> Any:
    return Atom("operator") if by is OPERATOR else name_bytes(by)
