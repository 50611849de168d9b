"""Signed mode: datagrams that prove to anybody who sent them, at the cost of one signature for a tick."""

from bridge.udp.evidence.proof import ProofFields
from bridge.udp.evidence.record import (
    MAX_EVIDENCE_BYTES,
    Evidence,
    EvidenceRun,
    HandleBinding,
    evidence_to_json,
    parse_evidence_untrusted,
)
from bridge.udp.evidence.signer import TickSigner, Unsigned
from bridge.udp.evidence.verifier import ProofVerifier, verify_datagram

__all__ = [
    "MAX_EVIDENCE_BYTES",
    "Evidence",
    "EvidenceRun",
    "HandleBinding",
    "ProofFields",
    "ProofVerifier",
    "TickSigner",
    "Unsigned",
    "evidence_to_json",
    "parse_evidence_untrusted",
    "verify_datagram",
]
