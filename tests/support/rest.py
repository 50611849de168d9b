"""The REST service in this process over a real store, and clients with tokens of a test's own issuer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
from fastapi import FastAPI

from bridge.homeserver.issuing import IssuingSettings
from bridge.homeserver.rest.app import create_app
from bridge.homeserver.rest.context import Context
from bridge.homeserver.rest.serve import store_context
from bridge.homeserver.rest.settings import RestSettings
from bridge.jose import Jwk
from bridge.jose.credentials import AccessToken, Role, Signer
from bridge.jose.credentials.token import encode_token
from bridge.khepri import Khepri
from bridge.registry import Journal
from bridge.registry.trust import FixedTrust, Trusted
from tests.support.credentials import ISSUER, KEYS, access_token

GENEROUS = RestSettings(
    address_rate=1e6, address_burst=1_000_000, caller_rate=1e6, caller_burst=1_000_000, keyed_rate=1e6
)
"""limits that a test which is not about them never meets"""


def bearer(
    instance: str,
    subject: str,
    role: Role = Role.PLAYER,
    *,
    key: Jwk | None = None,
    issuer: Jwk = ISSUER,
    issued_at: float | None = None,
) -> str:
    """An access token, as the homeserver would give it."""
    issued = int(time.time() if issued_at is None else issued_at)
    claims = access_token(
        key or Jwk.generate(),
        subject=subject,
        role=role,
        instance=instance,
        issued_at=issued,
        expires_at=issued + AccessToken.MAX_LIFETIME_S,
    ).claims()
    return encode_token(AccessToken.TYP, claims, issuer)


@dataclass
class Rest:
    """A service, and clients of it."""

    app: FastAPI
    context: Context
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @classmethod
    async def over(
        cls,
        store: Khepri,
        settings: RestSettings = GENEROUS,
        *,
        trust: Trusted | None = None,
        signer: Signer | None = None,
        issuing: IssuingSettings | None = None,
        journal: Journal | None = None,
    ) -> Self:
        trust = trust or FixedTrust(KEYS)
        context = await store_context(
            store, settings, trust=trust, signer=signer, issuing=issuing, journal=journal
        )
        return cls(create_app(context), context)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def client(
        self,
        subject: str | None = None,
        role: Role = Role.PLAYER,
        *,
        key: Jwk | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.AsyncClient:
        """A client with the token of this subject, or of nobody."""
        sent = dict(headers or {})
        if subject is not None:
            sent["Authorization"] = f"Bearer {bearer(self.context.instance, subject, role, key=key)}"
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        made = httpx.AsyncClient(transport=transport, base_url="http://rest", headers=sent, timeout=30)
        return await self._stack.enter_async_context(made)


async def whole_list(
    client: httpx.AsyncClient, path: str, member: str, *, limit: int = 2, fresh: bool = False
) -> list[Any]:
    """What all pages of a list have, in their order."""
    found: list[Any] = []
    query: dict[str, str | int | bool] = {"limit": limit, "fresh": fresh}
    while True:
        response = await client.get(path, params=query)
        assert response.is_success, response.text
        page = response.json()
        assert len(page[member]) <= limit
        found += page[member]
        if page["next"] is None:
            return found
        query["after"] = page["next"]


def problem(response: httpx.Response) -> dict[str, Any]:
    """The problem document of a response, whose form is checked."""
    assert response.headers["Content-Type"] == "application/problem+json", response.text
    document: dict[str, Any] = response.json()
    assert document["status"] == response.status_code
    assert {"type", "title", "detail", "advice", "trace"} <= document.keys()
    assert document["trace"] == response.headers["Khepri-Trace"]
    return document


def kind(response: httpx.Response) -> str:
    """The kind of a problem, or the status of what is none."""
    if response.is_success:
        return str(response.status_code)
    return str(problem(response)["type"]).removeprefix("urn:khepri-bridge:problem:")
