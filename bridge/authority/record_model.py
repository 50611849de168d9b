"""A plain model of an entity's record: which requests change it, and how, and which are refused rightly.

It is what answers are held against (``bridge.authority.linearizability``), and says what ``docs/protocol.md``
§7 says, without the homeserver's tree: asks, and who is where, it does not know, so refusals for their sake
are believed. Epochs that nobody was told are known as being above an earlier one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, NamedTuple

import msgspec

OPERATOR: Final = "operator"
"""``by`` of a request that comes in the name of no player"""
UNSEEN: Final = b""
"""a session that it makes no difference to name"""


class RecordView(msgspec.Struct, frozen=True, kw_only=True):
    """The record of an entity as an answer showed it; members as in ``docs/protocol.md`` §2.

    Attributes:
        deleted: it is what stands for an entity that is no more.
    """

    owner: str
    master: str
    rule: str
    session: bytes | None
    epoch: int
    version: int
    default_owner: str | None = None
    deleted: bool = False


class Known(StrEnum):
    """What the caller knows of an operation's end."""

    OK = "ok"
    """granted: it happened, as the answer shows"""
    REFUSED = "refused"
    """it changed nothing"""
    UNKNOWN = "unknown"
    """it may have happened at any time after the call, may happen yet, or never does"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A request about one entity, and how it ended.

    Attributes:
        client: who asked.
        function: of ``kb_api``; ``read`` is a read that is known to have been linearizable.
        called_ns: before it was sent.
        answered_ns: after its answer came; of no meaning where the end is unknown.
        until_ns: where the end is unknown: it did not happen after this; ``None``: it may happen yet.
        detail: the reason of a refusal, the ``outcome`` of a granted request where it has one.
        record: as a granted answer showed it; ``None`` of a read: there was no entity.
        told_epoch: the entity's epoch by a refusal as ``conflict``.
        session, epoch, owner, to, by, player, authority, master: the request's members of these names;
            ``to`` is a server or a player.
        value: the new rule, master or default owner; the rule of a new entity; whether an answer grants.
    """

    client: str
    function: str
    entity: str
    called_ns: int
    answered_ns: int = 0
    until_ns: int | None = None
    known: Known = Known.UNKNOWN
    detail: str = ""
    record: RecordView | None = None
    told_epoch: int | None = None
    session: bytes | None = None
    epoch: int | None = None
    owner: str | None = None
    to: str | None = None
    by: str | None = None
    player: str | None = None
    value: str | None = None
    authority: bool = False
    master: str | None = None

    def __str__(self) -> str:
        ended = f"{self.known} {self.detail}".strip()
        if self.record is not None:
            ended += f" version {self.record.version} epoch {self.record.epoch}"
        until = "…" if self.known is Known.UNKNOWN else f"{(self.answered_ns - self.called_ns) / 1e6:.1f} ms"
        return f"{self.client} {self.function} at {self.called_ns / 1e9:.6f} s for {until}: {ended}"


class Record(NamedTuple):
    """The model's state. ``epoch`` is exact, or (``exact`` false) anything above it."""

    owner: str
    master: str
    rule: str
    default_owner: str | None
    session: bytes | None
    epoch: int
    exact: bool

    def __str__(self) -> str:
        holder = "dormant" if self.session is None else f"held by {self.session.hex()[:8] or 'another'}"
        return f"owner {self.owner}, {holder}, epoch {'' if self.exact else 'above '}{self.epoch}"

    def has_epoch(self, epoch: int | None) -> bool:
        """Whether this may be its epoch."""
        return epoch is not None and (self.epoch == epoch if self.exact else epoch > self.epoch)

    def may_differ(self, epoch: int | None) -> bool:
        """Whether its epoch may be another one."""
        return not self.exact or self.epoch != epoch

    def at(self, epoch: int | None) -> Record:
        """The same, with an epoch that is known by now."""
        return self if epoch is None else self._replace(epoch=epoch, exact=True)

    def granted(self, session: bytes | None) -> Record:
        """With a new holder, and so with a higher epoch."""
        return self._replace(session=session, exact=False)


def record_of(view: RecordView) -> Record | None:
    """The state that an answer shows; ``None``: there is no such entity any more."""
    return None if view.deleted else _record(view)


def _record(view: RecordView) -> Record:
    return Record(view.owner, view.master, view.rule, view.default_owner, view.session, view.epoch, True)


def shows(view: RecordView, record: Record | None) -> bool:
    """Whether the state may be the one that an answer shows."""
    if record is None or view.deleted:
        return record is None and view.deleted
    return (
        (view.owner, view.master, view.rule, view.default_owner, view.session)
        == (record.owner, record.master, record.rule, record.default_owner, record.session)
    ) and record.has_epoch(view.epoch)


def version_of(operation: Operation) -> int:
    """The version that the answer shows; 0: no entity."""
    return 0 if operation.record is None else operation.record.version


def permission(player: str | None, record: Record) -> str:
    """What the rule says to a player who wants the entity: ``allow``, ``deny`` or ``ask`` (R0-8)."""
    return "allow" if player in (record.owner, record.master) else record.rule


_BY_SESSION: Final = frozenset({"create_entity", "give", "push", "pull", "claim", "release"})
_BEFORE_THE_RECORD: Final = {"no_entity", "no_player", "bad_release"}
"""refusals of what there is not, or that are found without a look at the record: a release's signature"""
_CHANGES_ALWAYS: Final = _BY_SESSION | {"delete_entity"}
_BY_HOLDER: Final = frozenset({"give", "push", "release"})
_CLEARS: Final = frozenset({"create_entity", "delete_entity", "give", "push", "claim", "release"})


def always_changes(operation: Operation) -> bool:
    """Whether it makes a version when it is granted; the others do so where they change something."""
    return operation.function in _CHANGES_ALWAYS or operation.detail == "granted"


def clears_due(operation: Operation) -> bool:
    """Whether no session's release is due any more when it was granted."""
    return operation.function in _CLEARS


def shown_open(operation: Operation) -> set[bytes]:
    """Sessions that were open when it was granted: it is theirs, or the entity was given to them."""
    if operation.known is not Known.OK or operation.record is None:
        return set()
    changes = operation.function in _BY_SESSION
    named = {
        operation.record.session if changes else None,
        operation.session if changes or operation.function == "request" else None,
    }
    return {session for session in named if session is not None}


def shown_there(operation: Operation) -> set[bytes]:
    """Sessions that had not ended for this entity: those, and whom the record named still.

    What a session held that has ended is passed on by more than one transaction, so another entity's record
    may name it no more.
    """
    shown = shown_open(operation)
    if operation.known is Known.OK and operation.record is not None and operation.record.session is not None:
        shown.add(operation.record.session)
    return shown


def needs_epoch(operation: Operation) -> bool:
    """Whether it changes the record only at the epoch that it names."""
    if operation.function == "request":
        return operation.authority
    return operation.function in _BY_HOLDER or operation.function == "pull"


def needs_holder(operation: Operation) -> bool:
    """Whether it changes the record otherwise, or only, where its session holds the entity."""
    return operation.function in _BY_HOLDER or operation.function == "request"


def unchanged(operation: Operation, version: int, record: Record | None) -> Record | Literal[False] | None:
    """The state as an answer shows it that changed nothing; ``False``: it was no answer to this state."""
    if operation.known is Known.REFUSED:
        return _refused(operation, record)
    view = operation.record
    if view is None or record is None:
        return None if operation.function == "read" and view is None and record is None else False
    if always_changes(operation) or view.version != version or not shows(view, record):
        return False
    match operation.function:
        case "transfer":
            fits = record.owner == operation.to and _is_by_owner(operation, record)
        case "revoke":
            fits = record.owner == _heir(record) and _is_by_owner(operation, record)
        case "set_rule" | "set_master" | "set_default_owner":
            named = {"set_rule": record.rule, "set_master": record.master}
            current = named.get(operation.function, record.default_owner)
            fits = current == operation.value and operation.by in (record.master, OPERATOR)
        case _:
            # Reads, and what asks without being granted.
            fits = True
    return fits and record.at(view.epoch)


def _refused(operation: Operation, record: Record | None) -> Record | Literal[False] | None:
    told = operation.told_epoch
    if record is not None and told is not None and operation.detail == "conflict":
        if not record.has_epoch(told):
            return False
        record = record.at(told)
    return record if _rightly_refused(operation, record) else False


def _rightly_refused(operation: Operation, record: Record | None) -> bool:
    if record is None:
        return operation.detail != "entity_exists" and (
            operation.detail in _BEFORE_THE_RECORD or operation.function == "create_entity"
        )
    match operation.detail:
        case "no_entity":
            return False
        case "conflict":
            other_owner = operation.function == "request" and record.owner != operation.owner
            by_epoch = operation.function != "request" or operation.authority
            return other_owner or (by_epoch and record.may_differ(operation.epoch))
        case "denied":
            asking = operation.player if operation.function == "request" else operation.owner
            return permission(asking, record) != "allow"
        case "already_held":
            return record.session == operation.session
        case "already_owner":
            return record.owner == operation.player
        case "not_owner":
            return not _is_by_owner(operation, record)
        case "not_master":
            return operation.by not in (record.master, OPERATOR)
        case "not_holder" if operation.function in _BY_HOLDER:
            return record.session != operation.session or record.may_differ(operation.epoch)
        case _:
            # Of what the model has nothing of: sessions, players, asks, keys.
            return True


def effects(
    operation: Operation, record: Record | None, ended: Collection[bytes], targets: Collection[bytes]
) -> Iterator[Record | None]:
    """The states that an operation may make of one when it changes it; ``None``: no entity.

    Args:
        ended: sessions that are granted nothing any more.
        targets: those that a grant may go to where the request does not name a session.
    """
    session, function = operation.session, operation.function
    if function == "create_entity":
        if record is None and session not in ended:
            owner, master = operation.owner or "", operation.master or ""
            yield Record(owner, master, operation.value or "", None, session, 0, False)
        return
    if record is None:
        return
    owner = operation.owner or ""
    held = record.session == session and record.has_epoch(operation.epoch)
    match function:
        case "give" if held:
            yield record.at(operation.epoch)._replace(owner=owner)
        case "release" if held:
            yield record.at(operation.epoch)._replace(session=None)
        case "push" if held:
            for target in targets:
                if target not in ended and target != session:
                    yield record.at(operation.epoch).granted(target)._replace(owner=owner)
        case "pull":
            wanted = record.session != session and session not in ended
            if wanted and record.has_epoch(operation.epoch) and permission(owner, record) == "allow":
                yield record.at(operation.epoch).granted(session)._replace(owner=owner)
        case "claim":
            if record.session not in (None, session) and session not in ended:
                yield record.granted(session)._replace(owner=owner)
        case "request":
            yield from _requested(operation, record, ended)
        case "answer" if operation.by in (record.master, OPERATOR) and operation.value != "False":
            given = record._replace(owner=operation.player or "")
            yield given
            for target in targets:
                if target not in ended and target != record.session:
                    yield given.granted(target)
        case "transfer" if _is_by_owner(operation, record) and record.owner != operation.to:
            yield record._replace(owner=operation.to or "")
        case "revoke" if _is_by_owner(operation, record) and record.owner != _heir(record):
            yield record._replace(owner=_heir(record))
        case "leave" if record.owner == operation.player != _heir_but(record):
            yield record._replace(owner=_heir_but(record))
        case "set_rule" | "set_master" | "set_default_owner":
            if operation.by in (record.master, OPERATOR):
                after = _set(function, operation.value, record)
                if after != record:
                    yield after
        case "delete_entity" if operation.by in (record.master, OPERATOR):
            yield None


def may_have_made(operation: Operation, view: RecordView) -> bool:
    """Whether the version that an answer shows can be of the operation's making, whatever was before it."""
    if view.deleted or operation.function == "delete_entity":
        return view.deleted and operation.function == "delete_entity"
    match operation.function:
        case "give" | "push":
            return view.owner == operation.owner
        case "pull" | "claim":
            return (view.session, view.owner) == (operation.session, operation.owner)
        case "release":
            return view.session is None
        case "request" | "answer":
            return view.owner == operation.player
        case "transfer":
            return view.owner == operation.to
        case "revoke":
            return view.owner == _heir(_record(view))
        case "leave":
            return view.owner != operation.player
        case "set_rule":
            return view.rule == operation.value
        case "set_master":
            return view.master == operation.value
        case "set_default_owner":
            return view.default_owner == operation.value
        case _:
            return True


def _set(function: str, value: str | None, record: Record) -> Record:
    match function:
        case "set_rule":
            return record._replace(rule=value or "")
        case "set_master":
            return record._replace(master=value or "")
        case _:
            return record._replace(default_owner=value)


def _requested(operation: Operation, record: Record, ended: Collection[bytes]) -> Iterator[Record]:
    player, session = operation.player or "", operation.session
    has_it = record.owner == player and (not operation.authority or record.session == session)
    if has_it or record.owner != operation.owner or permission(player, record) != "allow":
        return
    given = record._replace(owner=player)
    if not operation.authority:
        yield given
    elif record.has_epoch(operation.epoch) and session not in ended:
        given = given.at(operation.epoch)
        yield given if record.session == session else given.granted(session)


def _is_by_owner(operation: Operation, record: Record) -> bool:
    return operation.by in (record.owner, record.master, OPERATOR)


def _heir(record: Record) -> str:
    return record.master if record.default_owner is None else record.default_owner


def _heir_but(record: Record) -> str:
    """To whom it goes when its owner leaves: not to the owner, unless there is nobody else."""
    heir = _heir(record)
    return record.master if heir == record.owner else heir
