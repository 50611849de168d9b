"""Datagrams in flight: what each carried, which arrived, which are lost, and how much may be out.

Loss is found as in RFC 9002: by a later datagram's acknowledgement and a reordering time, else by a probe
timer. The congestion window (slow start, then additive increase, halved once per round trip of loss)
holds back reliable bytes only: state is paced by the simulation's tick and worthless when late.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from bridge.udp.rtt import RttEstimator
from bridge.udp.wire import MAX_DATAGRAM_BYTES

REORDER_THRESHOLD: Final = 3
"""Datagrams: so many later ones acknowledged make an older one suspect."""
INITIAL_WINDOW_BYTES: Final = 16 * MAX_DATAGRAM_BYTES
MINIMUM_WINDOW_BYTES: Final = 2 * MAX_DATAGRAM_BYTES
MAXIMUM_WINDOW_BYTES: Final = 4 << 20
MAX_TRACKED: Final = 4096
"""Datagrams awaiting acknowledgement; beyond it the oldest count as lost."""


class SentDatagram(NamedTuple):
    """An acknowledgement-eliciting datagram in flight."""

    sent_at: float
    size: int
    run: tuple[int, int] | None
    """Reliable bytes it carried, start and end offset."""
    states: tuple[tuple[int, int], ...]
    """States it carried, (stream, number)."""


class SentLedger:
    """Datagrams of one session that were sent and not yet accounted for."""

    __slots__ = (
        "_in_flight",
        "_recovery_until",
        "_rtt",
        "_threshold",
        "_window",
        "largest_acknowledged",
        "lost",
        "reliable_bytes",
    )

    def __init__(self, rtt: RttEstimator) -> None:
        self._rtt = rtt
        self._in_flight: dict[int, SentDatagram] = {}
        self._window = float(INITIAL_WINDOW_BYTES)
        self._threshold = float(MAXIMUM_WINDOW_BYTES)
        self._recovery_until = -1
        self.largest_acknowledged = -1
        self.reliable_bytes = 0
        """Size of the datagrams in flight that carry reliable bytes."""
        self.lost = 0
        """Datagrams counted as lost."""

    def __len__(self) -> int:
        return len(self._in_flight)

    @property
    def window_bytes(self) -> int:
        """Reliable bytes that may be out at once."""
        return int(self._window)

    def record(self, sequence: int, datagram: SentDatagram) -> SentDatagram | None:
        """Remember a datagram just sealed.

        Returns:
            One that is given up as lost to make room.
        """
        self._in_flight[sequence] = datagram
        if datagram.run is not None:
            self.reliable_bytes += datagram.size
        if len(self._in_flight) <= MAX_TRACKED:
            return None
        self.lost += 1
        return self._forget(next(iter(self._in_flight)))

    def _forget(self, sequence: int) -> SentDatagram:
        datagram = self._in_flight.pop(sequence)
        if datagram.run is not None:
            self.reliable_bytes -= datagram.size
        return datagram

    def acknowledge(
        self, largest: int, bits: int, *, now: float
    ) -> tuple[list[SentDatagram], list[SentDatagram]]:
        """Apply an ACK frame: ``(arrived, lost)``, each oldest first."""
        self.largest_acknowledged = max(self.largest_acknowledged, largest)
        suspect_below = self.largest_acknowledged - REORDER_THRESHOLD
        sent_before = now - self._rtt.reorder_time()
        arrived: list[SentDatagram] = []
        lost: list[SentDatagram] = []
        accounted: list[int] = []
        for sequence, datagram in self._in_flight.items():
            if sequence > self.largest_acknowledged:
                break
            behind = largest - sequence
            if behind == 0 or (behind > 0 and bits >> (behind - 1) & 1):
                arrived.append(datagram)
                accounted.append(sequence)
                if datagram.run is not None and sequence > self._recovery_until:
                    self._grow(datagram.size)
            elif sequence <= suspect_below and datagram.sent_at <= sent_before:
                lost.append(datagram)
                accounted.append(sequence)
                if datagram.run is not None and sequence > self._recovery_until:
                    self._shrink()
        for sequence in accounted:
            self._forget(sequence)
        self.lost += len(lost)
        return arrived, lost

    def _grow(self, size: int) -> None:
        step = size if self._window < self._threshold else MAX_DATAGRAM_BYTES * size / self._window
        self._window = min(self._window + step, MAXIMUM_WINDOW_BYTES)

    def _shrink(self) -> None:
        self._window = self._threshold = max(self._window / 2, MINIMUM_WINDOW_BYTES)
        self._recovery_until = next(reversed(self._in_flight))

    def give_up_oldest(self, count: int) -> list[SentDatagram]:
        """The probe timer fired: the oldest datagrams that carried reliable bytes count as lost."""
        sequences = [sequence for sequence, datagram in self._in_flight.items() if datagram.run is not None][
            :count
        ]
        self.lost += len(sequences)
        return [self._forget(sequence) for sequence in sequences]

    def collapse_window(self) -> None:
        """Several probes in a row went unanswered: start over gently."""
        self._threshold = max(self._window / 2, MINIMUM_WINDOW_BYTES)
        self._window = float(MINIMUM_WINDOW_BYTES)
