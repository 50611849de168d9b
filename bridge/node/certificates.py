"""Certificates of a node, and the TLS contexts made from them."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from bridge.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """Certificates of a node. Verifying the other side cannot be switched off, in either direction.

    The files are read when this is made, and again when one of them has changed: a renewed certificate is
    used from the next connection on, without a restart.

    Raises:
        ConfigurationError: a file cannot be read, or does not hold what it should.
    """

    certificate: str | Path
    """PEM: this node's certificate, then those between it and the authority. Its subjectAltName has the host
    part of the node name as dNSName (which OTP reads), and an address as iPAddress too (we read that)"""
    key: str | Path
    """PEM: its private key"""
    authority: str | Path
    """PEM: the authorities whose certificates are believed; no other is, the system's neither"""
    revoked: str | Path | None = None
    """PEM: the list of revoked certificates of each authority; one that is out of date lets nobody in"""
    key_password: str | None = field(default=None, repr=False)
    """of an encrypted ``key``"""
    minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    """or ``TLSv1_3``; OTP speaks 1.2 alone unless its option file has ``{versions, ['tlsv1.3']}``"""
    credentials: Credentials = field(init=False, repr=False, compare=False)
    """what the files hold"""

    def __post_init__(self) -> None:
        if self.minimum_version not in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            raise ConfigurationError("minimum_version is TLSv1_2 or TLSv1_3")
        object.__setattr__(self, "credentials", Credentials(self))

    @property
    def files(self) -> tuple[Path, ...]:
        """Certificate, key, authority and, where there are any, revocations."""
        revoked = () if self.revoked is None else (Path(self.revoked),)
        return Path(self.certificate), Path(self.key), Path(self.authority), *revoked


class Credentials:
    """The contexts made from a ``TlsConfig``, made anew when its files have changed."""

    def __init__(self, config: TlsConfig) -> None:
        self._config = config
        self._stamp = _stamp(config)
        self._dialling, self._accepting = _contexts(config)

    def dialling(self) -> ssl.SSLContext:
        """For a connection to somebody, whose certificate must be for the host that was dialled."""
        self._refresh()
        return self._dialling

    def accepting(self) -> ssl.SSLContext:
        """For a connection from somebody, who must have a certificate of the authority."""
        self._refresh()
        return self._accepting

    def _refresh(self) -> None:
        try:
            stamp = _stamp(self._config)
            if stamp != self._stamp:
                self._dialling, self._accepting = _contexts(self._config)
                self._stamp = stamp
        except ConfigurationError:
            # Somebody is in the middle of writing them; what was read before is tried until then.
            return


def _stamp(config: TlsConfig) -> tuple[tuple[int, int, int], ...]:
    try:
        found = [path.stat() for path in config.files]
    except OSError as error:
        raise ConfigurationError(f"{error.filename} cannot be read: {error.strerror}") from None
    return tuple((status.st_ino, status.st_mtime_ns, status.st_size) for status in found)


def _contexts(config: TlsConfig) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    dialling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    dialling.hostname_checks_common_name = False
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.verify_mode = ssl.CERT_REQUIRED
    # A node that comes back proves itself anew, against the authorities of that moment.
    accepting.num_tickets = 0
    accepting.options |= ssl.OP_NO_TICKET
    for context in (dialling, accepting):
        context.minimum_version = config.minimum_version
        _load(context, config)
    return dialling, accepting


def _load(context: ssl.SSLContext, config: TlsConfig) -> None:
    certificate, key, authority, *revoked = config.files
    for path in config.files:
        if not os.access(path, os.R_OK):
            raise ConfigurationError(f"{path} cannot be read: is it there, and may this user read it?")
    # Without one, OpenSSL would ask the terminal.
    password = config.key_password or ""
    try:
        context.load_cert_chain(certificate, key, password=password)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(
            f"{certificate} and {key} are no certificate and its key in PEM ({error}); "
            "an encrypted key needs key_password"
        ) from None
    for path, what in [
        (authority, "certificate"),
        *((path, "list of revoked certificates") for path in revoked),
    ]:
        try:
            context.load_verify_locations(cafile=path)
        except ssl.SSLError as error:
            raise ConfigurationError(f"{path} holds no {what} in PEM ({error})") from None
    if revoked:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
