"""Tokens for proofs of possession: to speak to this service, and to a peer (R0-32)."""

from __future__ import annotations

from typing import Any, Self

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request

from bridge.homeserver.rest.issuing import Issues, refusing
from bridge.jose import Jwk
from bridge.jose.credentials import Certificate, Proof
from bridge.registry import ServerRecord

router = APIRouter(prefix="/v1/tokens", tags=["tokens"])

_PROOF = Field(
    description="A `kb-proof+jwt`, signed by the certificate's key.",
    max_length=Proof.MAX_BYTES,
    examples=["eyJhbGci.eyJpc3Mi.c2lnbmF0"],
)


class Asking(BaseModel):
    """A request for an access token."""

    proof: str = _PROOF


class Given(BaseModel):
    """An access token."""

    token: str = Field(
        description="A `kb-access+jwt`, to be sent as `Authorization: Bearer`.",
        examples=["eyJhbGci.eyJpc3Mi.c2lnbmF0"],
    )
    expires: int = Field(description="Unix seconds.", examples=[1795297739])


class AskingForPeer(BaseModel):
    """A request to be introduced to a server."""

    proof: str = _PROOF
    peer_certificate: str | None = Field(
        default=None,
        description="Certificate of the peer, where you have it: then the token is for that very key.",
        max_length=Certificate.MAX_BYTES,
    )


class Peer(BaseModel):
    """A server to speak to."""

    server: str = Field(examples=["sim1"])
    key: dict[str, Any] = Field(
        description="Its public key, a JWK.", examples=[{"kty": "EC", "crv": "P-256", "x": "…", "y": "…"}]
    )
    thumbprint: str = Field(
        description="RFC 7638 thumbprint of that key.",
        examples=["NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"],
    )
    host: str = Field(description="Address or name.", examples=["192.0.2.7"])
    port: int = Field(description="UDP.", examples=[4000])

    @classmethod
    def of(cls, record: ServerRecord) -> Self:
        """The server that a record tells of."""
        return cls(
            server=record.server,
            key=Jwk.from_json(record.key).public_members(),
            thumbprint=record.thumbprint,
            host=record.host,
            port=record.port,
        )


class Introduction(BaseModel):
    """A token for a peer."""

    token: str = Field(
        description="A `kb-peer+jwt`, to be shown to the peer.", examples=["eyJhbGci.eyJpc3Mi.c2lnbmF0"]
    )
    expires: int = Field(description="Unix seconds.", examples=[1795297739])
    peer: Peer


@router.post("")
async def access(body: Asking, issues: Issues, request: Request) -> Given:
    """Give an access token of at most five minutes for a proof that was never shown before."""
    with refusing("bad_proof"):
        proof, certificate = issues.read_proof(body.proof)
    request.app.state.callers.take(f"{certificate.role}:{certificate.subject}")
    with refusing("bad_proof"):
        given = await issues.access(proof, certificate)
    return Given(token=given.token, expires=given.expires_at)


@router.post("/peer")
async def introduce(body: AskingForPeer, issues: Issues, request: Request) -> Introduction:
    """Give a token for one server, with that server's key and address: one request, one answer."""
    with refusing("bad_proof"):
        proof, certificate = issues.read_proof(body.proof)
    request.app.state.callers.take(f"{certificate.role}:{certificate.subject}")
    with refusing("bad_proof"):
        given = await issues.introduce(proof, certificate, peer_certificate=body.peer_certificate)
    return Introduction(token=given.issued.token, expires=given.issued.expires_at, peer=Peer.of(given.peer))
