"""Whom an access token is of: a player, a server or an operator, by the instance's keys."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from bridge.errors import SignatureError
from bridge.homeserver.rest.problems import ProblemError
from bridge.jose.credentials import Role, read_access_untrusted
from bridge.registry import OPERATOR, Party
from bridge.registry.trust import Trusted


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
