"""Listening: uvicorn over one application, on loopback unless there is TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import uvicorn
from fastapi import FastAPI

from bridge.errors import ConfigurationError
from bridge.homeserver.issuing import Issuing, IssuingSettings
from bridge.homeserver.rest.callers import TokenAuthenticator
from bridge.homeserver.rest.context import Context
from bridge.homeserver.rest.settings import RestSettings
from bridge.jose.credentials import Signer
from bridge.khepri import Khepri
from bridge.registry import Credentials, Ownership
from bridge.registry.journal import Journal
from bridge.registry.trust import Trusted

_GRACE_SECONDS: Final = 5
"""for requests under way when the service is to end"""
_BACKLOG: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where the service listens.

    Attributes:
        host: address or name; beyond loopback only with TLS.
        port: 0 takes any free one.
        tls_certificate: PEM, with what is between it and the authority.
        tls_key: PEM.
        proxies: addresses or networks of balancers whose ``X-Forwarded-For`` is believed.

    Raises:
        ConfigurationError: beyond loopback without TLS, half a pair of TLS files, or a proxy that is no
            address.
    """

    host: str = "127.0.0.1"
    port: int = 0
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    proxies: Sequence[str] = ()

    @classmethod
    def at(cls, address: str, **options: Any) -> Self:
        """Listen at ``HOST:PORT``, or at a port of this machine.

        Raises:
            ConfigurationError: it is none of these; or as of the class.
        """
        host, _, port = address.rpartition(":")
        if not port.isdecimal() or int(port) > 65_535:
            raise ConfigurationError(
                f"listen at HOST:PORT or PORT, such as 127.0.0.1:8080, not {address!r:.100}"
            )
        return cls(host=host.strip("[]") or "127.0.0.1", port=int(port), **options)

    def __post_init__(self) -> None:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigurationError("TLS takes both --https-cert and --https-key")
        if self.tls_certificate is None and not _is_loopback(self.host):
            raise ConfigurationError(
                f"{self.host} is beyond this machine: access tokens would cross the network in clear text. "
                "Give --https-cert and --https-key, or listen on 127.0.0.1 behind a proxy that has TLS"
            )
        for proxy in self.proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError as error:
                raise ConfigurationError(f"a proxy is an address or a network: {error}") from error

    @property
    def scheme(self) -> str:
        """Of its URL."""
        return "http" if self.tls_certificate is None else "https"


class _Server(uvicorn.Server):
    """Says when it listens, and when it is to end."""

    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._stopping = stopping

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own raises the signal again at the end: nothing around the service would be closed.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A feed never ends by itself.
        self._stopping.set()
        await super().shutdown(sockets=sockets)


@contextlib.asynccontextmanager
async def serving(app: FastAPI, listening: Listening) -> AsyncIterator[tuple[str, asyncio.Task[None]]]:
    """Serve an application.

    Yields:
        Its URL, and a task that ends when the service does: after SIGINT or SIGTERM, when requests under
            way are answered. Leaving the context ends it too.

    Raises:
        ConfigurationError: the address is taken or not of this machine, or the TLS files are not usable.
    """
    bound = _bind(listening)
    config = uvicorn.Config(
        app,
        # Also where another parser is installed: of the head of a request that one has no limit.
        http="h11",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(listening.proxies),
        forwarded_allow_ips=list(listening.proxies),
        ssl_certfile=listening.tls_certificate,
        ssl_keyfile=listening.tls_key,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        ws="none",
        backlog=_BACKLOG,
        h11_max_incomplete_event_size=16_384,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        bound.close()
        raise ConfigurationError(f"the TLS certificate or its key cannot be used: {error}") from error
    server = _Server(config, app.state.context.stopping)
    task = asyncio.create_task(server.serve(sockets=[bound]))
    started = asyncio.create_task(server.listening.wait())
    await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
    try:
        host, port = bound.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        yield f"{listening.scheme}://{shown}:{port}", task
    finally:
        server.should_exit = True
        await asyncio.wait([task])
        started.cancel()


async def store_context(
    store: Khepri,
    settings: RestSettings | None = None,
    *,
    trust: Trusted,
    signer: Signer | None = None,
    issuing: IssuingSettings | None = None,
    journal: Journal | None = None,
) -> Context:
    """The context of a service over this store; what the signer has is published.

    Args:
        trust: the instance's keys and revocations.
        signer: by which certificates, tokens and tickets are issued; without one, none are.
        issuing: how long those last, and who may register.
        journal: records requests about entities and players, where that is wanted.

    Raises:
        BridgeError: the store or the signer does not answer.
    """
    settings = settings or RestSettings()
    instance = (await store.health()).instance
    issues = None
    if signer is not None:
        issues = Issuing(
            credentials=Credentials(store, patience=settings.store_timeout),
            signer=signer,
            trust=trust,
            instance=instance,
            settings=issuing,
        )
        await issues.publish()
    return Context(
        store=store,
        ownership=Ownership(store, patience=settings.store_timeout, journal=journal),
        journal=journal,
        instance=instance,
        authenticator=TokenAuthenticator(trust, instance),
        settings=settings,
        issuing=issues,
        signer=signer,
    )


def _bind(listening: Listening) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            listening.host, listening.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(listening, error) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise _cannot_listen(listening, error) from error
    bound.setblocking(False)
    return bound


def _cannot_listen(listening: Listening, error: OSError | UnicodeError) -> ConfigurationError:
    return ConfigurationError(f"cannot listen on {listening.host}:{listening.port}: {error}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
