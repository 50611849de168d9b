"""What a simulation server tells whoever runs it; also its lines on standard output (``stdio.py``)."""

from __future__ import annotations

import msgspec


class AuthorityGained(msgspec.Struct, frozen=True, kw_only=True, tag="authority_gained"):
    """The server acts for the entity from now on."""

    entity: str
    epoch: int
    at_ns: int


class StateAccepted(msgspec.Struct, frozen=True, kw_only=True, tag="state_accepted"):
    """The first state of another server's entity under an epoch was accepted here."""

    entity: str
    epoch: int
    sender: str
    at_ns: int


class PeerSessionChanged(msgspec.Struct, frozen=True, kw_only=True, tag="peer"):
    """A datagram session with another server began or ended."""

    server: str
    up: bool
    reason: str


class Asked(msgspec.Struct, frozen=True, kw_only=True, tag="asked"):
    """A player asks a master at this server for an entity; ``expires_ms`` (Unix) ends it."""

    entity: str
    player: str
    master: str
    expires_ms: int


class EntityUpdated(msgspec.Struct, frozen=True, kw_only=True, tag="updated"):
    """A player changed an entity that this server holds, from another server; ``owner`` owns it now."""

    entity: str
    by: str
    owner: str
    at_ns: int


class EntityDeleted(msgspec.Struct, frozen=True, kw_only=True, tag="deleted"):
    """An entity that the server acted for, or waited to, is no more."""

    entity: str
    at_ns: int


class SessionOpened(msgspec.Struct, frozen=True, kw_only=True, tag="session_opened"):
    """The server lost its session and has opened another one, which holds nothing yet."""

    lease_ms: int


class SessionLost(msgspec.Struct, frozen=True, kw_only=True, tag="session_lost"):
    """The server's session has ended at the homeserver: what it held is others' to simulate."""

    entities: tuple[str, ...]
    at_ns: int


class FellSilent(msgspec.Struct, frozen=True, kw_only=True, tag="fell_silent"):
    """The lease was not renewed in time: nothing is simulated or sealed until it is again."""

    entities: int
    at_ns: int


class Problem(msgspec.Struct, frozen=True, kw_only=True, tag="problem"):
    """Something that nobody waits for went wrong; ``fatal``: the server cannot go on."""

    text: str
    fatal: bool


ServerEvent = (
    AuthorityGained
    | StateAccepted
    | PeerSessionChanged
    | Asked
    | EntityUpdated
    | EntityDeleted
    | SessionOpened
    | SessionLost
    | FellSilent
    | Problem
)
