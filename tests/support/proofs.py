"""PROOF frames by hand, from the layout in docs/protocol.md §5 alone."""

from __future__ import annotations

import struct

from bridge.udp.evidence import ProofFields

_PROOF = struct.Struct(">BHHQ16s64sB")


def encode_proof(proof: ProofFields) -> bytes:
    """Bytes of a PROOF frame."""
    size, leaf, sealed_at_ms, salt, signature, path = proof
    return _PROOF.pack(0x0B, size, leaf, sealed_at_ms, salt, signature, len(path) // 32) + path
