"""What the routers that have something signed share: the issuing side of the service, and what is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends

from bridge.errors import SignatureError
from bridge.homeserver.issuing import Issuing
from bridge.homeserver.rest.context import Here
from bridge.homeserver.rest.problems import ProblemError
from bridge.registry import Credentials


async def issuing(here: Here) -> Issuing:
    """The issuing side of the service.

    Raises:
        ProblemError: it was started without a signer.
    """
    if here.issuing is None:
        raise ProblemError("no_signer", "this service was started without a signer")
    return here.issuing


Issues = Annotated[Issuing, Depends(issuing)]


async def credentials(here: Here) -> Credentials:
    """What the tree knows of credentials."""
    return Credentials(here.store, patience=here.settings.store_timeout)


Known = Annotated[Credentials, Depends(credentials)]


@contextlib.contextmanager
def refusing(kind: str) -> Iterator[None]:
    """Have what does not hold end as that kind of problem."""
    try:
        yield
    except SignatureError as error:
        raise ProblemError(kind, str(error)) from error
