"""What a node's certificates are made from, and when that is refused."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as forms

from bridge.errors import ConfigurationError
from bridge.node.certificates import TlsConfig
from tests.support.certificates import Authority, NodeCertificate


@pytest.fixture
def good(tmp_path: Path) -> NodeCertificate:
    return Authority(tmp_path).issue("good")


def test_files_that_are_none_are_named(good: NodeCertificate, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    with pytest.raises(ConfigurationError, match=r"nowhere\.pem cannot be read"):
        TlsConfig(certificate=tmp_path / "nowhere.pem", key=good.key, authority=good.authority)
    with pytest.raises(ConfigurationError, match=r"empty\.pem and .* are no certificate and its key"):
        TlsConfig(certificate=empty, key=good.key, authority=good.authority)
    with pytest.raises(ConfigurationError, match="no certificate and its key"):
        TlsConfig(certificate=good.authority, key=good.key, authority=good.authority)
    with pytest.raises(ConfigurationError, match=r"empty\.pem holds no certificate"):
        TlsConfig(certificate=good.certificate, key=good.key, authority=empty)
    with pytest.raises(ConfigurationError, match=r"empty\.pem holds no list of revoked"):
        good.config(revoked=empty)


def test_a_version_that_is_too_old_is_refused(good: NodeCertificate) -> None:
    for version in (ssl.TLSVersion.MINIMUM_SUPPORTED, ssl.TLSVersion.TLSv1_1):
        with pytest.raises(ConfigurationError, match="TLSv1_2 or TLSv1_3"):
            good.config(minimum_version=version)


def test_an_encrypted_key_needs_its_password_and_does_not_show_it(good: NodeCertificate) -> None:
    key = forms.load_pem_private_key(good.key.read_bytes(), None)
    locked = good.key.with_suffix(".locked")
    encryption = forms.BestAvailableEncryption(b"opens")
    locked.write_bytes(key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, encryption))
    encrypted = NodeCertificate(good.certificate, locked, good.authority)
    for password in (None, "does not"):
        with pytest.raises(ConfigurationError, match="key_password"):
            encrypted.config(key_password=password)
    assert "opens" not in repr(encrypted.config(key_password="opens"))


def test_contexts_are_made_once_and_again_when_a_file_has_changed(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    credentials = authority.issue("node").config().credentials
    dialling, accepting = credentials.dialling(), credentials.accepting()
    assert credentials.dialling() is dialling
    renewed = authority.issue("node")
    assert credentials.dialling() is not dialling
    assert credentials.accepting() is not accepting
    dialling = credentials.dialling()
    renewed.key.unlink()
    assert credentials.dialling() is dialling


def test_every_context_demands_a_certificate(good: NodeCertificate) -> None:
    credentials = good.config().credentials
    for context in (credentials.dialling(), credentials.accepting()):
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert credentials.dialling().check_hostname
