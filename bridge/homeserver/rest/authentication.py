"""Who a request is from: the access token in ``Authorization: Bearer``, and what its role may do at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Final

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import Request

from bridge.errors import SignatureError
from bridge.homeserver.rest.callers import Caller
from bridge.homeserver.rest.context import Here
from bridge.homeserver.rest.problems import ProblemError
from bridge.jose.credentials import Role

MAX_TOKEN_CHARACTERS: Final = 4096


bearer_scheme: Final = HTTPBearer(
    bearerFormat="JWT",
    scheme_name="access_token",
    description="A `kb-access+jwt` of at most five minutes, from `POST /v1/tokens`.",
    auto_error=False,
)


async def caller(
    request: Request,
    here: Here,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer_scheme)],
) -> Caller:
    """Who the request is from; counts it.

    Raises:
        ProblemError: nobody that is known, or too often.
    """
    if credentials is None:
        raise _unauthenticated("the request has no access token")
    if len(credentials.credentials) > MAX_TOKEN_CHARACTERS:
        raise _unauthenticated("the access token is too long to be one")
    try:
        found = await here.authenticator.authenticate(credentials.credentials)
    except SignatureError as error:
        raise _unauthenticated(f"the access token does not hold: {error}") from error
    request.app.state.callers.take(f"{found.role}:{found.subject}")
    return found


Anyone = Annotated[Caller, Depends(caller)]


def require(*roles: Role) -> Callable[[Caller], Awaitable[Caller]]:
    """A dependency: the caller, who must have one of these roles."""

    async def allowed(found: Anyone) -> Caller:
        if found.role not in roles:
            raise ProblemError(
                "role",
                f"this is not for the role {found.role}",
                members={"roles": [str(role) for role in roles]},
            )
        return found

    return allowed


PlayerOrOperator = Annotated[Caller, Depends(require(Role.PLAYER, Role.OPERATOR))]
ServerOnly = Annotated[Caller, Depends(require(Role.SERVER))]
OperatorOnly = Annotated[Caller, Depends(require(Role.OPERATOR))]


def _unauthenticated(detail: str) -> ProblemError:
    return ProblemError("unauthenticated", detail, headers={"WWW-Authenticate": "Bearer"})
