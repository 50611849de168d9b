"""States from the peer: proven where the session is signed, newer than all before, kept until taken."""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

import numpy as np
import numpy.typing as npt

from bridge.udp.events import StateReceived, StatesReceived
from bridge.udp.evidence import Evidence, EvidenceRun, ProofVerifier
from bridge.udp.evidence.proof import are_proofs
from bridge.udp.frames import (
    STATE,
    STATE_HEADER,
    Frame,
    Proof,
)
from bridge.udp.latest import LatestReceiver
from bridge.udp.stamps import echo_age, oldest_echo_age
from bridge.udp.statistics import DropReason
from bridge.udp.wire import (
    PROLOGUE,
)
from bridge.udp.workspace import Matrix

_PAYLOAD_AT: Final = PROLOGUE.size + STATE_HEADER.size
"""Where the payload begins in a plaintext that holds one state and nothing else."""
_LENGTH: Final = slice(_PAYLOAD_AT - 2, _PAYLOAD_AT)
_KIND_AND_LENGTH: Final = [PROLOGUE.size, _PAYLOAD_AT - 2, _PAYLOAD_AT - 1]
_HEADS: Final = np.dtype(
    [
        ("stamp", ">u4"),
        ("echo", ">u4"),
        ("hold", ">u2"),
        ("kind", "u1"),
        ("stream", ">u2"),
        ("number", ">u4"),
        ("length", ">u2"),
    ]
)
"""The bytes before that payload."""


_new: Final = tuple.__new__
"""What the constructor of a named tuple comes down to, without the cost of calling it."""


class StateInbox:
    """States of one session.

    Attributes:
        states: as events in the order they came.
    """

    __slots__ = (
        "_drops",
        "_keep_evidence",
        "_kept",
        "_latest",
        "_max_streams",
        "_maximum",
        "_peer",
        "_session_id",
        "_verifier",
        "states",
    )

    def __init__(
        self,
        *,
        peer: str,
        session_id: bytes,
        max_streams: int,
        maximum: int,
        verifier: ProofVerifier | None,
        keep_evidence: bool,
        drops: Counter[DropReason],
    ) -> None:
        """Begin empty.

        Args:
            maximum: states that wait for the application; then the oldest are dropped.
            verifier: of the peer's proofs, in a signed session.
            keep_evidence: whether events of a signed session carry what proves them.
            drops: counts what goes no further.
        """
        self._peer = peer
        self._session_id = session_id
        self._verifier = verifier
        self._keep_evidence = keep_evidence
        self._maximum = maximum
        self._drops = drops
        self._max_streams = max_streams
        self._latest = LatestReceiver()
        self.states: deque[StateReceived | StatesReceived] = deque()
        self._kept = 0

    def state_end(self, plaintexts: Matrix) -> int | None:
        """Where the one state of every datagram ends that holds nothing else, but for a proof behind it."""
        end = width = plaintexts.shape[1]
        if width < _PAYLOAD_AT:
            return None
        if self._verifier is not None:
            end = _PAYLOAD_AT + int.from_bytes(plaintexts[0, _LENGTH].tobytes(), "big")
            if not are_proofs(plaintexts[:, end:]):
                return None
        length = end - _PAYLOAD_AT
        expected = (STATE, length >> 8, length & 0xFF)
        return end if (plaintexts[:, _KIND_AND_LENGTH] == expected).all() else None

    def accept_run(
        self, sequences: npt.NDArray[np.uint64], plaintexts: Matrix, end: int, *, now: float
    ) -> None:
        """Take the states of a run.

        Args:
            end: from :meth:`state_end`.
        """
        count = len(plaintexts)
        if self._verifier is not None:
            proven = self._verifier.verify(sequences, plaintexts, end, now=now)
            if not proven.all():
                count = int(proven.sum())
                self._drops[DropReason.UNPROVEN] += len(proven) - count
                if not count:
                    return
                sequences, plaintexts = sequences[proven], plaintexts[proven]
        heads = np.ascontiguousarray(plaintexts[:, :_PAYLOAD_AT]).view(_HEADS).ravel()
        streams = heads["stream"].astype(np.intp)
        numbers = heads["number"].astype(np.int64)
        allowed = streams < self._max_streams
        if not allowed.all():
            self._drops[DropReason.STATE_STREAMS] += count - int(allowed.sum())
            if not allowed.any():
                return
            sequences, plaintexts = sequences[allowed], plaintexts[allowed]
            streams, numbers = streams[allowed], numbers[allowed]
            count = len(streams)
        newer = self._latest.accept_run(streams, numbers)
        payloads = plaintexts[:, _PAYLOAD_AT:end]
        evidence = self._evidence(sequences, plaintexts, end)
        if not newer.all():
            self._drops[DropReason.STALE_STATE] += count - int(newer.sum())
            if not newer.any():
                return
            streams, numbers, payloads = streams[newer], numbers[newer], payloads[newer]
            evidence = None if evidence is None else evidence.only(newer)
        self._keep(
            StatesReceived(
                peer=self._peer,
                streams=streams,
                numbers=numbers,
                payloads=payloads,
                received_at=now,
                echo_age=oldest_echo_age(heads["echo"], now=now),
                evidence=evidence,
            ),
            len(streams),
        )

    def _evidence(
        self, sequences: npt.NDArray[np.uint64], plaintexts: Matrix, proof_at: int
    ) -> EvidenceRun | None:
        if self._verifier is None or not self._keep_evidence:
            return None
        return EvidenceRun(
            sender=self._verifier.sender,
            recipient=self._verifier.recipient,
            session_id=self._session_id,
            sequences=sequences,
            plaintexts=plaintexts,
            proof_at=proof_at,
        )

    def prove(
        self, sequence: int, plaintext: bytes, last: Frame, *, now: float
    ) -> tuple[bool, Evidence | None]:
        """Whether the states of a datagram may be believed, and what shows it to others.

        Args:
            last: the datagram's last frame.
        """
        if self._verifier is None:
            return True, None
        if isinstance(last, Proof):
            proof_at = len(plaintext) - len(last.body) - 1
            if self._verifier.verify_one(sequence, plaintext, proof_at, now=now):
                return True, self._evidence_of(sequence, plaintext, proof_at)
        self._drops[DropReason.UNPROVEN] += 1
        return False, None

    def _evidence_of(self, sequence: int, plaintext: bytes, proof_at: int) -> Evidence | None:
        if self._verifier is None or not self._keep_evidence:
            return None
        return Evidence(
            sender=self._verifier.sender,
            recipient=self._verifier.recipient,
            session_id=self._session_id,
            sequence=sequence,
            plaintext=plaintext[:proof_at],
            proof=plaintext[proof_at:],
        )

    def accept(
        self, stream: int, number: int, payload: bytes, echo: int, evidence: Evidence | None, *, now: float
    ) -> None:
        """Take one state.

        Args:
            echo: the time stamp of ours that its datagram gave back.
            evidence: from :meth:`prove`.
        """
        if stream >= self._max_streams:
            self._drops[DropReason.STATE_STREAMS] += 1
            return
        if not self._latest.accept(stream, number):
            self._drops[DropReason.STALE_STATE] += 1
            return
        event = (self._peer, stream, number, payload, now, echo_age(echo, now=now), evidence)
        self._keep(_new(StateReceived, event), 1)

    def _keep(self, event: StateReceived | StatesReceived, count: int) -> None:
        self.states.append(event)
        self._kept += count
        while self._kept > self._maximum and len(self.states) > 1:
            before = self._kept
            self.pop()
            self._drops[DropReason.STATE_OVERFLOW] += before - self._kept

    def pop(self) -> StateReceived | StatesReceived | None:
        """The oldest event, or ``None``."""
        if not self.states:
            return None
        event = self.states.popleft()
        self._kept -= 1 if isinstance(event, StateReceived) else len(event)
        return event
