"""Authority requests of a simulation server's session: what it holds, and passes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bridge.errors import ConfigurationError
from bridge.etf import Atom
from bridge.khepri import Khepri, OperationId
from bridge.registry.journal import Journal
from bridge.registry.records import EntityRecord, Rule, ServerRecord, Step, server_abroad
from bridge.registry.refusals import UnknownServerError
from bridge.registry.requests import PATIENCE, Requests, name_bytes, step_members


class EndReason(StrEnum):
    """Why a session is ended by somebody who knows that nothing acts for it any more."""

    DEAD = "dead"
    """all processes that could seal are dead"""
    DRAINED = "drained"
    """they have stopped"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSession:
    """A session as the answer that opened it says (``docs/leases.md``).

    Attributes:
        held: entities that the session holds: none, or what an answer lost on the way had given it.
        lease_ms: how long it lasts without an acknowledged renewal, counted from before it was asked for.
        generation: of the lessor; 0 while no member was one yet.
    """

    held: tuple[EntityRecord, ...]
    lease_ms: int
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What became of the entities of a session that ended.

    Attributes:
        released: those that are dormant now.
        passed: those that another server goes on with, and which one.
    """

    released: list[str]
    passed: dict[str, str]


class Homeserver:
    """Requests of one simulation server's session.

    Args:
        store: client of the instance's store.
        session: 16 random bytes, new for each start of the server.
        patience: seconds to repeat a request until its outcome is known.
        operations: gives each request its operation id, for whoever repeats them himself; by default new
            ones.
        journal: records requests and answers, where that is wanted.
    """

    def __init__(
        self,
        store: Khepri,
        session: bytes,
        *,
        patience: float = PATIENCE,
        operations: Callable[[], OperationId] | None = None,
        journal: Journal | None = None,
    ) -> None:
        if len(session) != 16:
            raise ConfigurationError(f"a session id has 16 bytes, not {len(session)}")
        self._requests = Requests(store, patience=patience, operations=operations, journal=journal)
        self.session = session

    async def open_session(
        self, *, server: str, key: bytes, thumbprint: str, address: tuple[str, int]
    ) -> OpenedSession:
        """Register the server, its public key (JWK, JSON) and where it listens.

        Raises:
            NameInUseError: an earlier session of this name is open, until it is closed or its lease is over.
        """
        value = await self._ask(
            "open_session",
            server=name_bytes(server),
            key=key,
            thumbprint=thumbprint.encode(),
            address=(address[0].encode(), address[1]),
        )
        return OpenedSession(
            held=tuple(EntityRecord.from_term(term) for term in value[Atom("held")]),
            lease_ms=value[Atom("lease_ms")],
            generation=value[Atom("generation")],
        )

    async def close_session(self) -> Ended:
        """End this session, in whose name nothing acts any more; successors go on with what it held."""
        return _ended(await self._ask("close_session"))

    async def end_session(self, reason: EndReason) -> Ended:
        """The same, said by somebody else who knows that nothing acts in its name."""
        return _ended(await self._ask("end_session", reason=Atom(reason.value)))

    async def create_entity(
        self, *, entity: str, owner: str, master: str, rule: Rule, present: Sequence[str] = ()
    ) -> EntityRecord:
        """Make an entity that this session holds; the spawner is usually owner and master (R0-8).

        Args:
            present: players who must have entered at this session, up to two.

        Raises:
            NotHereError: one of them has not.
            EntityExistsError: there is one of this name.
            BeingDeletedError: there was one, and a server may act for it still.
            QuotaError: there are as many as there may be, here or under this master.
        """
        return await self._change(
            "create_entity",
            entity=name_bytes(entity),
            owner=name_bytes(owner),
            master=name_bytes(master),
            rule=Atom(rule.value),
            **_present(present),
        )

    async def give(self, *, entity: str, epoch: int, owner: str, step: Step) -> EntityRecord:
        """Change the owner; this server keeps simulating."""
        return await self._change(
            "give", entity=name_bytes(entity), epoch=epoch, owner=name_bytes(owner), **step_members(step)
        )

    async def push(
        self, *, entity: str, epoch: int, owner: str, to: str, box: str, step: Step
    ) -> EntityRecord:
        """Give owner and authority to another server, with this one's release sealed for it."""
        return await self._change(
            "push",
            entity=name_bytes(entity),
            epoch=epoch,
            owner=name_bytes(owner),
            to=name_bytes(to),
            box=box.encode(),
            **step_members(step),
        )

    async def push_abroad(
        self, *, entity: str, epoch: int, owner: str, instance: str, to: str, box: str, step: Step
    ) -> EntityRecord:
        """Put the entity into escrow for a server of another instance, with this one's release sealed for it.

        What becomes of it comes to the inbox: ``Closed`` or ``Returned``.

        Args:
            owner: the new owner, as the other instance knows players.
            instance: a pinned one.
            to: its server.
        """
        return await self._change(
            "push_abroad",
            entity=name_bytes(entity),
            epoch=epoch,
            owner=name_bytes(owner),
            instance=name_bytes(instance),
            to=name_bytes(to),
            box=box.encode(),
            **step_members(step),
        )

    async def pull(
        self, *, entity: str, epoch: int, owner: str, step: Step, present: Sequence[str] = ()
    ) -> EntityRecord:
        """Take owner and authority; act only when the release that ``awaiting`` names has come.

        Args:
            epoch: the newest this server knows; another one took the entity if it is no longer current.
            present: players who must have entered at this session.

        Raises:
            ConflictError: it is not.
            DeniedError: the rule does not allow it.
            NotHereError: a player who must be here is not.
        """
        return await self._change(
            "pull",
            entity=name_bytes(entity),
            epoch=epoch,
            owner=name_bytes(owner),
            **_present(present),
            **step_members(step),
        )

    async def claim(
        self, *, entity: str, owner: str, box: str, step: Step, present: Sequence[str] = ()
    ) -> EntityRecord:
        """Take an entity whose holder handed this server its release directly (R0-33).

        Args:
            present: players who must have entered at this session, unless they own the entity.

        Raises:
            NotHereError: one of them has not.
        """
        return await self._change(
            "claim",
            entity=name_bytes(entity),
            owner=name_bytes(owner),
            box=box.encode(),
            **_present(present),
            **step_members(step),
        )

    async def release(self, *, entity: str, epoch: int) -> EntityRecord:
        """Give the entity up; it is dormant until somebody pulls it.

        Of an entity that was deleted: this session has stopped, and its epoch counts for nothing any more.
        """
        return await self._change("release", entity=name_bytes(entity), epoch=epoch)

    async def entity(self, entity: str) -> EntityRecord:
        """The record as the connected member has it: good to show, never to act on."""
        return await self._requests.entity(entity)

    async def server(self, server: str) -> ServerRecord:
        """Key and address of a server (R0-15, R0-16)."""
        return ServerRecord.from_term(await self._requests.look_up("servers", server, UnknownServerError))

    async def server_abroad(self, instance: str, server: str) -> ServerRecord:
        """Key and address of a server of another instance, as that instance told last.

        Raises:
            UnknownServerError: it has told of none of that name, or is not pinned.
        """
        told = await self._requests.look_up("abroad", instance, UnknownServerError)
        found = told[Atom("servers")].get(name_bytes(server))
        if found is None:
            raise UnknownServerError(
                f"{instance} has told of no server {server}", reason=Atom("no_server"), props={}
            )
        return server_abroad(found, instance)

    async def _change(self, function: str, **request: Any) -> EntityRecord:
        return await self._requests.change(function, session=self.session, **request)

    async def _ask(self, function: str, **request: Any) -> Mapping[Any, Any]:
        return await self._requests.ask(function, session=self.session, **request)


def _present(players: Sequence[str]) -> dict[str, Any]:
    return {"present": list(map(name_bytes, dict.fromkeys(players)))} if players else {}


def _ended(value: Mapping[Any, Any]) -> Ended:
    return Ended(
        released=[name.decode(errors="replace") for name in value[Atom("released")]],
        passed={
            entity.decode(errors="replace"): server.decode(errors="replace")
            for entity, server in value[Atom("passed")]
        },
    )
