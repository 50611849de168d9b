"""Key schedule of a session and the AEAD of one direction.

HKDF-SHA256 (RFC 5869) over the agreement of both ephemeral keys, salted with the hash of the transcript;
AES-128-GCM with the nonce of TLS 1.3 (RFC 8446, section 5.3): the static IV xor the 64-bit sequence.
Source of the labels: docs/protocol.md §5.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bridge.errors import BoxError

_KEY_BYTES: Final = 16
_IV_BYTES: Final = 12
_LABEL: Final = b"khepri-bridge udp v2 "


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectionKeys:
    """Key (16 bytes) and static IV (12 bytes) of one direction and key phase."""

    key: bytes
    iv: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionKeys:
    """Keys of both directions, phase 0."""

    initiator: DirectionKeys
    responder: DirectionKeys


def transcript_hash(init_box: bytes, reply_box: bytes) -> bytes:
    """Hash of both boxes as they crossed: 32 bytes that only this handshake has."""
    digest = hashlib.sha256(_LABEL + b"transcript")
    for box in (init_box, reply_box):
        digest.update(len(box).to_bytes(2, "big"))
        digest.update(box)
    return digest.digest()


def derive_session_keys(*, shared_secret: bytes, transcript: bytes) -> SessionKeys:
    """Keys of phase 0.

    Args:
        shared_secret: x-coordinate of the ECDH of both boxes' ephemeral P-256 keys, 32 bytes.
        transcript: from :func:`transcript_hash`.
    """
    root = hmac.digest(transcript, shared_secret, "sha256")
    return SessionKeys(
        initiator=_direction_keys(_expand(root, b"initiator secret 0", 32)),
        responder=_direction_keys(_expand(root, b"responder secret 0", 32)),
    )


def _direction_keys(secret: bytes) -> DirectionKeys:
    return DirectionKeys(key=_expand(secret, b"key", _KEY_BYTES), iv=_expand(secret, b"iv", _IV_BYTES))


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    # One block of HKDF-Expand: nothing here asks for more than the 32 bytes of SHA-256.
    return hmac.digest(secret, _LABEL + label + b"\x01", "sha256")[:length]


class Aead:
    """Seals or opens the datagrams of one direction."""

    __slots__ = ("_cipher", "_iv")

    def __init__(self, keys: DirectionKeys) -> None:
        self._cipher = AESGCM(keys.key)
        self._iv = int.from_bytes(keys.iv, "big")

    def seal(self, sequence: int, plaintext: bytes, header: bytes) -> bytes:
        """Ciphertext and 16-byte tag. The caller never uses a sequence twice."""
        return self._cipher.encrypt((self._iv ^ sequence).to_bytes(12, "big"), plaintext, header)

    def open(self, sequence: int, ciphertext: bytes | memoryview, header: bytes | memoryview) -> bytes:
        """The plaintext.

        Raises:
            BoxError: the tag does not hold.
        """
        try:
            return self._cipher.decrypt((self._iv ^ sequence).to_bytes(12, "big"), ciphertext, header)
        except InvalidTag:
            raise BoxError("datagram is not authentic") from None
