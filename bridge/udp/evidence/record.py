"""Evidence: one datagram as a receiver keeps it, to show to others who sent what to whom.

The file is one JSON object, canonical (members sorted, no white space), with exactly the members of
docs/protocol.md §5, "Evidence files". It is nothing but what the sender signed and where it belongs; whoever
reads it takes the sender's key from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bridge.errors import DecodeError, KeyFormatError, SignatureError
from bridge.jose import Jwk
from bridge.jose.encoding import (
    base64url_decode_untrusted,
    base64url_encode,
    json_encode,
    json_object_untrusted,
)
from bridge.udp.evidence.proof import ProofFields, parse_proof_untrusted
from bridge.udp.evidence.tree import Matrix
from bridge.udp.evidence.verifier import verify_datagram
from bridge.udp.frames import (
    MAX_PROOF_BYTES,
)
from bridge.udp.wire import (
    MAX_PLAINTEXT_BYTES,
)

MAX_EVIDENCE_BYTES: Final = 256 << 10
"""Of a file: a datagram with its proof takes 2 KiB, as many bindings as there may be 170."""
MAX_BINDINGS: Final = 256
"""More handles than a payload has room for."""
MAX_NAME_BYTES: Final = 255
"""Of an entity, and of a session of the sender's."""
EVIDENCE_VERSION: Final = 1

_MEMBERS: Final = frozenset({"evidence", "plaintext", "proof", "recipient", "sender", "sequence", "session"})
_BINDING_MEMBERS: Final = frozenset({"entity", "epoch", "handle", "session"})
_MAX_U16: Final = 0xFFFF
_MAX_U64: Final = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True, kw_only=True, slots=True)
class HandleBinding:
    """What a handle in a state stands for, as the sender told by ``bind`` (docs/protocol.md §7).

    Attributes:
        handle: 16 bits.
        epoch: all 64 bits.
        session: the sender's session with its homeserver, to which the entity was granted.
    """

    handle: int
    entity: str
    epoch: int
    session: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """One datagram of a signed session.

    Attributes:
        sender: the public key that the receiver knew the sender by.
        recipient: thumbprint of the receiver's key, 32 bytes.
        session_id: 16 bytes.
        sequence: of the datagram, 64 bits.
        plaintext: of the datagram, up to its PROOF frame.
        proof: that frame.
        bindings: of the handles in it, where the receiver added them. They are not checked here: that takes
            their digest, which is in the states.
    """

    sender: Jwk
    recipient: bytes
    session_id: bytes
    sequence: int
    plaintext: bytes
    proof: bytes
    bindings: tuple[HandleBinding, ...] = ()

    def check(self, sender: Jwk) -> ProofFields:
        """Check that ``sender`` signed this; which key is the sender's is for the caller to know.

        Returns:
            The proof, for its claims: tree size and moment.

        Raises:
            SignatureError: it did not, or the evidence is about somebody else.
        """
        if self.sender.thumbprint_bytes() != sender.thumbprint_bytes():
            raise SignatureError(
                f"the evidence is about {self.sender.thumbprint()}, the key is {sender.thumbprint()}"
            )
        verify_datagram(
            sender=sender,
            recipient=self.recipient,
            session_id=self.session_id,
            sequence=self.sequence,
            plaintext=self.plaintext,
            proof=self.proof,
        )
        return parse_proof_untrusted(self.proof)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EvidenceRun:
    """Evidence of n datagrams of one session and size, as it is kept until somebody asks.

    Attributes:
        sender: the public key that the receiver knew the sender by.
        recipient: thumbprint of the receiver's key, 32 bytes.
        session_id: 16 bytes.
        sequences: shape (n,).
        plaintexts: shape (n, size), whole: their PROOF frames reach to the end.
        proof_at: offset of the PROOF frames.
    """

    sender: Jwk
    recipient: bytes
    session_id: bytes
    sequences: npt.NDArray[np.uint64]
    plaintexts: Matrix
    proof_at: int

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, row: int) -> Evidence:
        """Evidence of one of them."""
        plaintext = self.plaintexts[row].tobytes()
        return Evidence(
            sender=self.sender,
            recipient=self.recipient,
            session_id=self.session_id,
            sequence=int(self.sequences[row]),
            plaintext=plaintext[: self.proof_at],
            proof=plaintext[self.proof_at :],
        )

    def only(self, rows: npt.NDArray[np.bool_]) -> EvidenceRun:
        """Evidence of some of them, shape (n,)."""
        return replace(self, sequences=self.sequences[rows], plaintexts=self.plaintexts[rows])


def evidence_to_json(evidence: Evidence) -> bytes:
    """The file."""
    members: dict[str, Any] = {
        "evidence": EVIDENCE_VERSION,
        "plaintext": base64url_encode(evidence.plaintext),
        "proof": base64url_encode(evidence.proof),
        "recipient": base64url_encode(evidence.recipient),
        "sender": evidence.sender.public().to_dict(),
        "sequence": evidence.sequence,
        "session": base64url_encode(evidence.session_id),
    }
    if evidence.bindings:
        members["bindings"] = [
            {
                "entity": one.entity,
                "epoch": one.epoch,
                "handle": one.handle,
                "session": base64url_encode(one.session),
            }
            for one in evidence.bindings
        ]
    return json_encode(members)


def parse_evidence_untrusted(raw: bytes) -> Evidence:
    """Read a file. What it says is not checked: see :meth:`Evidence.check`.

    Raises:
        DecodeError: anything but one canonical JSON object of exactly these members, or one too long.
    """
    if len(raw) > MAX_EVIDENCE_BYTES:
        raise DecodeError(f"evidence longer than {MAX_EVIDENCE_BYTES} bytes")
    try:
        members = json_object_untrusted(raw)
        if members.keys() - {"bindings"} != _MEMBERS:
            raise ValueError("it has exactly the members " + ", ".join(sorted(_MEMBERS)))
        if _number(members, "evidence", _MAX_U16) != EVIDENCE_VERSION:
            raise ValueError(f"it is not of version {EVIDENCE_VERSION}")
        if not isinstance(members["sender"], Mapping):
            raise ValueError("member 'sender' is no key")
        sender = Jwk.from_dict(members["sender"])
        if sender.curve != "P-256" or sender.is_private:
            raise ValueError("member 'sender' is not a public key on P-256")
        evidence = Evidence(
            sender=sender,
            recipient=_bytes(members, "recipient", 32, 32),
            session_id=_bytes(members, "session", 16, 16),
            sequence=_number(members, "sequence", _MAX_U64),
            plaintext=_bytes(members, "plaintext", 0, MAX_PLAINTEXT_BYTES),
            proof=_bytes(members, "proof", 1, MAX_PROOF_BYTES),
            bindings=_bindings(members["bindings"]) if "bindings" in members else (),
        )
        parse_proof_untrusted(evidence.proof)
        if evidence_to_json(evidence) != raw:
            raise ValueError("it is not canonical JSON")
    except (ValueError, KeyFormatError, DecodeError) as error:
        raise DecodeError(f"no evidence of a datagram: {error}") from error
    return evidence


def _bindings(value: object) -> tuple[HandleBinding, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_BINDINGS:
        raise ValueError(f"member 'bindings' is no list of 1 to {MAX_BINDINGS}")
    bindings = []
    for members in value:
        if not isinstance(members, dict) or members.keys() != _BINDING_MEMBERS:
            raise ValueError("a binding has exactly the members " + ", ".join(sorted(_BINDING_MEMBERS)))
        entity = members["entity"]
        if not isinstance(entity, str) or not 1 <= len(entity.encode()) <= MAX_NAME_BYTES:
            raise ValueError(f"member 'entity' is no text of 1 to {MAX_NAME_BYTES} bytes")
        bindings.append(
            HandleBinding(
                handle=_number(members, "handle", _MAX_U16),
                entity=entity,
                epoch=_number(members, "epoch", _MAX_U64),
                session=_bytes(members, "session", 0, MAX_NAME_BYTES),
            )
        )
    return tuple(bindings)


def _bytes(members: Mapping[str, Any], name: str, least: int, most: int) -> bytes:
    value = members[name]
    if not isinstance(value, str):
        raise ValueError(f"member {name!r} is no text")
    raw = base64url_decode_untrusted(value)
    if not least <= len(raw) <= most:
        raise ValueError(f"member {name!r} has {len(raw)} bytes, not {least} to {most}")
    return raw


def _number(members: Mapping[str, Any], name: str, most: int) -> int:
    value = members[name]
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"member {name!r} is no number from 0 to {most}")
    return value
