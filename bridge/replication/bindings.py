"""What a sender's handles stand for, and a digest over it that signed payloads carry.

A record names a handle and 16 bits of an epoch; what they mean was agreed by ``bind`` on the reliable
stream. The digest puts that meaning under the signature of a payload, and a receiver that understood a
``bind`` otherwise refuses the payload.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt

from bridge.replication.records import DIGEST_BYTES, Payloads, Records

_FIRST: Final = 64
"""handles that a table has room for at first; it doubles as handles come, up to all 65,536"""


class Bindings:
    """Digest tokens of one sender's handles towards one receiver: at most 1 MiB."""

    def __init__(self) -> None:
        self._tokens = np.zeros((_FIRST, DIGEST_BYTES), dtype=np.uint8)

    def bind(self, handle: int, entity: str, epoch: int, session: bytes) -> None:
        """From now on ``handle`` is about this entity at this epoch, granted to this session of its sender.

        Args:
            handle: 0 … 65535.
            epoch: all 64 bits.
            session: 16 bytes.
        """
        while handle >= len(self._tokens):
            self._tokens = np.concatenate((self._tokens, np.zeros_like(self._tokens)))
        name = entity.encode()
        told = b"".join(
            (
                handle.to_bytes(2, "big"),
                epoch.to_bytes(8, "big"),
                len(session).to_bytes(1, "big"),
                session,
                name,
            )
        )
        self._tokens[handle] = np.frombuffer(hashlib.sha256(told).digest()[:DIGEST_BYTES], dtype=np.uint8)

    def digests(self, records: Records) -> Payloads:
        """First halves of SHA-256 over the tokens of each payload's handles, ascending, each once.

        Args:
            records: shape (k, count); the token of a handle never bound is zeros.

        Returns:
            Shape (k, 16).
        """
        digests = np.empty((len(records), DIGEST_BYTES), dtype=np.uint8)
        for row, handles in enumerate(records["handle"]):
            digests[row] = np.frombuffer(self.digest(handles), dtype=np.uint8)
        return digests

    def digest(self, handles: npt.NDArray[np.integer]) -> bytes:
        """The digest of one payload that has these handles."""
        ascending = np.unique(handles).astype(np.intp)
        known = ascending[ascending < len(self._tokens)]
        unknown = bytes(DIGEST_BYTES * (len(ascending) - len(known)))
        return hashlib.sha256(self._tokens[known].tobytes() + unknown).digest()[:DIGEST_BYTES]

    def match(self, records: Records, digests: Payloads) -> npt.NDArray[np.bool_]:
        """Which payloads mean here what they meant to their sender, shape (k,)."""
        same: npt.NDArray[np.bool_] = (self.digests(records) == digests).all(axis=1)
        return same
