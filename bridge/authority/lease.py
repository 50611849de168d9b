"""How long a session may act: its lease, counted at the holder (``docs/leases.md``). Pure.

The lessor never ends a session before a whole lease, and a margin for clocks that differ, has passed since it
collected the last renewal that it acknowledged. So a lease that counts from *before* that renewal was sent is
over at the holder first, however long renewal and acknowledgement took.
"""

from __future__ import annotations

from typing import Final

from bridge.errors import ConfigurationError

RENEWALS_PER_LEASE: Final = 6
"""five of them may be lost, or wait for an election, before a holder pauses"""


class Lease:
    """The lease of one session.

    Times are nanoseconds of a clock that also counts while the machine is suspended (``CLOCK_BOOTTIME``).

    Args:
        session: 16 bytes.
        lease_ns: L, as the homeserver told it.
        margin_ns: how long before its end the holder stops: the age of an echo that receivers still take, so
            that what was sealed in the last moment counts nowhere after the end.

    Raises:
        ConfigurationError: nothing is left of the lease before its margin.
    """

    def __init__(self, session: bytes, lease_ns: int, *, margin_ns: int) -> None:
        if not 0 <= margin_ns < lease_ns:
            raise ConfigurationError(
                f"a lease of {lease_ns / 1e6:g} ms is not longer than its margin of {margin_ns / 1e6:g} ms: "
                "start the homeservers with a longer one (KB_LEASE_MS)"
            )
        self.session = session
        self.lease_ns = lease_ns
        self._margin_ns = margin_ns
        self._number = 0
        self._sent_ns: dict[int, int] = {}
        self._acts_until_ns = 0
        self._lost = False

    @property
    def acts_until_ns(self) -> int:
        """Until when the holder may act; 0 before the first acknowledgement and once the session is lost."""
        return 0 if self._lost else self._acts_until_ns

    @property
    def interval_ns(self) -> int:
        """From one renewal to the next."""
        return self.lease_ns // RENEWALS_PER_LEASE

    def renewal(self, now_ns: int) -> int:
        """Number of the renewal that is sent next, once: the lease that it brings counts from now."""
        self._number += 1
        self._sent_ns[self._number] = now_ns
        # What could not lengthen the lease any more is forgotten, so that silence costs no memory.
        while (oldest := next(iter(self._sent_ns))) and self._end(oldest) <= now_ns:
            del self._sent_ns[oldest]
        return self._number

    def acknowledged(self, number: int) -> bool:
        """The lessor took a renewal, and with it all earlier ones; whether that was news.

        An acknowledgement that comes again, or so late that its lease is over, changes nothing.
        """
        if self._lost or number not in self._sent_ns:
            return False
        self._acts_until_ns = max(self._acts_until_ns, self._end(number))
        for earlier in [sent for sent in self._sent_ns if sent <= number]:
            del self._sent_ns[earlier]
        return True

    def lose(self) -> None:
        """The session is no more: nothing brings its lease back."""
        self._lost = True

    def is_over(self, now_ns: int) -> bool:
        """Whether the holder must not act."""
        return now_ns >= self.acts_until_ns

    def _end(self, number: int) -> int:
        return self._sent_ns[number] + self.lease_ns - self._margin_ns
