"""What the homeserver refuses, one class for each reason of ``docs/protocol.md`` §7.

::

    AuthorityError
    ├── ConflictError         another one took it in the same moment; ``winner`` says who
    ├── DeniedError           the rule of the entity does not allow it
    ├── NotOwnerError         only its owner or its master may
    ├── NotMasterError        only its master may
    ├── NotHolderError        the session does not hold it (any more)
    ├── PendingError          the master was asked already, and has not answered
    ├── MasterAwayError       the master is not here to be asked
    ├── TooManyAsksError      the master has too many questions open
    ├── NoAskError            nothing to answer or to withdraw (any more)
    ├── AlreadyOwnerError     the player has what was requested
    ├── NotHereError          the player is not at this session
    ├── NameTakenError        another key has the name, or another name the key
    ├── NotEnrolledError      the key does not speak for the name (any more)
    ├── RevokedError          the key or the certificate was revoked
    ├── ReplayedError         the proof was shown before
    ├── AwayError             it is at another instance, or on its way there; ``instance`` names it
    ├── NameInUseError        another session of this server's name is open
    ├── EntityExistsError     an entity of this name exists already
    ├── BeingDeletedError     one of this name was deleted, and somebody may act for it still
    ├── QuotaError            there are as many entities as there may be; ``maximum`` says how many
    ├── UnknownEntityError    none is called so
    └── UnknownServerError    none is called so, or it is away
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bridge.errors import AuthorityError, ConfigurationError, KhepriError
from bridge.khepri import InvalidRequestError, TooLargeError, UnknownKhepriError


class ConflictError(AuthorityError):
    """Another server or player won the same entity in the same moment; ``winner`` names it."""

    @property
    def winner(self) -> str:
        """Who won: a server where authority was asked for, a player where ownership was."""
        return self._text("winner")

    @property
    def epoch(self) -> int:
        """The epoch of the entity as the winner has it."""
        epoch = self.props.get("epoch", 0)
        return epoch if isinstance(epoch, int) else 0

    def _text(self, name: str) -> str:
        value = self.props.get(name, b"")
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


class DeniedError(AuthorityError):
    """The rule of the entity does not allow it; under ``ask`` it can be requested of the master."""


class NotOwnerError(AuthorityError):
    """Only the owner or the master of the entity may do this."""


class NotMasterError(AuthorityError):
    """Only the master of the entity may do this."""


class NotHolderError(AuthorityError):
    """The session does not hold the entity at that epoch; what it does with it no longer counts."""


class PendingError(AuthorityError):
    """The player has asked for this entity already, and the master has not answered."""


class MasterAwayError(AuthorityError):
    """The master is at no server, so nobody could answer."""


class TooManyAsksError(AuthorityError):
    """The master has as many questions open as there may be, of everybody or of this player."""


class NoAskError(AuthorityError):
    """The player has not asked for this entity, or the ask has ended or expired."""


class AlreadyOwnerError(AuthorityError):
    """The player has what was requested."""


class NotHereError(AuthorityError):
    """The player is not at this session: at another server, or at none."""


class UnknownEntityError(AuthorityError):
    """The homeserver knows no such entity."""


class UnknownServerError(AuthorityError):
    """The homeserver knows no such server, or that server is away."""


class AwayError(AuthorityError):
    """The entity is at another instance, or in escrow for it; only its holder there may change it."""

    @property
    def instance(self) -> str:
        """Which one, as far as was told."""
        value = self.props.get("instance", b"")
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


class RestoringError(AuthorityError):
    """A backup is being restored: try again when that has ended."""


class NameInUseError(AuthorityError):
    """An earlier session of this server's name is open; ``session`` names it.

    Close it, have it ended by whoever knows that its processes are dead, or wait until its lease is over.
    """

    @property
    def session(self) -> bytes:
        """Id of the session that is open, 16 bytes; empty where the refusal does not say."""
        session = self.props.get("session", b"")
        return session if isinstance(session, bytes) else b""


class EntityExistsError(AuthorityError):
    """An entity of this name exists already."""


class BeingDeletedError(AuthorityError):
    """The entity of this name was deleted, and a server that acted for it has yet to say that it stopped.

    That takes a moment, or at worst the end of that server's session: try again.
    """


class QuotaError(AuthorityError):
    """There are as many entities as there may be, in the instance or under this master.

    The operator's limits are ``KB_MAX_ENTITIES`` and ``KB_MAX_ENTITIES_PER_MASTER``.
    """

    @property
    def limit(self) -> str:
        """Which one was met: ``instance`` or ``master``."""
        return str(self.props.get("limit", ""))

    @property
    def maximum(self) -> int:
        """How many there may be; 0 where the refusal does not say."""
        maximum = self.props.get("maximum", 0)
        return maximum if isinstance(maximum, int) else 0


class NameTakenError(AuthorityError):
    """Another key holds this name, or this key another name."""


class NotEnrolledError(AuthorityError):
    """The key does not speak for this name: another one does by now, or none was enrolled."""


class RevokedError(AuthorityError):
    """The key or the certificate was revoked."""


class ReplayedError(AuthorityError):
    """The proof was shown before; each is good once."""


_BY_REASON: Final[Mapping[str, type[AuthorityError]]] = {
    "conflict": ConflictError,
    "denied": DeniedError,
    "not_owner": NotOwnerError,
    "not_master": NotMasterError,
    "not_holder": NotHolderError,
    "no_session": NotHolderError,
    "pending": PendingError,
    "master_away": MasterAwayError,
    "too_many_asks": TooManyAsksError,
    "no_ask": NoAskError,
    "already_owner": AlreadyOwnerError,
    "no_player": NotHereError,
    "not_here": NotHereError,
    "no_entity": UnknownEntityError,
    "no_server": UnknownServerError,
    "name_in_use": NameInUseError,
    "restoring": RestoringError,
    "entity_exists": EntityExistsError,
    "being_deleted": BeingDeletedError,
    "quota": QuotaError,
    "name_taken": NameTakenError,
    "key_taken": NameTakenError,
    "not_enrolled": NotEnrolledError,
    "revoked": RevokedError,
    "replayed": ReplayedError,
    "away": AwayError,
}


REFUSED: Final = (AuthorityError, InvalidRequestError, TooLargeError, ConfigurationError)
"""After these a request did not, and will not, come to pass. After any other error it may: an earlier try
may have arrived before a later one failed."""


def authority_error(error: KhepriError) -> KhepriError | AuthorityError:
    """The refusal of an authority request; an error of the store itself stays what it is."""
    if not isinstance(error, UnknownKhepriError):
        return error
    return _BY_REASON.get(str(error.reason), AuthorityError)(
        str(error), reason=error.reason, props=error.props
    )
