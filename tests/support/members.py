"""Somebody with a key who asks the REST service for what there is to be had."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from bridge.homeserver.rest.context import Context
from bridge.jose import Jwk
from bridge.jose.credentials import Role
from tests.support.credentials import enrolment, new_id, proof


@dataclass
class Member:
    """A player or a server of an instance, as its own program would be."""

    http: httpx.AsyncClient
    instance: str
    name: str
    role: Role = Role.PLAYER
    key: Jwk = field(default_factory=Jwk.generate)
    certificate: str = ""

    @classmethod
    def of(cls, context: Context, http: httpx.AsyncClient, name: str, role: Role = Role.PLAYER) -> Member:
        return cls(http, context.instance, name, role)

    def enrolment(self, **changes: Any) -> str:
        """A fresh request for a certificate."""
        members = {"subject": self.name, "role": self.role, "instance": self.instance, "id": new_id()}
        return enrolment(self.key, **{**members, "issued_at": int(time.time()), **changes}).signed(self.key)

    async def enrol(
        self, token: str | None = None, *, proof: str | None = None, **changes: Any
    ) -> httpx.Response:
        """Ask for a certificate, and keep it."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        body = {"enrolment": self.enrolment(**changes), "proof": proof}
        response = await self.http.post("/v1/certificates", json=body, headers=headers)
        if response.is_success:
            self.certificate = response.json()["certificate"]
        return response

    def proof(self, **changes: Any) -> str:
        """A fresh proof of possession."""
        members = {"instance": self.instance, "issued_at": int(time.time()), "id": new_id()}
        return proof(self.certificate, **{**members, **changes}).signed(self.key)

    async def access(self, text: str | None = None) -> httpx.Response:
        """Ask for an access token."""
        return await self.http.post("/v1/tokens", json={"proof": text or self.proof()})

    async def introduced(self, peer: str, **body: Any) -> httpx.Response:
        """Ask for a peer token."""
        asked = {"proof": self.proof(use="peer", peer=peer), **body}
        return await self.http.post("/v1/tokens/peer", json=asked)

    async def bearer(self) -> dict[str, str]:
        """Headers with a fresh access token."""
        response = await self.access()
        return {"Authorization": f"Bearer {response.json()['token']}"}
