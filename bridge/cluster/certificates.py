"""Certificates of a cluster's hosts, for TLS distribution and REST: an authority, and a pair for each host.

::

    <directory>/authority.pem, authority.key      sign certificates; the key belongs on no node
    <directory>/<host>/node.pem, node.key         of that host
    <directory>/<host>/authority.pem              whose certificates it believes
    <directory>/<host>/node.optfile               for ``-ssl_dist_optfile`` (``KB_TLS_OPTFILE``)

Source: RFC 5280; what OTP looks at stands in ``docs/guide-tls.md``.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bridge.errors import ConfigurationError

AUTHORITY: Final = "authority.pem"
AUTHORITY_KEY: Final = "authority.key"
CERTIFICATE: Final = "node.pem"
KEY: Final = "node.key"
OPTIONS: Final = "node.optfile"
MAX_DAYS: Final = 3650
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?")
_EARLIER: Final = datetime.timedelta(minutes=5)
"""how far behind another host's clock may be"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCertificate:
    """A certificate that lies in a directory.

    Attributes:
        host: of the node names that it is for; ``authority`` for the authority's own.
        file: where it lies.
        expires: its last moment, UTC.
    """

    host: str
    file: Path
    expires: datetime.datetime


def create_authority(directory: Path, *, name: str, days: int, now: datetime.datetime) -> HostCertificate:
    """Make the authority whose certificates the nodes of one cluster believe.

    Args:
        directory: where it goes; made if need be, for this user alone.
        name: what the certificate is called, for people.
        days: how long it is valid, 1 to 3650.
        now: the time, UTC.

    Raises:
        ConfigurationError: there is one already, or an argument is out of range.
    """
    _must_be_days(days)
    _make_directory(directory)
    if (directory / AUTHORITY).exists() or (directory / AUTHORITY_KEY).exists():
        raise ConfigurationError(
            f"{directory} has an authority already: certificates of it would be worth nothing"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    certificate = (
        _builder(subject, subject, key.public_key(), now, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    with _placed(directory) as place:
        _write(place / AUTHORITY_KEY, _pem_of_key(key), mode=0o600)
        _write(place / AUTHORITY, _pem(certificate), mode=0o644)
    return _described("authority", directory / AUTHORITY, certificate)


def issue_certificate(
    directory: Path,
    host: str,
    *,
    days: int,
    now: datetime.datetime,
    installed_at: PurePosixPath | None = None,
) -> HostCertificate:
    """Make a key and a certificate for a host, or make both anew.

    Args:
        directory: that of the authority.
        host: host part of its node names: a name, or an address.
        days: how long it is valid, 1 to 3650; never longer than the authority.
        now: the time, UTC.
        installed_at: absolute directory on that host where the four files will lie, which the option file
            names; where they lie here if ``None``.

    Raises:
        ConfigurationError: no authority, it has expired, or an argument is out of range.
    """
    _must_be_days(days)
    if not _HOST.fullmatch(host):
        raise ConfigurationError(f"{host!r} is no host: give the part behind the @ of its node names")
    place = (directory / host).absolute() if installed_at is None else installed_at
    if not place.is_absolute() or '"' in str(place) or "\\" in str(place):
        raise ConfigurationError(f"{place} is no absolute path that an Erlang option file can name")
    issuer, issuer_key = _authority(directory)
    until = issuer.not_valid_after_utc
    if until <= now:
        raise ConfigurationError(
            f"the authority in {directory} expired at {until:%Y-%m-%d %H:%M} UTC: make a new one"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(_name(host[:64]), issuer.subject, key.public_key(), now, days, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(certificates=False), critical=True)
        .add_extension(x509.SubjectAlternativeName(_alternative_names(host)), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
        .sign(issuer_key, hashes.SHA256())
    )
    target = directory / host
    _make_directory(target)
    with _placed(target) as drafts:
        _write(drafts / KEY, _pem_of_key(key), mode=0o600)
        _write(drafts / CERTIFICATE, _pem(certificate), mode=0o644)
        _write(drafts / AUTHORITY, _pem(issuer), mode=0o644)
        _write(drafts / OPTIONS, _option_file(PurePosixPath(place)).encode(), mode=0o644)
    return _described(host, target / CERTIFICATE, certificate)


def list_certificates(directory: Path) -> list[HostCertificate]:
    """The authority, then what it issued, by host.

    Raises:
        ConfigurationError: no authority, or a file that cannot be read.
    """
    files = [(path.parent.name, path) for path in sorted(directory.glob(f"*/{CERTIFICATE}"))]
    return [
        _described(host, path, _load(path)) for host, path in (("authority", directory / AUTHORITY), *files)
    ]


def _authority(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate = _load(directory / AUTHORITY)
    try:
        key = serialization.load_pem_private_key((directory / AUTHORITY_KEY).read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(f"{directory / AUTHORITY_KEY} is no key that can be read: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigurationError(f"{directory / AUTHORITY_KEY} is not the key of {directory / AUTHORITY}")
    return certificate, key


def _load(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        raise ConfigurationError(f"no {path}: make an authority first (khepri-bridge certs init)") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} is no certificate that can be read: {error}") from None


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    days: int,
    latest: datetime.datetime | None = None,
) -> x509.CertificateBuilder:
    end = now + datetime.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(end if latest is None else min(end, latest))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _alternative_names(host: str) -> list[x509.GeneralName]:
    """Both forms of an address: OTP compares it with the names, OpenSSL with the addresses."""
    try:
        return [x509.DNSName(host), x509.IPAddress(ipaddress.ip_address(host))]
    except ValueError:
        return [x509.DNSName(host)]


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _option_file(place: PurePosixPath) -> str:
    # Without versions OTP speaks TLS 1.2 alone; without the other two it believes whoever comes.
    both = (
        f'{{certfile, "{place / CERTIFICATE}"}}, {{keyfile, "{place / KEY}"}}, '
        f'{{cacertfile, "{place / AUTHORITY}"}},\n  {{verify, verify_peer}}, '
        "{versions, ['tlsv1.3', 'tlsv1.2']}"
    )
    return f"[{{server, [{both}, {{fail_if_no_peer_cert, true}}]}},\n {{client, [{both}]}}].\n"


def _name(text: str) -> x509.Name:
    if not 1 <= len(text) <= 64:
        raise ConfigurationError("the name of a certificate has 1 to 64 characters")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _must_be_days(days: int) -> None:
    if not 1 <= days <= MAX_DAYS:
        raise ConfigurationError(f"a certificate is valid for 1 to {MAX_DAYS} days, not {days}")


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{directory} cannot be made: {error.strerror}") from error


@contextlib.contextmanager
def _placed(directory: Path) -> Iterator[Path]:
    """A place for drafts, which then replace the files of their names, so that nobody reads half of one."""
    drafts = Path(tempfile.mkdtemp(prefix=".draft-", dir=directory))
    try:
        yield drafts
        # The certificate last: who finds a new one finds its key beside it.
        for draft in sorted(drafts.iterdir()):
            draft.replace(directory / draft.name)
    finally:
        shutil.rmtree(drafts, ignore_errors=True)


def _described(host: str, file: Path, certificate: x509.Certificate) -> HostCertificate:
    return HostCertificate(host=host, file=file, expires=certificate.not_valid_after_utc)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _pem_of_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes, *, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
