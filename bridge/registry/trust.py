"""Which keys of the instance hold, and what was revoked, as this process knows it: kept up to date by a feed.

A revocation is here when the connected member tells it: milliseconds after its commit. While no member can be
reached, what was known last counts, and the lifetimes of tokens bound what that can do (``docs/threat-
model.md``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from types import TracebackType
from typing import Final, Protocol, Self

from bridge.errors import BridgeError, DecodeError
from bridge.etf import Atom
from bridge.jose.credentials import Keyring
from bridge.khepri import Deleted, Khepri, Path, Snapshot, Updated
from bridge.khepri.paths import NativePath
from bridge.registry.credentials import InstanceKey, KeyState, ring_at

_log = logging.getLogger("bridge.registry.trust")

_BRIDGE: Final = Atom("bridge")
_KEYS: Final = Atom("keys")
_REVOKED: Final = Atom("revoked")
_WATCHED: Final[tuple[Path, ...]] = ([_BRIDGE, _KEYS], [_BRIDGE, _REVOKED])
_START_SECONDS: Final = 30.0
_RETRY_SECONDS = 1.0
_ORDER: Final = tuple(KeyState)


class Trusted(Protocol):
    """What whoever checks credentials needs to know."""

    def keys(self, now: float) -> Keyring:
        """Return the instance's keys whose signatures hold at that time, in Unix seconds."""

    def is_revoked(self, credential: str) -> bool:
        """Whether a key, by its thumbprint, or a certificate, by its id, counts no more."""


class Trust:
    """Keys and revocations of an instance; an asynchronous context.

    Args:
        store: client of the instance's store.

    Attributes:
        revoked: thumbprints and ids, kept up to date; a ``TicketDesk`` takes it as it is.
    """

    def __init__(self, store: Khepri) -> None:
        self._store = store
        self._keys: dict[bytes, InstanceKey] = {}
        self._task: asyncio.Task[None] | None = None
        self.revoked: set[str] = set()

    async def __aenter__(self) -> Self:
        ready = asyncio.Event()
        self._task = asyncio.create_task(self._watch(ready))
        waiting = asyncio.create_task(ready.wait())
        try:
            await asyncio.wait(
                [self._task, waiting], timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waiting.cancel()
        if not ready.is_set():
            await self._end()
            raise BridgeError("the store does not tell its keys: is it of this version?")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    def keys(self, now: float) -> Keyring:
        """As of ``Trusted``."""
        return ring_at(self._keys.values(), now)

    def published(self) -> list[InstanceKey]:
        """All that the instance ever published, the newest first."""
        return sorted(self._keys.values(), key=lambda key: -key.since)

    def is_revoked(self, credential: str) -> bool:
        """As of ``Trusted``."""
        return credential in self.revoked

    async def _end(self) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _watch(self, ready: asyncio.Event) -> None:
        while True:
            try:
                async with self._store.watch(*_WATCHED) as feed:
                    async for change in feed:
                        match change:
                            case Snapshot(nodes=nodes):
                                for path, data in nodes.items():
                                    self._learn(path, data)
                                ready.set()
                            case Updated(path=path, data=data):
                                self._learn(path, data)
                            case Deleted():
                                # Neither keys nor revocations are ever deleted.
                                pass
            except BridgeError:
                _log.exception("the feed of keys and revocations ended; it begins anew")
                await asyncio.sleep(_RETRY_SECONDS)

    def _learn(self, path: NativePath, data: object) -> None:
        # Only ever forward: another member may be behind the one that was heard before.
        match path:
            case (_, kind, bytes() as name) if kind == _KEYS:
                try:
                    told = InstanceKey.from_term(data)
                except DecodeError:
                    # Of another version: its signatures do not hold here.
                    _log.exception("a published key cannot be used")
                    return
                known = self._keys.get(name)
                if known is None or _ORDER.index(known.state) <= _ORDER.index(told.state):
                    self._keys[name] = told
            case (_, kind, bytes() as name) if kind == _REVOKED:
                self.revoked.add(name.decode(errors="replace"))


class FixedTrust:
    """Keys that were given once, and no revocations: for who has a copy and no store.

    Args:
        keys: whose signatures hold.
        revoked: thumbprints and ids that count no more.
    """

    def __init__(self, keys: Keyring, revoked: frozenset[str] = frozenset()) -> None:
        self._keys = keys
        self.revoked = revoked

    def keys(self, now: float) -> Keyring:
        """As of ``Trusted``."""
        del now
        return self._keys

    def is_revoked(self, credential: str) -> bool:
        """As of ``Trusted``."""
        return credential in self.revoked
