"""The way to another instance's homeservers: HTTP with pinned TLS, a question and its answer."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Protocol, Self

import httpx

from bridge.errors import (
    ConfigurationError,
    ConnectionLostError,
    DeadlineError,
    KeyFormatError,
    RemoteError,
)
from bridge.homeserver.federation.documents import MAX_ANSWER_BYTES
from bridge.homeserver.federation.peers import Peer, check_url
from bridge.jose import Jwk

PATH: Final = "/v1/federation"
JWKS_PATH: Final = "/v1/jwks.json"
SEAL_HEADER: Final = "Khepri-Seal"
"""of a request and of its response: the seal of the body"""
_TIMEOUT: Final = httpx.Timeout(10.0, connect=3.0)
_WHOLE_SECONDS: Final = 15.0
"""of a question and its answer, which may drip: others wait for their turn"""
_LIMITS: Final = httpx.Limits(max_connections=32, max_keepalive_connections=32)


class RejectedError(RemoteError):
    """The other instance did not decide.

    Attributes:
        status: of HTTP.
        kind: of the problem, such as ``elsewhere``; empty where it is none.
    """

    def __init__(self, message: str, *, status: int, kind: str) -> None:
        super().__init__(message, reason=kind or status)
        self.status = status
        self.kind = kind


class Link(Protocol):
    """Carries one question to a peer and its answer back."""

    async def ask(self, peer: Peer, body: bytes, seal: str) -> tuple[bytes, str]:
        """Return the answer's body and seal, unchecked.

        Raises:
            RejectedError: the peer answered that it does not decide.
            ConnectionLostError: it is not to be reached, or broke off.
            DeadlineError: it did not answer in time; it may have decided.
            ConfigurationError: its certificate authority is none.
        """


class HttpLink:
    """Asks by HTTP, keeping connections; an async context manager.

    A peer with several URLs is asked at the next one after each failure.

    Args:
        seconds: that a question and its answer may take together.
    """

    def __init__(self, *, seconds: float = _WHOLE_SECONDS) -> None:
        self._seconds = seconds
        self._clients: dict[tuple[str, str | None], httpx.AsyncClient] = {}
        self._turn = itertools.count()
        self._preferred: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    async def ask(self, peer: Peer, body: bytes, seal: str) -> tuple[bytes, str]:
        """As of ``Link``."""
        url = self._preferred.get(peer.instance)
        if url not in peer.urls:
            url = peer.urls[next(self._turn) % len(peer.urls)]
        self._preferred[peer.instance] = url
        try:
            return await self._ask(peer, url, body, seal)
        except (ConnectionLostError, DeadlineError):
            self._preferred.pop(peer.instance, None)
            raise

    async def _ask(self, peer: Peer, url: str, body: bytes, seal: str) -> tuple[bytes, str]:
        client = self._client(peer)
        # Not compressed, and taken as it comes: a few bytes could be so many that they fill the memory.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", SEAL_HEADER: seal}
        try:
            async with (
                asyncio.timeout(self._seconds),
                client.stream("POST", url.rstrip("/") + PATH, content=body, headers=headers) as response,
            ):
                answer = bytearray()
                async for chunk in response.aiter_raw():
                    answer += chunk
                    if len(answer) > MAX_ANSWER_BYTES:
                        raise ConnectionLostError(f"{peer.instance} answers without an end")
        except (httpx.TimeoutException, TimeoutError) as error:
            raise DeadlineError(f"{peer.instance} did not answer in time at {url}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConnectionLostError(f"{peer.instance} is not to be reached at {url}: {error}") from error
        if response.status_code != 200:
            raise _rejected(peer, response.status_code, bytes(answer))
        return bytes(answer), response.headers.get(SEAL_HEADER, "")

    def _client(self, peer: Peer) -> httpx.AsyncClient:
        key = (peer.instance, peer.ca)
        client = self._clients.get(key)
        if client is None:
            # No proxies of the environment: they would get to see who trades with whom.
            client = httpx.AsyncClient(
                verify=tls_context(peer.ca), timeout=_TIMEOUT, limits=_LIMITS, trust_env=False
            )
            self._clients[key] = client
        return client


async def fetch_keys(url: str, thumbprints: Sequence[str], *, ca: str | None) -> list[Jwk]:
    """Return keys that an instance publishes, by thumbprints that its operator gave by another way.

    Raises:
        ConfigurationError: it does not publish such a key, or ``ca`` is no certificate.
        ConnectionLostError: it is not to be reached.
    """
    check_url(url)
    try:
        async with httpx.AsyncClient(verify=tls_context(ca), timeout=_TIMEOUT, trust_env=False) as client:
            response = await client.get(url.rstrip("/") + JWKS_PATH)
            published = [Jwk.from_dict(members) for members in response.raise_for_status().json()["keys"]]
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConnectionLostError(f"no keys from {url}: {error}") from error
    except (ValueError, TypeError, KeyError, RecursionError, KeyFormatError) as error:
        raise ConfigurationError(f"{url} publishes no keys that can be read: {error}") from error
    by_thumbprint = {key.thumbprint(): key.public() for key in published}
    missing = [thumbprint for thumbprint in thumbprints if thumbprint not in by_thumbprint]
    if missing:
        raise ConfigurationError(f"{url} publishes no key with the thumbprint {missing[0]!r:.60}")
    return [by_thumbprint[thumbprint] for thumbprint in thumbprints]


def tls_context(ca: str | None) -> ssl.SSLContext:
    """Return what verifies an instance's TLS: a pinned authority (PEM), or those of the system.

    Raises:
        ConfigurationError: the text is no certificate.
    """
    try:
        if ca is not None and not ca.strip():
            # Python would take the system's authorities then.
            raise ValueError("no text")
        return ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError("the pinned authority is no certificate in PEM") from error


def _rejected(peer: Peer, status: int, body: bytes) -> RejectedError:
    kind, detail = "", f"HTTP status {status}"
    try:
        problem = httpx.Response(status, content=body).json()
        kind = str(problem["type"]).rpartition(":")[2]
        detail = str(problem["detail"])
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return RejectedError(f"{peer.instance}: {detail:.300}", status=status, kind=kind)
