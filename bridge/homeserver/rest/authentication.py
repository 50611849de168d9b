"""Who a request is from: the access token in ``Authorization: Bearer``, and what its role may do at all."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final, Protocol

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import Request

from bridge.authority import OPERATOR, Party
from bridge.authority.trust import Trusted
from bridge.errors import SignatureError
from bridge.homeserver.rest.context import Here
from bridge.homeserver.rest.problems import ProblemError
from bridge.jose.credentials import Role, read_access_untrusted

MAX_TOKEN_CHARACTERS: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who a request is from.

    Attributes:
        subject: name of the player, the server or the operator.
        role: as what.
        thumbprint: RFC 7638 thumbprint of the key that the token was got with.
        expires_at: of the token, Unix seconds; a feed ends then.
    """

    subject: str
    role: Role
    thumbprint: str
    expires_at: float

    @property
    def party(self) -> Party:
        """In whose name a player's or an operator's request is made."""
        return OPERATOR if self.role is Role.OPERATOR else self.subject

    def may_name(self, player: str) -> None:
        """Demand that a request about ``player`` is from that player, or from an operator.

        Raises:
            ProblemError: it is from somebody else.
        """
        if self.role is not Role.OPERATOR and (self.role is not Role.PLAYER or self.subject != player):
            raise ProblemError(
                "other_name", f"the token is of {self.role} {self.subject}, not of player {player}"
            )


class Authenticator(Protocol):
    """Tells who a token is of."""

    async def authenticate(self, token: str) -> Caller:
        """Check an access token in full, revocations included.

        Raises:
            SignatureError: it is not valid (any more).
        """


class TokenAuthenticator:
    """Checks access tokens of the instance by its public keys, and what was revoked.

    Args:
        trust: those that hold, and what does not.
        instance: name of the instance.
    """

    def __init__(self, trust: Trusted, instance: str) -> None:
        self._trust = trust
        self._instance = instance

    async def authenticate(self, token: str) -> Caller:
        """As of ``Authenticator``."""
        now = time.time()
        access = read_access_untrusted(token, keys=self._trust.keys(now), instance=self._instance, now=now)
        if self._trust.is_revoked(access.thumbprint):
            raise SignatureError("its key was revoked")
        return Caller(
            subject=access.subject,
            role=access.role,
            thumbprint=access.thumbprint,
            expires_at=float(access.expires_at),
        )


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
