"""``Idempotency-Key``: a write that is repeated with the same key is applied once, at whichever process.

Caller and key name a client of the store with operation ids of its own: the first execution stores its result
in the transaction that it belongs to, and a repeat is answered with it (``docs/protocol.md`` §1,
"Operation ids"). So the service keeps nothing, and every process makes the same ids. What the key is for goes
with each id as its purpose, a digest of method, path and body: who uses the key for something else is refused
in the same transaction. A key counts for as long as the store remembers its client, which is until some 3,500
others have written.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import Annotated, Final

from fastapi import Depends, Header
from starlette.requests import Request

from bridge.homeserver.rest.authentication import Anyone
from bridge.homeserver.rest.callers import Caller
from bridge.homeserver.rest.context import Context, Here
from bridge.jose.encoding import base64url_encode
from bridge.khepri import OperationId
from bridge.registry import Homeserver, Ownership

_INCARNATION: Final = 1
_FIRST: Final = 2
"""processes of 0.4 stored under 1 what a key is for: what they wrote is still repeated"""

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="Any text, new for each write: a repeat with the same one is applied once.",
    ),
]


class KeyedOperations:
    """Gives the operation ids of one request with a key, the same ones each time it is repeated.

    Args:
        client: as which the store knows caller and key.
        digest: of what is asked, base64url.
    """

    def __init__(self, *, client: bytes, digest: bytes) -> None:
        self.client = client
        self.digest = digest
        self._sequences = itertools.count(_FIRST)

    def __call__(self) -> OperationId:
        """The operation id of one more write."""
        return OperationId(
            client=self.client,
            incarnation=_INCARNATION,
            sequence=next(self._sequences),
            low_water=0,
            purpose=self.digest,
        )


class Writing:
    """Makes a caller's writes of one HTTP request.

    Args:
        here: the service.
        operations: gives their operation ids, where the caller chose a key.
    """

    def __init__(self, here: Context, operations: KeyedOperations | None) -> None:
        self.here = here
        self.operations = operations
        self._journal = here.journal
        if operations is not None and self._journal is not None:
            # A repeat is the same request, at whichever process it is recorded; what comes with the key of
            # another one is not.
            self._journal = self._journal.of((operations.client + b"." + operations.digest).decode())

    @property
    def ownership(self) -> Ownership:
        """Requests in the names of players."""
        if self.operations is None:
            return self.here.ownership
        return Ownership(
            self.here.store,
            patience=self.here.settings.store_timeout,
            operations=self.operations,
            journal=self._journal,
        )

    def homeserver(self, session: bytes) -> Homeserver:
        """Requests of a server's session."""
        return Homeserver(
            self.here.store,
            session,
            patience=self.here.settings.store_timeout,
            operations=self.operations,
            journal=self._journal,
        )

    def operation(self) -> OperationId | None:
        """The operation id of one more write, where the caller chose a key."""
        return None if self.operations is None else self.operations()


async def writing(request: Request, here: Here, who: Anyone, key: Key = None) -> Writing:
    """A caller's writes, once each where a key says so.

    Raises:
        ProblemError: too many writes with keys.
    """
    if key is None:
        return Writing(here, None)
    request.app.state.callers.take_keyed(f"{who.role}:{who.subject}")
    operations = KeyedOperations(
        client=client_of(who, key),
        digest=digest_of(request.method, request.url.path, await request.body()),
    )
    return Writing(here, operations)


Writes = Annotated[Writing, Depends(writing)]


def client_of(who: Caller, key: str) -> bytes:
    """As which client the store knows a caller's key."""
    return b"rest:" + _hash(who.role.encode(), who.subject.encode(), key.encode()).hex().encode()


def digest_of(method: str, path: str, body: bytes) -> bytes:
    """Tells one request from another: 43 characters, base64url."""
    return base64url_encode(_hash(method.encode(), path.encode(), body)).encode()


def _hash(*parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
