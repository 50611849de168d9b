"""``Idempotency-Key``: a write that is repeated with the same key is applied once, at whichever process.

The key becomes a client of the store with operation ids of its own: the first execution stores its result
in the transaction that it belongs to, and a repeat is answered with it (``docs/protocol.md`` §1,
"Operation ids"). So the service keeps nothing. Caller, method, path and body are part of that client's
name: a key that is used again for something else is another operation. A key counts for as long as the
store remembers its client, which is until some 3,500 others have written.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from typing import Annotated, Final

from fastapi import Depends, Header
from starlette.requests import Request

from bridge.authority import Homeserver, Ownership
from bridge.homeserver.rest.authentication import Anyone, Caller
from bridge.homeserver.rest.context import Context, Here
from bridge.khepri import OperationId

_INCARNATION: Final = 1

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="Any text, new for each write: a repeat with the same one is applied once.",
    ),
]


class Writing:
    """Makes a caller's writes of one HTTP request.

    Args:
        here: the service.
        operations: gives their operation ids, where the caller chose a key.
    """

    def __init__(self, here: Context, operations: Callable[[], OperationId] | None) -> None:
        self.here = here
        self.operations = operations

    @property
    def ownership(self) -> Ownership:
        """Requests in the names of players."""
        if self.operations is None:
            return self.here.ownership
        return Ownership(
            self.here.store, patience=self.here.settings.store_timeout, operations=self.operations
        )

    def homeserver(self, session: bytes) -> Homeserver:
        """Requests of a server's session."""
        return Homeserver(
            self.here.store, session, patience=self.here.settings.store_timeout, operations=self.operations
        )

    def operation(self) -> OperationId | None:
        """The operation id of one more write."""
        return None if self.operations is None else self.operations()


async def writing(request: Request, here: Here, who: Anyone, key: Key = None) -> Writing:
    """A caller's writes, once each where a key says so.

    Raises:
        ProblemError: too many writes with keys.
    """
    if key is None:
        return Writing(here, None)
    request.app.state.callers.take_keyed(f"{who.role}:{who.subject}")
    return Writing(here, operations_of(who, request.method, request.url.path, await request.body(), key))


Writes = Annotated[Writing, Depends(writing)]


def operations_of(who: Caller, method: str, path: str, body: bytes, key: str) -> Callable[[], OperationId]:
    """Gives the operation ids of one request, the same ones each time it is repeated.

    Args:
        who: the caller.
        method: of HTTP.
        path: of the resource.
        body: as it came.
        key: that the caller chose.
    """
    digest = hashlib.sha256()
    for part in (who.role.encode(), who.subject.encode(), method.encode(), path.encode(), key.encode(), body):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    client = b"rest:" + digest.hexdigest().encode()
    sequences = itertools.count(1)
    return lambda: OperationId(client=client, incarnation=_INCARNATION, sequence=next(sequences), low_water=0)
