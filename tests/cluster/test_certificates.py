"""Certificates for the hosts of a cluster."""

from __future__ import annotations

import asyncio
import datetime
import ssl
import stat
from pathlib import Path, PurePosixPath

import pytest
from cryptography import x509

from bridge.cluster.certificates import create_authority, issue_certificate, list_certificates
from bridge.errors import ConfigurationError
from bridge.node import TlsConfig

_NOW = datetime.datetime(2026, 11, 21, 12, 0, tzinfo=datetime.UTC)
_DAY = datetime.timedelta(days=1)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    create_authority(tmp_path / "certs", name="our cluster", days=30, now=_NOW)
    return tmp_path / "certs"


def _tls(place: Path) -> TlsConfig:
    return TlsConfig(
        certificate=place / "node.pem", key=place / "node.key", authority=place / "authority.pem"
    )


async def _meet(dialling: TlsConfig, accepting: TlsConfig, host: str) -> bytes:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=accepting.credentials.accepting())
    try:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=dialling.credentials.dialling(), server_hostname=host
        )
        said = await reader.read()
        writer.close()
        return said
    finally:
        server.close()


async def test_two_hosts_of_one_authority_believe_each_other(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    create_authority(tmp_path, name="our cluster", days=30, now=now)
    for host in ("127.0.0.1", "hs1.example"):
        issue_certificate(tmp_path, host, days=10, now=now)
    assert await _meet(_tls(tmp_path / "hs1.example"), _tls(tmp_path / "127.0.0.1"), "127.0.0.1") == b"hello"
    assert (
        await _meet(_tls(tmp_path / "127.0.0.1"), _tls(tmp_path / "hs1.example"), "hs1.example") == b"hello"
    )


async def test_a_certificate_of_another_authority_is_not_believed(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    for name in ("one", "other"):
        create_authority(tmp_path / name, name=name, days=30, now=now)
        issue_certificate(tmp_path / name, "127.0.0.1", days=10, now=now)
    with pytest.raises(ssl.SSLCertVerificationError):
        await _meet(_tls(tmp_path / "one" / "127.0.0.1"), _tls(tmp_path / "other" / "127.0.0.1"), "127.0.0.1")


def test_an_address_is_in_a_certificate_as_a_name_and_as_an_address(place: Path) -> None:
    issue_certificate(place, "127.0.0.1", days=10, now=_NOW)
    certificate = x509.load_pem_x509_certificate((place / "127.0.0.1" / "node.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["127.0.0.1"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_keys_are_for_their_user_alone(place: Path) -> None:
    issue_certificate(place, "hs1.example", days=10, now=_NOW)
    for key in (place / "authority.key", place / "hs1.example" / "node.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert not [path for path in place.rglob("*") if path.name.startswith(".draft")]


def test_no_certificate_outlives_its_authority(place: Path) -> None:
    made = issue_certificate(place, "hs1.example", days=365, now=_NOW)
    assert made.expires == _NOW + 30 * _DAY
    with pytest.raises(ConfigurationError, match="expired"):
        issue_certificate(place, "hs1.example", days=1, now=_NOW + 31 * _DAY)


def test_issuing_again_replaces_the_pair(place: Path) -> None:
    issue_certificate(place, "hs1.example", days=10, now=_NOW)
    before = (place / "hs1.example" / "node.key").read_bytes()
    later = issue_certificate(place, "hs1.example", days=10, now=_NOW + _DAY)
    assert later.expires == _NOW + 11 * _DAY
    assert (place / "hs1.example" / "node.key").read_bytes() != before


def test_the_option_file_names_where_the_files_will_lie(place: Path) -> None:
    issue_certificate(place, "hs1.example", days=10, now=_NOW, installed_at=PurePosixPath("/etc/bridge"))
    text = (place / "hs1.example" / "node.optfile").read_text()
    assert text.count('{keyfile, "/etc/bridge/node.key"}') == 2
    assert text.count("{verify, verify_peer}") == 2
    assert text.count("{fail_if_no_peer_cert, true}") == 1


def test_the_list_has_the_authority_and_every_host(place: Path) -> None:
    issue_certificate(place, "hs2.example", days=10, now=_NOW)
    issue_certificate(place, "hs1.example", days=20, now=_NOW)
    assert [(item.host, item.expires - _NOW) for item in list_certificates(place)] == [
        ("authority", 30 * _DAY),
        ("hs1.example", 20 * _DAY),
        ("hs2.example", 10 * _DAY),
    ]


@pytest.mark.parametrize("host", ["", "a b", "../x", "x/y", "-x", 'a"b', "é.example", "a" * 300])
def test_what_is_no_host_gets_no_certificate_and_leaves_nothing(place: Path, host: str) -> None:
    before = sorted(place.rglob("*"))
    with pytest.raises(ConfigurationError, match="no host"):
        issue_certificate(place, host, days=10, now=_NOW)
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("days", [0, -1, 3651])
def test_days_out_of_range_are_refused(place: Path, tmp_path: Path, days: int) -> None:
    with pytest.raises(ConfigurationError, match="days"):
        issue_certificate(place, "hs1.example", days=days, now=_NOW)
    with pytest.raises(ConfigurationError, match="days"):
        create_authority(tmp_path / "other", name="x", days=days, now=_NOW)


def test_a_second_authority_in_one_place_is_refused(place: Path) -> None:
    with pytest.raises(ConfigurationError, match="already"):
        create_authority(place, name="x", days=10, now=_NOW)


def test_without_an_authority_or_with_the_key_of_another_nothing_is_issued(
    place: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="certs init"):
        issue_certificate(tmp_path / "none", "hs1.example", days=10, now=_NOW)
    create_authority(tmp_path / "other", name="x", days=10, now=_NOW)
    (place / "authority.key").write_bytes((tmp_path / "other" / "authority.key").read_bytes())
    with pytest.raises(ConfigurationError, match="not the key"):
        issue_certificate(place, "hs1.example", days=10, now=_NOW)
    (place / "authority.key").write_text("junk")
    with pytest.raises(ConfigurationError, match="no key"):
        issue_certificate(place, "hs1.example", days=10, now=_NOW)
