"""Key schedule of a session, the AEAD of one direction, and the key phases both directions go through.

HKDF-SHA256 (RFC 5869) over the agreement of both ephemeral keys, salted with the hash of the transcript;
AES-128-GCM with the nonce of TLS 1.3 (RFC 8446, section 5.3): the static IV xor the 64-bit sequence.
Phases are those of QUIC (RFC 9001, section 6): each secret gives the next one and is forgotten, so that
who takes a machine learns nothing of phases past. Source of labels and rules: docs/protocol.md §5.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import repeat
from typing import Final

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bridge.errors import BoxError
from bridge.udp.wire import (
    DATA,
)
from bridge.udp.workspace import row_bytes

_SECRET_BYTES: Final = 32
_KEY_BYTES: Final = 16
_IV_BYTES: Final = 12
_LABEL: Final = b"khepri-bridge udp v2 "
_NONCE: Final = np.dtype([("head", ">u4"), ("tail", ">u8")])


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectionKeys:
    """Secret (32 bytes), key (16 bytes) and static IV (12 bytes) of one direction and key phase."""

    secret: bytes = field(repr=False)
    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)

    def next_phase(self) -> DirectionKeys:
        """The keys after these, from which these cannot be found."""
        return _direction_keys(_expand(self.secret, b"next secret", _SECRET_BYTES))


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
        initiator=_direction_keys(_expand(root, b"initiator secret 0", _SECRET_BYTES)),
        responder=_direction_keys(_expand(root, b"responder secret 0", _SECRET_BYTES)),
    )


def _direction_keys(secret: bytes) -> DirectionKeys:
    return DirectionKeys(
        secret=secret, key=_expand(secret, b"key", _KEY_BYTES), iv=_expand(secret, b"iv", _IV_BYTES)
    )


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    # One block of HKDF-Expand: nothing here asks for more than the 32 bytes of SHA-256.
    return hmac.digest(secret, _LABEL + label + b"\x01", "sha256")[:length]


def seal_by_copy(
    cipher: AESGCM, nonce: bytes, plaintext: memoryview, header: memoryview, sealed: memoryview
) -> None:
    """``AESGCM.encrypt_into`` for a cryptography older than 47, as Debian 13 has it."""
    sealed[:] = cipher.encrypt(nonce, plaintext, header)


def open_by_copy(
    cipher: AESGCM, nonce: bytes, sealed: memoryview, header: memoryview, plaintext: memoryview
) -> None:
    """``AESGCM.decrypt_into`` likewise."""
    plaintext[:] = cipher.decrypt(nonce, sealed, header)


_SEAL_INTO: Final[Callable[..., None]] = getattr(AESGCM, "encrypt_into", seal_by_copy)
_OPEN_INTO: Final = getattr(AESGCM, "decrypt_into", open_by_copy)


class Aead:
    """Seals or opens the datagrams of one direction.

    Attributes:
        cipher: without the nonces that make it safe: see :func:`seal_each`.
        iv: the static IV as two numbers, its first 4 bytes and the other 8.
    """

    __slots__ = ("_iv", "_iv_head", "_iv_tail", "cipher", "iv")

    def __init__(self, keys: DirectionKeys) -> None:
        self.cipher = AESGCM(keys.key)
        self._iv = int.from_bytes(keys.iv, "big")
        self._iv_head = np.frombuffer(keys.iv[:4], dtype=np.uint8)
        self.iv = int.from_bytes(keys.iv[:4], "big"), int.from_bytes(keys.iv[4:], "big")
        self._iv_tail = np.uint64(self.iv[1])

    def seal(self, sequence: int, plaintext: bytes, header: bytes) -> bytes:
        """Ciphertext and 16-byte tag. The caller never uses a sequence twice."""
        return self.cipher.encrypt((self._iv ^ sequence).to_bytes(_IV_BYTES, "big"), plaintext, header)

    def open(self, sequence: int, ciphertext: bytes | memoryview, header: bytes | memoryview) -> bytes:
        """The plaintext.

        Raises:
            BoxError: the tag does not hold.
        """
        try:
            return self.cipher.decrypt((self._iv ^ sequence).to_bytes(_IV_BYTES, "big"), ciphertext, header)
        except InvalidTag:
            raise BoxError("datagram is not authentic") from None

    def seal_run(
        self,
        sequences: npt.NDArray[np.uint64],
        plaintexts: Iterable[memoryview],
        headers: Iterable[memoryview],
        sealed: Iterable[memoryview],
    ) -> None:
        """Seal many datagrams of one size into memory that is there already.

        Args:
            sequences: shape (n,), none of them ever used before.
            plaintexts: at least n views.
            headers: at least n, the associated data.
            sealed: at least n writable views, each 16 bytes longer than its plaintext.
        """
        nonces = self._nonces(sequences)
        # A deque without room runs the loop in C and keeps nothing.
        deque(map(_SEAL_INTO, repeat(self.cipher), nonces, plaintexts, headers, sealed), maxlen=0)

    def open_run(
        self,
        sequences: npt.NDArray[np.uint64],
        sealed: Iterable[memoryview],
        headers: Iterable[memoryview],
        plaintexts: Iterable[memoryview],
    ) -> None:
        """Inverse of :meth:`seal_run`.

        Raises:
            BoxError: one of the tags does not hold; which of them, :meth:`open` tells.
        """
        nonces = self._nonces(sequences)
        try:
            deque(map(_OPEN_INTO, repeat(self.cipher), nonces, sealed, headers, plaintexts), maxlen=0)
        except InvalidTag:
            raise BoxError("a datagram of a run is not authentic") from None

    def _nonces(self, sequences: npt.NDArray[np.uint64]) -> list[bytes]:
        nonces = np.empty((len(sequences), _IV_BYTES), dtype=np.uint8)
        nonces[:, :4] = self._iv_head
        nonces[:, 4:] = (sequences ^ self._iv_tail).astype(">u8").view(np.uint8).reshape(-1, 8)
        return row_bytes(nonces)


def nonces_of(
    heads: npt.NDArray[np.uint32], tails: npt.NDArray[np.uint64], sequences: npt.NDArray[np.int64]
) -> list[bytes]:
    """The nonces of datagrams that each have keys of their own.

    Args:
        heads: the first part of each :attr:`Aead.iv`, shape (n,); ``tails`` the other.
    """
    nonces = np.empty(len(sequences), dtype=_NONCE)
    nonces["head"] = heads
    nonces["tail"] = sequences.astype(np.uint64) ^ tails
    return row_bytes(nonces.view(np.uint8).reshape(-1, _IV_BYTES))


def seal_each(
    ciphers: Iterable[AESGCM | None],
    nonces: Iterable[bytes],
    plaintexts: Iterable[memoryview],
    headers: Iterable[memoryview],
    sealed: Iterable[memoryview],
) -> None:
    """:meth:`Aead.seal_run` for datagrams that each have keys of their own.

    Args:
        ciphers: n, of :attr:`Aead.cipher`.
        nonces: n, from :func:`nonces_of`.
    """
    deque(map(_SEAL_INTO, ciphers, nonces, plaintexts, headers, sealed), maxlen=0)


class SealingPhases:
    """The keys this side seals with, and when it moves on to the next.

    Before sealing the owner calls :meth:`prepare`, then seals with ``aead`` under ``first_byte``.
    """

    __slots__ = (
        "_after_datagrams",
        "_after_seconds",
        "_is_proven",
        "_keys",
        "aead",
        "due_at",
        "due_from",
        "first_byte",
        "first_sequence",
        "phase",
    )

    def __init__(
        self, keys: DirectionKeys, *, after_datagrams: int, after_seconds: float, now: float
    ) -> None:
        """Begin with phase 0.

        Args:
            after_datagrams: sealed in one phase, and
            after_seconds: since it began: whichever comes first ends it.
        """
        self._keys = keys
        self._after_datagrams = after_datagrams
        self._after_seconds = after_seconds
        self._is_proven = False
        self.aead = Aead(keys)
        self.first_byte = DATA
        """First byte of a datagram sealed now."""
        self.phase = 0
        self.first_sequence = 0
        """The first sequence of this phase."""
        self.due_from = after_datagrams
        """The first sequence that is better sealed in another phase,"""
        self.due_at = now + after_seconds
        """and the moment from which on any is. Before both, :meth:`prepare` does nothing unless the peer has
        moved on."""

    def prepare(self, next_sequence: int, *, follow: int, now: float) -> bool:
        """Move on if it is time to, or if the peer has.

        A phase of our own making waits until the peer has shown that it opened the one before: then it is
        never more than one phase away and needs no more than one key to try.

        Args:
            next_sequence: of the datagram to be sealed next.
            follow: the phase the peer seals in.

        Returns:
            Whether it did.
        """
        is_due = self._is_proven and (next_sequence >= self.due_from or now >= self.due_at)
        if follow <= self.phase and not is_due:
            return False
        self._keys = self._keys.next_phase()
        self.aead = Aead(self._keys)
        self.phase += 1
        self.first_byte = DATA | self.phase & 1
        self.first_sequence = next_sequence
        self.due_from = next_sequence + self._after_datagrams
        self.due_at = now + self._after_seconds
        self._is_proven = False
        return True

    def acknowledge(self, largest: int) -> None:
        """The peer has opened the datagram with this sequence, the largest of an ACK."""
        if largest >= self.first_sequence:
            self._is_proven = True

    def room(self, next_sequence: int, limit: int) -> int:
        """How many datagrams more this phase may seal where one key may seal ``limit``."""
        return limit - (next_sequence - self.first_sequence)


class OpeningPhases:
    """The keys this side opens with: the present ones, the ones before for a while, the next ones to try.

    On the data path the owner compares the first byte with ``first_byte`` and opens with ``aead``; only for
    another one does it call :meth:`open_other`.
    """

    __slots__ = (
        "_first_sequence",
        "_keys",
        "_next",
        "_next_keys",
        "_previous",
        "_previous_until",
        "aead",
        "first_byte",
        "phase",
    )

    def __init__(self, keys: DirectionKeys) -> None:
        self._keys = keys
        self._first_sequence = 0  # that with which this phase was found: all of the phase before are below
        self._previous: Aead | None = None
        self._previous_until = 0.0
        self._next: Aead | None = None
        self._next_keys: DirectionKeys | None = None
        self.aead = Aead(keys)
        self.first_byte = DATA
        """First byte of a datagram that ``aead`` opens."""
        self.phase = 0

    def open_other(
        self,
        sequence: int,
        ciphertext: bytes | memoryview,
        header: bytes | memoryview,
        *,
        sealing_phase: int,
        now: float,
        keep: float,
    ) -> bytes:
        """Open a datagram with the other key phase bit; if the next keys do, they become the present ones.

        Args:
            sealing_phase: the phase this side seals in. An honest peer is never two ahead of it.
            keep: seconds for which the present keys are kept should they become those before.

        Raises:
            BoxError: not authentic, or of a phase whose keys are gone or cannot have been reached.
        """
        if sequence < self._first_sequence:
            if self._previous is None or now >= self._previous_until:
                self._previous = None
                raise BoxError("datagram of a key phase that is over")
            return self._previous.open(sequence, ciphertext, header)
        if self.phase > sealing_phase:
            raise BoxError("datagram of a key phase that cannot have been reached")
        if self._next is None or self._next_keys is None:
            # Kept: whoever forges this bit makes us derive keys once, not once a datagram.
            self._next_keys = self._keys.next_phase()
            self._next = Aead(self._next_keys)
        plaintext = self._next.open(sequence, ciphertext, header)
        self._previous, self._previous_until = self.aead, now + keep
        self.aead, self._keys = self._next, self._next_keys
        self._next = self._next_keys = None
        self.phase += 1
        self.first_byte = DATA | self.phase & 1
        self._first_sequence = sequence
        return plaintext

    def forget_previous(self, *, now: float) -> None:
        """Drop the keys of the phase before once their time is over."""
        if now >= self._previous_until:
            self._previous = None
