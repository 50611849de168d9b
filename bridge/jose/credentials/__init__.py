"""What an instance signs: certificates, tokens, tickets, grants. Formats: ``docs/protocol.md`` §10."""

from bridge.jose.credentials.access import AccessToken, read_access_untrusted
from bridge.jose.credentials.certificate import Certificate, read_certificate_untrusted
from bridge.jose.credentials.role import Role
from bridge.jose.credentials.signer import Signer
from bridge.jose.credentials.token import Keyring, keyring

__all__ = [
    "AccessToken",
    "Certificate",
    "Keyring",
    "Role",
    "Signer",
    "keyring",
    "read_access_untrusted",
    "read_certificate_untrusted",
]
