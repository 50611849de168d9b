"""Answers of a homeserver as values or exceptions, one class per reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bridge.errors import ConnectionLostError, DeadlineError, HandshakeError, KhepriError, ProtocolError
from bridge.etf import Atom


class NodeNotFoundError(KhepriError):
    """The path names no node of the tree."""


class MismatchingNodeError(KhepriError):
    """A node is not what the operation demanded: it exists already, or holds other data."""


class KeepWhileConditionsNotMetError(KhepriError):
    """A ``keep_while`` condition does not hold now."""


class TransactionAbortedError(KhepriError):
    """An ``Abort`` ran; ``props["reason"]`` is what it carried."""


class InvalidRequestError(KhepriError):
    """What the homeserver does not take; of this very class where a member is missing or mistyped."""


class InvalidPathError(InvalidRequestError):
    """A path or pattern, or one of many nodes where one is needed."""


class InvalidDataError(InvalidRequestError):
    """Data that cannot be stored or exported: a function, say."""


class InvalidOptionsError(InvalidRequestError):
    """Options that the function does not have, or of another type."""


class InvalidOperationError(InvalidRequestError):
    """What is no operation of a transaction, or does not fit its node."""


class PoisonError(KhepriError):
    """The request would have crashed the store on every member; it was refused before the log."""


class ReservedPathError(KhepriError):
    """Below ``/:bridge`` only the homeserver itself writes."""


class TooLargeError(KhepriError):
    """Data beyond the homeserver's limit."""


class AtomBudgetError(KhepriError):
    """The path would make a new atom, and the remote virtual machine has used up its budget of them."""


class StoreUnavailableError(KhepriError):
    """The store cannot answer now; repeating later, or through another member, can help."""


class StoreNotRunningError(StoreUnavailableError):
    """The store does not run on that member."""


class NoLeaderError(StoreUnavailableError):
    """The store has no leader now: an election goes on, or a majority is away."""


class StoreTimeoutError(KhepriError):
    """The homeserver's own deadline passed; a write may have been applied."""


class UngroupedError(KhepriError):
    """Requests that were sent together are to be sent one by one; the client does so by itself."""


class UnknownOutcomeError(KhepriError):
    """The result of this operation id was forgotten: it was answered before, or is too old."""


class OtherPurposeError(KhepriError):
    """Operation ids of this client are of something else; nothing was executed."""


class NotAllowedError(KhepriError):
    """The function is not on the list that the operator of the homeservers allows."""


class NoProcedureError(KhepriError):
    """The node that the path names holds no stored procedure."""


class ProcedureRaisedError(KhepriError):
    """An allowed function or a stored procedure raised; ``props`` has its ``class`` and ``reason``."""


class ProjectionExistsError(KhepriError):
    """A projection of this name is registered already."""


class NoProjectionError(KhepriError):
    """No projection of this name is registered."""


class NotEmptyError(KhepriError):
    """A backup is restored into a cluster that knows nothing yet; this one does."""


class StoreFailureError(KhepriError):
    """The store failed in a way that the homeserver has no word for; ``props["reason"]`` is what it said."""


class UnknownKhepriError(KhepriError):
    """A reason that this version does not know; ``reason`` and ``props`` are as they came."""


_BY_REASON: Final[Mapping[str, type[KhepriError]]] = {
    "node_not_found": NodeNotFoundError,
    "mismatching_node": MismatchingNodeError,
    "keep_while_conditions_not_met": KeepWhileConditionsNotMetError,
    "aborted": TransactionAbortedError,
    "invalid_path": InvalidPathError,
    "invalid_data": InvalidDataError,
    "invalid_options": InvalidOptionsError,
    "invalid_operation": InvalidOperationError,
    "invalid_request": InvalidRequestError,
    "poison": PoisonError,
    "reserved_path": ReservedPathError,
    "too_large": TooLargeError,
    "atom_budget": AtomBudgetError,
    "store_not_running": StoreNotRunningError,
    "no_leader": NoLeaderError,
    "timeout": StoreTimeoutError,
    "outcome_unknown": UnknownOutcomeError,
    "other_purpose": OtherPurposeError,
    "ungrouped": UngroupedError,
    "not_allowed": NotAllowedError,
    "no_sproc": NoProcedureError,
    "raised": ProcedureRaisedError,
    "projection_exists": ProjectionExistsError,
    "no_projection": NoProjectionError,
    "not_empty": NotEmptyError,
    "unknown": StoreFailureError,
}

_OK: Final = Atom("ok")

TRANSIENT: Final = (StoreUnavailableError, StoreTimeoutError)
"""refusals that say nothing about the request itself"""


def unwrap(reply: Any) -> Any:
    """The value of ``{ok, Value}``.

    Raises:
        KhepriError: ``{error, {Reason, Props}}``, as the class of its reason.
        ProtocolError: anything else; the homeserver runs another version.
    """
    if type(reply) is tuple and len(reply) == 2 and reply[0] is _OK:
        return reply[1]
    match reply:
        case (Atom() as tag, (Atom() as reason, Mapping() as props)) if tag == Atom("error"):
            raise khepri_error(reason, props)
        case _:
            raise ProtocolError(f"no answer of a homeserver: {reply!r:.200}")


def khepri_error(reason: Atom, props: Mapping[Any, Any]) -> KhepriError:
    """The exception for a reason; what the server said is never lost."""
    named = {str(key): value for key, value in props.items()}
    said = named.get("message", b"")
    text = said.decode(errors="replace") if isinstance(said, bytes) else repr(said)
    cls = _BY_REASON.get(str(reason), UnknownKhepriError)
    return cls(f"{reason}: {text}" if text else str(reason), reason=reason, props=named)


def is_transient(error: BaseException | None) -> bool:
    """Whether the same request may succeed later or through another member."""
    return isinstance(error, (*TRANSIENT, DeadlineError, ConnectionLostError, HandshakeError))
