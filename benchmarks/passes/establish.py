"""Establishment: a player with a key and a certificate asks for a token for a peer (R0-32)."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from benchmarks.passes.series import Crossing
from bridge.authority import HOME, Message
from bridge.errors import InvalidStateError
from bridge.jose import Jwk
from bridge.jose.credentials import Enrolment, Proof, Role
from bridge.jose.encoding import base64url_encode


class Newcomer:
    """A player's program, on the other side of the road from the homeserver.

    Attributes:
        messages: what crossed, the answer proving its request.
    """

    def __init__(self, http: httpx.AsyncClient, instance: str) -> None:
        self.messages: list[Message] = []
        self._http = http
        self._instance = instance
        # Somebody new each time: a name that is taken has another key.
        self._name = f"newcomer-{secrets.token_hex(8)}"
        self._key = Jwk.generate()
        self._certificate = ""

    async def enrol(self) -> None:
        """Get a certificate, once in a month or so."""
        enrolment = Enrolment(
            subject=self._name,
            role=Role.PLAYER,
            key=self._key.public(),
            instance=self._instance,
            issued_at=int(time.time()),
            id=_new_id(),
        )
        answer = await self._ask("/v1/certificates", {"enrolment": enrolment.signed(self._key)})
        self._certificate = answer.json()["certificate"]

    async def establish(self, crossing: Crossing) -> tuple[float, float | None]:
        """One request with proof and certificate, one answer with a token and where its server is."""
        proof = Proof(
            certificate=self._certificate,
            instance=self._instance,
            use="peer",
            peer=crossing.taker,
            issued_at=int(time.time()),
            id=_new_id(),
        ).signed(self._key)
        begin = time.monotonic_ns()
        answer = await self._ask("/v1/tokens/peer", {"proof": proof})
        end = time.monotonic_ns()
        trace = bytes.fromhex(answer.headers["Khepri-Trace"])
        for hop, (kind, sender, receiver) in enumerate(
            (("token_request", self._name, HOME), ("token", HOME, self._name))
        ):
            self.messages.append(
                Message(trace=trace, hop=hop, kind=kind, sender=sender, receiver=receiver, at_ns=end)
            )
        return (end - begin) / 1e6, None

    async def _ask(self, path: str, body: dict[str, str]) -> httpx.Response:
        answer = await self._http.post(path, json=body)
        if not answer.is_success:
            raise InvalidStateError(f"{path}: {answer.status_code} {answer.text:.200}")
        return answer


@asynccontextmanager
async def newcomer(port: int, instance: str) -> AsyncIterator[Newcomer]:
    """A player with a certificate.

    Args:
        port: of the road to the instance's REST service.
    """
    # One connection is kept, as by a client that asks more than once; its TLS would be two round trips more.
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30.0, trust_env=False) as http:
        player = Newcomer(http, instance)
        await player.enrol()
        yield player


def _new_id() -> str:
    return base64url_encode(secrets.token_bytes(16))
