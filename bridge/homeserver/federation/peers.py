"""Other instances that the operator trusts, as the tree has them: pinned keys, addresses, servers."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from bridge.errors import ConfigurationError, DecodeError, KeyFormatError, SignatureError
from bridge.etf import Atom
from bridge.homeserver.federation.documents import Endpoint
from bridge.jose import Jwk
from bridge.jose.credentials import Keyring, keyring
from bridge.jose.encoding import base64url_decode_untrusted, base64url_encode
from bridge.registry import ServerRecord

MAX_URLS: Final = 8
MAX_KEYS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One pinned instance.

    Attributes:
        instance: its name, which its seals bear.
        urls: of its REST services, any of which answers; ``https``, or ``http`` on this machine.
        keys: its public signing keys, pinned.
        ca: PEM of the authority, or of the very certificate, that its TLS must show; ``None``: the
            system's authorities do.
        since: from when it has been trusted, Unix seconds: what it sealed before does not count.

    Raises:
        ConfigurationError: a name with an ``@``, no key, a key that cannot sign, no URL, or one that is in
            clear text beyond this machine.
    """

    instance: str
    urls: tuple[str, ...]
    keys: tuple[Jwk, ...]
    ca: str | None = None
    since: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.instance.encode()) <= 255 or "@" in self.instance:
            raise ConfigurationError(
                "the name of an instance has 1 to 255 bytes and no @: it stands behind one in names abroad"
            )
        if not 1 <= len(self.keys) <= MAX_KEYS:
            raise ConfigurationError(f"pin 1 to {MAX_KEYS} keys of {self.instance}")
        if not 1 <= len(self.urls) <= MAX_URLS:
            raise ConfigurationError(f"name 1 to {MAX_URLS} URLs of {self.instance}")
        for url in self.urls:
            check_url(url)
        try:
            keyring(self.keys)
        except SignatureError as error:
            raise ConfigurationError(str(error)) from error

    @property
    def keyring(self) -> Keyring:
        """The pinned keys by thumbprint."""
        return keyring(self.keys)

    def to_term(self) -> dict[Any, Any]:
        """Return the request that pins it."""
        return {
            Atom("instance"): self.instance.encode(),
            Atom("urls"): [url.encode() for url in self.urls],
            Atom("keys"): [key.public().to_json().encode() for key in self.keys],
            Atom("ca"): Atom("undefined") if self.ca is None else self.ca.encode(),
            Atom("since"): self.since,
        }

    @classmethod
    def from_term(cls, term: Any) -> Peer:
        """Decode ``/:bridge/:peers/<instance>``.

        Raises:
            DecodeError: it is none.
        """
        try:
            ca = term[Atom("ca")]
            return cls(
                instance=term[Atom("instance")].decode(),
                urls=tuple(url.decode() for url in term[Atom("urls")]),
                keys=tuple(Jwk.from_json(key) for key in term[Atom("keys")]),
                ca=None if ca == Atom("undefined") else ca.decode(),
                since=int(term[Atom("since")]),
            )
        except (
            KeyError,
            TypeError,
            AttributeError,
            UnicodeDecodeError,
            KeyFormatError,
            ConfigurationError,
        ) as error:
            raise DecodeError(f"no record of a peer: {error}") from error


def servers_term(servers: list[Endpoint]) -> dict[bytes, dict[Any, Any]]:
    """Return servers of another instance as the tree keeps them."""
    return {
        server.server.encode(): {
            Atom("server"): server.server.encode(),
            Atom("session"): base64url_decode_untrusted(server.session),
            Atom("key"): server.key.encode(),
            Atom("thumbprint"): server.thumbprint.encode(),
            Atom("address"): (server.host.encode(), server.port),
        }
        for server in servers
    }


def endpoint_of(record: ServerRecord) -> Endpoint:
    """Return what another instance is told of a server of this one, which has a session."""
    assert record.session is not None
    return Endpoint(
        server=record.server,
        session=base64url_encode(record.session),
        key=record.key.decode(),
        thumbprint=record.thumbprint,
        host=record.host,
        port=record.port,
    )


def check_url(url: str) -> None:
    """Demand a URL of a homeserver that is not in clear text beyond this machine.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"{url!r:.100} is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or parts.username:
        raise ConfigurationError(
            f"{url!r:.100} is no URL of a homeserver, such as https://other.example:8443"
        )
    if parts.scheme == "http" and not _is_loopback(host):
        raise ConfigurationError(f"{url} is beyond this machine: it takes https")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
