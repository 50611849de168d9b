"""Other servers as the data plane knows them: keys, datagram sessions, and messages that wait for one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from bridge.authority import Bind, decode_message_untrusted
from bridge.errors import InvalidStateError
from bridge.jose import Jwk
from bridge.replication import Payloads
from bridge.sim.dataplane.distinct import Distinct
from bridge.sim.dataplane.messages import Credited

MAX_WAITING: Final = 1_024
"""messages kept for a server that cannot be reached"""


class Link(Protocol):
    """A datagram session with one server."""

    @property
    def is_signed(self) -> bool:
        """Whether states are signed, so that their payloads carry a digest of the bindings, both ways."""

    @property
    def max_state_bytes(self) -> int:
        """Room of a state's payload."""

    def send_state(self, payload: Payloads, stream: int = 0) -> object:
        """Send the newest state of each stream ``stream + i``, row i; unsent older ones are dropped."""

    @property
    def reliable_end(self) -> int:
        """Where the last message sent reliably ends, in bytes."""

    @property
    def reliable_taken(self) -> int:
        """Up to where the peer has taken messages, as its credit tells."""

    def drop_states(self) -> None:
        """Forget the states that were not sealed yet."""

    def send_reliable(self, message: bytes) -> None:
        """Send a message that arrives, in order, as long as the session stands."""


@dataclass(slots=True)
class Peer:
    """A server that the homeserver knows.

    Attributes:
        server: its name.
        key: as the homeserver has it.
        thumbprint: of the key.
        session: under which it holds what it holds, as far as was told.
        link: the datagram session with it, while one stands.
        received: what it has sent.
    """

    server: str
    key: Jwk
    thumbprint: str
    session: bytes | None
    link: Link | None = None
    received: Distinct = field(default_factory=Distinct)
    _waiting: deque[bytes] = field(default_factory=deque)
    """messages for the next session; every one of them is safe to repeat"""
    _sent: Distinct = field(default_factory=Distinct)
    _watched: set[bytes] = field(default_factory=set)
    """messages whose credit is to be told"""
    _uncredited: deque[tuple[int, bytes]] = field(default_factory=deque)
    """those of them that were sent, and where they end"""

    @property
    def sent(self) -> int:
        """Distinct messages sent, or waiting to be."""
        return self._sent.count

    @property
    def waiting(self) -> int:
        """Messages that wait for a session."""
        return len(self._waiting)

    def up(self, link: Link, first: Iterable[bytes]) -> None:
        """A datagram session stands: these go first, then all that has waited."""
        self.link = link
        for message in first:
            link.send_reliable(message)
        while self._waiting:
            self._send(link, self._waiting.popleft())

    def down(self, undelivered: Sequence[bytes]) -> None:
        """The session ended; what it did not deliver goes with the next one."""
        self.link = None
        # A handle is bound anew with each session, and one of an ended act must not come back.
        again = [m for m in undelivered if not isinstance(decode_message_untrusted(m), Bind)]
        self._waiting.extendleft(reversed(again))
        # What the peer has, though its credit got lost, counts as taken.
        self._uncredited = deque((0, message) for _, message in self._uncredited if message not in again)

    def send(self, message: bytes, *, credited: bool) -> None:
        """Send a message, now or with the next session.

        Raises:
            InvalidStateError: too many wait.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise InvalidStateError(f"{MAX_WAITING} messages wait for {self.server}, which cannot be reached")
        self._sent.add(message)
        if credited:
            self._watched.add(message)
        if self.link is None:
            self._waiting.append(message)
        else:
            self._send(self.link, message)

    def _send(self, link: Link, message: bytes) -> None:
        link.send_reliable(message)
        if message in self._watched:
            self._uncredited.append((link.reliable_end, message))

    def credited(self) -> Iterator[bytes]:
        """Messages that the server has taken since this was asked last, of those whose credit is watched."""
        taken = 0 if self.link is None else self.link.reliable_taken
        while self._uncredited and self._uncredited[0][0] <= taken:
            _, message = self._uncredited.popleft()
            self._watched.discard(message)
            yield message

    def kept(self) -> int:
        """Entries of its tables."""
        return len(self._waiting) + len(self._watched) + len(self._uncredited)


class Peers:
    """All of them, by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, Peer] = {}

    def __getitem__(self, server: str) -> Peer:
        """A server.

        Raises:
            InvalidStateError: it is not known.
        """
        try:
            return self._by_name[server]
        except KeyError:
            raise InvalidStateError(f"the homeserver has not told the key of {server} yet") from None

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._by_name.values())

    def add(self, *, server: str, key: Jwk, session: bytes | None) -> bool:
        """Know a server by the key that the homeserver has for it; whether by this one before."""
        thumbprint = key.thumbprint()
        known = self._by_name.get(server)
        if known is not None and known.thumbprint == thumbprint:
            known.session = session
            return True
        self._by_name[server] = Peer(server, key, thumbprint, session)
        return False

    def remove(self, server: str) -> bool:
        """Know a server no more; whether it was known."""
        return self._by_name.pop(server, None) is not None

    def thumbprint(self, server: str) -> str:
        """Of a server's key; empty where it is not known."""
        peer = self._by_name.get(server)
        return "" if peer is None else peer.thumbprint

    def links(self) -> Iterator[Link]:
        """Sessions that stand."""
        return (peer.link for peer in self._by_name.values() if peer.link is not None)

    def drop_states(self) -> None:
        """Forget the states that were not sealed yet."""
        for link in self.links():
            link.drop_states()

    def tell_credit(self, emit: Callable[[Credited], None], now_ns: int) -> None:
        """Tell which messages were taken since this was last asked, of those whose credit is watched."""
        for peer in self._by_name.values():
            for message in peer.credited():
                emit(Credited(server=peer.server, message=message, at_ns=now_ns))
