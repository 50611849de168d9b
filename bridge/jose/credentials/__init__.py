"""What an instance signs: certificates, tokens, tickets, grants. Formats: ``docs/protocol.md`` §10."""

from bridge.jose.credentials.access import AccessToken, read_access_untrusted
from bridge.jose.credentials.certificate import Certificate, read_certificate_untrusted
from bridge.jose.credentials.desk import Admitted, Awaited, TicketDesk
from bridge.jose.credentials.enrolment import Enrolment, read_enrolment_untrusted
from bridge.jose.credentials.grant import GrantToken, read_grant_untrusted
from bridge.jose.credentials.names import MAX_NAME_BYTES, NAME_PATTERN, name_fault
from bridge.jose.credentials.peer import PeerToken, read_peer_untrusted
from bridge.jose.credentials.proof import Proof, read_proof_untrusted
from bridge.jose.credentials.reading import read_untrusted
from bridge.jose.credentials.role import Role
from bridge.jose.credentials.seal import Seal, read_seal_untrusted
from bridge.jose.credentials.session_ticket import (
    SessionTicket,
    check_standing,
    read_session_ticket_untrusted,
)
from bridge.jose.credentials.signer import Signer
from bridge.jose.credentials.ticket import Ticket
from bridge.jose.credentials.token import Keyring, keyring

__all__ = [
    "MAX_NAME_BYTES",
    "NAME_PATTERN",
    "AccessToken",
    "Admitted",
    "Awaited",
    "Certificate",
    "Enrolment",
    "GrantToken",
    "Keyring",
    "PeerToken",
    "Proof",
    "Role",
    "Seal",
    "SessionTicket",
    "Signer",
    "Ticket",
    "TicketDesk",
    "check_standing",
    "keyring",
    "name_fault",
    "read_access_untrusted",
    "read_certificate_untrusted",
    "read_enrolment_untrusted",
    "read_grant_untrusted",
    "read_peer_untrusted",
    "read_proof_untrusted",
    "read_seal_untrusted",
    "read_session_ticket_untrusted",
    "read_untrusted",
]
