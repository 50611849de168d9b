"""Authority requests to the homeserver: each is one transaction there (R0-25).

Every answer is that of a committed write with an operation id, so a request whose answer was lost is
repeated through another member and applied once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bridge.authority.records import EntityRecord, Rule, ServerRecord, Step
from bridge.errors import AuthorityError, ConfigurationError, KhepriError
from bridge.etf import Atom
from bridge.khepri import Khepri, NodeNotFoundError, UnknownKhepriError

_PATIENCE: Final = 60.0
"""seconds to repeat a request under its operation id: a server that has stopped acting for an entity must
learn what became of it, and a cluster without a majority needs its time"""
MAX_NAME_BYTES: Final = 255
"""bytes in the name of a server, an entity or a player: a name is a component of a path"""


class ConflictError(AuthorityError):
    """Another server won the same entity in the same moment; ``winner`` names it."""

    @property
    def winner(self) -> str:
        """The server that won."""
        winner = self.props.get("winner", b"")
        return winner.decode() if isinstance(winner, bytes) else str(winner)


class NotHolderError(AuthorityError):
    """The session does not hold the entity at that epoch; what it does with it no longer counts."""


class DeniedError(AuthorityError):
    """The rule of the entity does not allow it."""


class UnknownEntityError(AuthorityError):
    """The homeserver knows no such entity."""


class UnknownServerError(AuthorityError):
    """The homeserver knows no such server, or that server is away."""


class EntityExistsError(AuthorityError):
    """An entity of this name exists already."""


_BY_REASON: Final[Mapping[str, type[AuthorityError]]] = {
    "conflict": ConflictError,
    "not_holder": NotHolderError,
    "denied": DeniedError,
    "no_entity": UnknownEntityError,
    "no_server": UnknownServerError,
    "no_session": NotHolderError,
    "entity_exists": EntityExistsError,
}


class Homeserver:
    """Requests of one simulation server's session.

    Args:
        store: client of the instance's store.
        session: 16 random bytes, new for each start of the server.
    """

    def __init__(self, store: Khepri, session: bytes) -> None:
        if len(session) != 16:
            raise ConfigurationError(f"a session id has 16 bytes, not {len(session)}")
        self._store = store
        self.session = session

    async def open_session(
        self, *, server: str, key: bytes, thumbprint: str, address: tuple[str, int]
    ) -> list[EntityRecord]:
        """Register the server, its public key (JWK, JSON) and where it listens.

        Returns:
            What the session holds: nothing, or what an answer lost on the way had given it.
        """
        value = await self._ask(
            "open_session",
            server=_name(server),
            key=key,
            thumbprint=thumbprint.encode(),
            address=(address[0].encode(), address[1]),
        )
        return [EntityRecord.from_term(term) for term in value[Atom("held")]]

    async def close_session(self) -> None:
        """End the session; what it held becomes dormant."""
        await self._ask("close_session")

    async def create_entity(self, *, entity: str, owner: str, master: str, rule: Rule) -> EntityRecord:
        """Make an entity that this session holds; the spawner is usually owner and master (R0-8)."""
        return await self._change(
            "create_entity",
            entity=_name(entity),
            owner=_name(owner),
            master=_name(master),
            rule=Atom(rule.value),
        )

    async def give(self, *, entity: str, epoch: int, owner: str, step: Step) -> EntityRecord:
        """Change the owner; this server keeps simulating."""
        return await self._change(
            "give", entity=_name(entity), epoch=epoch, owner=_name(owner), **_step(step)
        )

    async def push(
        self, *, entity: str, epoch: int, owner: str, to: str, box: str, step: Step
    ) -> EntityRecord:
        """Give owner and authority to another server, with this one's release sealed for it."""
        return await self._change(
            "push",
            entity=_name(entity),
            epoch=epoch,
            owner=_name(owner),
            to=_name(to),
            box=box.encode(),
            **_step(step),
        )

    async def pull(self, *, entity: str, epoch: int, owner: str, step: Step) -> EntityRecord:
        """Take owner and authority; act only when the release that ``awaiting`` names has come.

        Args:
            epoch: the newest this server knows; another one took the entity if it is no longer current.

        Raises:
            ConflictError: it is not.
            DeniedError: the rule does not allow it.
        """
        return await self._change(
            "pull", entity=_name(entity), epoch=epoch, owner=_name(owner), **_step(step)
        )

    async def claim(self, *, entity: str, owner: str, box: str, step: Step) -> EntityRecord:
        """Take an entity whose holder handed this server its release directly (R0-33)."""
        return await self._change(
            "claim", entity=_name(entity), owner=_name(owner), box=box.encode(), **_step(step)
        )

    async def release(self, *, entity: str, epoch: int) -> EntityRecord:
        """Give the entity up; it is dormant until somebody pulls it."""
        return await self._change("release", entity=_name(entity), epoch=epoch)

    async def entity(self, entity: str) -> EntityRecord:
        """The record as the connected member has it: good to show, never to act on."""
        return EntityRecord.from_term(await self._look_up("entities", entity, UnknownEntityError))

    async def server(self, server: str) -> ServerRecord:
        """Key and address of a server (R0-15, R0-16)."""
        return ServerRecord.from_term(await self._look_up("servers", server, UnknownServerError))

    async def _look_up(self, kind: str, name: str, missing: type[AuthorityError]) -> Any:
        try:
            return await self._store.get([Atom("bridge"), Atom(kind), _name(name)])
        except NodeNotFoundError as error:
            raise missing(f"{kind}: none is called {name}", reason=error.reason, props=error.props) from error

    async def _change(self, function: str, **request: Any) -> EntityRecord:
        return EntityRecord.from_term(await self._ask(function, **request))

    async def _ask(self, function: str, **request: Any) -> Mapping[Any, Any]:
        term = {Atom("session"): self.session} | {Atom(name): value for name, value in request.items()}
        try:
            value: Mapping[Any, Any] = await self._store.request(function, term, timeout=_PATIENCE)
        except KhepriError as error:
            raise _authority_error(error) from error
        return value


def _authority_error(error: KhepriError) -> Exception:
    if not isinstance(error, UnknownKhepriError):
        return error
    return _BY_REASON.get(str(error.reason), AuthorityError)(
        str(error), reason=error.reason, props=error.props
    )


def _name(name: str) -> bytes:
    encoded = name.encode()
    if not 1 <= len(encoded) <= MAX_NAME_BYTES:
        raise ConfigurationError(f"a name has 1 to {MAX_NAME_BYTES} bytes: {name!r:.80}")
    return encoded


def _step(step: Step) -> dict[str, Any]:
    return {"trace": step.trace, "hop": step.hop}
