"""How authority requests are sent: each is one transaction at the homeserver (R0-25).

Every answer is that of a committed write with an operation id, so a request whose answer was lost is
repeated through another member and applied once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge.errors import AuthorityError, ConfigurationError, KhepriError
from bridge.etf import Atom
from bridge.jose.credentials import name_fault
from bridge.khepri import Khepri, NodeNotFoundError, OperationId
from bridge.registry.journal import Journal
from bridge.registry.records import EntityRecord, Step
from bridge.registry.refusals import UnknownEntityError, authority_error

PATIENCE: Final = 60.0
"""seconds to repeat a request under its operation id: a server that has stopped acting for an entity must
learn what became of it, and a cluster without a majority needs its time"""


class Requests:
    """Requests of ``docs/protocol.md`` §7 through one client of the instance's store.

    Args:
        store: the client.
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
        self._store = store
        self._patience = patience
        self._journal = journal
        self._operations = operations

    async def ask(self, function: str, **request: Any) -> Mapping[Any, Any]:
        """The value that the homeserver answers.

        Raises:
            AuthorityError: refused; of the class of its reason.
            KhepriError: the store refused.
            OutcomeUnknownError: no answer in time.
        """
        term = {Atom(name): value for name, value in request.items()}
        operation = None if self._operations is None else self._operations()
        number = 0 if self._journal is None else self._journal.called(function, request)
        try:
            value: Mapping[Any, Any] = await self._store.request(
                function,
                term,
                operation_id=operation,
                timeout=self._patience,
            )
        except KhepriError as error:
            refusal = authority_error(error)
            if self._journal is not None and isinstance(refusal, AuthorityError):
                self._journal.refused(number, refusal)
            raise refusal from error
        if self._journal is not None:
            self._journal.granted(number, value)
        return value

    async def change(self, function: str, **request: Any) -> EntityRecord:
        """The same, of a request that is answered by the entity's record."""
        return EntityRecord.from_term(await self.ask(function, **request))

    async def entity(self, entity: str) -> EntityRecord:
        """The record as the connected member has it: good to show, never to act on."""
        record = EntityRecord.from_term(await self.look_up("entities", entity, UnknownEntityError))
        if record.is_deleted:
            raise UnknownEntityError(f"{entity} was deleted", reason=Atom("no_entity"), props={})
        return record

    async def look_up(self, kind: str, name: str, missing: type[AuthorityError]) -> Any:
        """A record of ``/:bridge/:kind`` by name, of the connected member."""
        try:
            return await self._store.get([Atom("bridge"), Atom(kind), name_bytes(name)])
        except NodeNotFoundError as error:
            raise missing(f"{kind}: none is called {name}", reason=error.reason, props=error.props) from error

    async def refusals(self) -> dict[str, dict[str, int]]:
        """How often each request was refused for want of a right, by request and reason (R0-6)."""
        try:
            counts = await self._store.get([Atom("bridge"), Atom("refusals")])
        except NodeNotFoundError:
            return {}
        return {
            str(function): {str(reason): count for reason, count in reasons.items()}
            for function, reasons in counts.items()
        }


def name_bytes(name: str) -> bytes:
    """A name as the homeserver takes it.

    Raises:
        ConfigurationError: it is none (``docs/protocol.md`` §1).
    """
    fault = name_fault(name)
    if fault is not None:
        raise ConfigurationError(f"the name {name!r:.80} {fault}")
    return name.encode()


def step_members(step: Step | None) -> dict[str, Any]:
    """``trace`` and ``hop`` of a request; none where it is no part of a traced transfer."""
    return {} if step is None else {"trace": step.trace, "hop": step.hop}
