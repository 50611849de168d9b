"""Whose handshake is worth a signature check: cookies under load, buckets, and what was seen before.

A check takes the time of a thousand sealed datagrams, and anybody can ask for one. So there are as many a
second as the configuration allows, and three groups that cannot starve each other: strangers, those with a
cookie (each host a share), and peers who answer handshakes of ours.
"""

from __future__ import annotations

from typing import Final

from bridge.jose import SignedBoxClaims
from bridge.udp.bucket import HostBuckets, TokenBucket
from bridge.udp.config import UdpConfig
from bridge.udp.cookie import CookieJar
from bridge.udp.peers import Address

_LOAD: Final = 0.5
"""Share of a limit on handshakes beyond which strangers have to come again with a cookie."""
_HOST_SHARE: Final = 8
"""Hosts that it takes to use up the handshakes meant for those with a cookie."""
_MAX_REMEMBERED: Final = 16_384
"""Replay keys of handshakes: what ``handshakes_per_second`` lets through while a box lives, and some."""
_MAX_OF_PEER: Final = 512
"""Replay keys of one peer: who begins again and again must not use up what is for all."""
_PRUNED_EVERY_MS: Final = 1000
"""Unix ms between two looks for replay keys that are too old."""
_CLOCK_SKEW_MS: Final = 30_000


class Admission:
    """What stands between a handshake's datagram and the check of its signature.

    Attributes:
        checked: signatures that may have been checked so far.
        retries: cookies handed out.
    """

    __slots__ = (
        "_config",
        "_cookies",
        "_hosts",
        "_proven",
        "_pruned_at_ms",
        "_remembered",
        "_remembered_count",
        "_replies",
        "_strangers",
        "checked",
        "retries",
    )

    def __init__(self, config: UdpConfig, *, cookie_secret: bytes) -> None:
        rate, burst = config.handshakes_per_second, config.handshake_burst
        self._config = config
        self._strangers = TokenBucket(rate=rate, burst=burst)
        self._proven = TokenBucket(rate=rate, burst=burst)
        self._hosts = HostBuckets(rate=rate / _HOST_SHARE, burst=max(1, burst // _HOST_SHARE))
        self._replies = TokenBucket(rate=rate, burst=burst)
        self._cookies = CookieJar(cookie_secret, lifetime=config.cookie_lifetime)
        # By sender, then session and sequence, to the Unix ms after which it is too old.
        self._remembered: dict[str, dict[tuple[bytes, int], int]] = {}
        self._remembered_count = 0
        self._pruned_at_ms = 0
        self.checked = 0
        self.retries = 0

    def is_proven(self, cookie: bytes, box: bytes, address: Address, *, unix_ms: int) -> bool:
        """Whether this cookie was given to this address for this box."""
        return bool(cookie) and self._cookies.accepts(cookie, box, address, unix_seconds=unix_ms // 1000)

    def bake(self, box: bytes, address: Address, *, unix_ms: int) -> bytes:
        """A cookie for a stranger."""
        self.retries += 1
        return self._cookies.bake(box, address, unix_seconds=unix_ms // 1000)

    def is_loaded(self, *, pending: int, now: float) -> bool:
        """Whether strangers have to come again with a cookie.

        Args:
            pending: handshakes under way.
        """
        return pending > _LOAD * self._config.max_pending_handshakes or self._strangers.level(now) < _LOAD

    def is_replayed(self, claims: SignedBoxClaims) -> bool:
        """Whether a handshake with these claims was let through before."""
        return (claims.session, claims.sequence) in self._remembered.get(claims.sender, ())

    def remember(self, claims: SignedBoxClaims) -> None:
        """Let no handshake with these claims through again, for as long as its box could be believed."""
        until = claims.issued_at_ms + claims.lifetime_ms + _CLOCK_SKEW_MS
        own = self._remembered.setdefault(claims.sender, {})
        before = len(own)
        own[claims.session, claims.sequence] = until
        self._remembered_count += len(own) - before

    def _can_remember(self, sender: str, *, unix_ms: int) -> bool:
        if self._has_room(sender):
            return True
        if 0 <= unix_ms - self._pruned_at_ms < _PRUNED_EVERY_MS:
            return False  # anybody can ask, and to look at all costs as much as to check a few
        self._pruned_at_ms = unix_ms
        self._remembered = {
            name: left
            for name, keys in self._remembered.items()
            if (left := {key: until for key, until in keys.items() if until >= unix_ms})
        }
        self._remembered_count = sum(map(len, self._remembered.values()))
        return self._has_room(sender)

    def _has_room(self, sender: str) -> bool:
        of_sender = len(self._remembered.get(sender, ()))
        return self._remembered_count < _MAX_REMEMBERED and of_sender < _MAX_OF_PEER

    def may_check(
        self,
        *,
        sender: str,
        proven: Address | None,
        pending: int,
        pending_of_peer: int,
        unix_ms: int,
        now: float,
    ) -> bool:
        """Whether an INIT may cost a check; if so, it has.

        Args:
            sender: the thumbprint that it names.
            proven: its source, if that was shown by a cookie.
            pending: handshakes under way.
            pending_of_peer: those of the peer it names.
        """
        config = self._config
        if pending >= config.max_pending_handshakes or pending_of_peer >= config.max_pending_per_peer:
            return False
        if not self._can_remember(sender, unix_ms=unix_ms):
            return False
        if proven is None:
            has_token = self._strangers.take(now)
        else:
            has_token = self._hosts.take(proven[0], now) and self._proven.take(now)
        self.checked += has_token
        return has_token

    def may_check_reply(self, *, now: float) -> bool:
        """Whether a REPLY may cost a check; if so, it has."""
        has_token = self._replies.take(now)
        self.checked += has_token
        return has_token
