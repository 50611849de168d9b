"""Authorities and the certificates of nodes, made for one test run."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bridge.node.certificates import TlsConfig

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class NodeCertificate:
    """Files of one node."""

    certificate: Path
    key: Path
    authority: Path

    def config(self, **options: object) -> TlsConfig:
        """For a hidden node."""
        return TlsConfig(
            certificate=self.certificate,
            key=self.key,
            authority=self.authority,
            **options,  # type: ignore[arg-type]
        )

    def option_file(self, *, versions: str = "'tlsv1.3', 'tlsv1.2'", more: str = "") -> Path:
        """An option file for ``-ssl_dist_optfile``, demanding certificates both ways.

        Args:
            versions: atoms, or nothing for OTP's default.
            more: options for both sides, with a comma in front.
        """
        both = (
            f'{{certfile, "{self.certificate}"}}, {{keyfile, "{self.key}"}}, '
            f'{{cacertfile, "{self.authority}"}}, {{verify, verify_peer}}'
            + (f", {{versions, [{versions}]}}" if versions else "")
            + more
        )
        path = self.certificate.with_suffix(".optfile")
        path.write_text(f"[{{server, [{both}, {{fail_if_no_peer_cert, true}}]}}, {{client, [{both}]}}].\n")
        return path


class Authority:
    """One that signs certificates of nodes.

    Args:
        directory: where files go.
        name: its own.
    """

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = (
            _builder(self._name, self._name, self._key.public_key(), expired=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.path = directory / f"{name}.pem"
        self.path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        host: str = "127.0.0.1",
        *,
        expired: bool = False,
        only_for: x509.ObjectIdentifier | None = None,
    ) -> NodeCertificate:
        """A certificate for a host.

        Args:
            name: of its files.
            host: an address or a name, as in node names.
            expired: whether it was valid until yesterday.
            only_for: the one extended use of its key; default: none said.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        builder = (
            _builder(subject, self._name, key.public_key(), expired=expired)
            .add_extension(x509.SubjectAlternativeName(_general_names(host)), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if only_for is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([only_for]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        paths = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return NodeCertificate(*paths, self.path)

    def revoke(self, *certificates: NodeCertificate, expired: bool = False) -> Path:
        """The list of these certificates."""
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - 3 * _DAY)
            .next_update(now - _DAY if expired else now + _DAY)
        )
        for one in certificates:
            number = x509.load_pem_x509_certificate(one.certificate.read_bytes()).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now - _DAY)
            builder = builder.add_revoked_certificate(entry.build())
        path = self._directory / "revoked.pem"
        signed = builder.sign(self._key, hashes.SHA256())
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        return path


SERVER_ONLY = ExtendedKeyUsageOID.SERVER_AUTH


def self_signed(directory: Path, host: str = "127.0.0.1") -> tuple[Path, Path]:
    """Files of a certificate that is its own authority, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    certificate = (
        _builder(name, name, key.public_key(), expired=False)
        .add_extension(x509.SubjectAlternativeName(_general_names(host)), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "self-signed.pem", directory / "self-signed.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


def _general_names(host: str) -> list[x509.GeneralName]:
    """OTP looks for an address among the names, as text; everybody else looks among the addresses."""
    try:
        return [x509.IPAddress(ipaddress.ip_address(host)), x509.DNSName(host)]
    except ValueError:
        return [x509.DNSName(host)]


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, expired: bool
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 3 * _DAY)
        .not_valid_after(now - _DAY if expired else now + _DAY)
    )
