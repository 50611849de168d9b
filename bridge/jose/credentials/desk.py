"""Where a simulation server takes tickets: offline, each once, whichever comes first, ticket or player.

A player is admitted when both are there: a ticket, and a connection whose handshake proved the ticket's key.
Nothing here asks anybody, and nothing of a player is known to the simulation before.

A used ticket is remembered until it expires. For what was forgotten, because it
expired or because there was no more room, there is a mark: no ticket is taken that ends at or before the
latest end that was forgotten. So neither a full desk nor a clock that is set back lets a ticket in twice.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Container
from dataclasses import dataclass

from bridge.errors import SignatureError
from bridge.jose.credentials.reading import read_untrusted
from bridge.jose.credentials.ticket import Ticket
from bridge.jose.credentials.token import Keyring


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A player may play: the ticket is used up.

    Attributes:
        connection: what the caller called the player's connection.
    """

    ticket: Ticket
    connection: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """The ticket is good; its player is to connect, with the ticket's key, before it expires."""

    ticket: Ticket


class TicketDesk:
    """Tickets of one run of one server.

    Args:
        server: its name.
        session: of this run, 16 bytes in base64url.
        instance: whose tickets it takes.
        keys: of that instance; set ``keys`` anew when they change.
        capacity: tickets used, tickets waiting and connections waiting, of each at most so many.
        patience: seconds that a connection may be without a ticket.

    Attributes:
        rooms: those open here; the caller keeps them.
        revoked: thumbprints of keys that are not good any more; the caller keeps them.
    """

    def __init__(
        self,
        *,
        server: str,
        session: str,
        instance: str,
        keys: Keyring,
        rooms: Collection[str],
        revoked: Container[str] = frozenset(),
        capacity: int = 16_384,
        patience: float = 10.0,
    ) -> None:
        self.keys = keys
        self.rooms = rooms
        self.revoked = revoked
        self._server = server
        self._session = session
        self._instance = instance
        self._capacity = capacity
        self._patience = patience
        self._used: set[str] = set()
        self._ends: list[tuple[int, str]] = []  # heap: end and nonce of what is used
        self._forgotten_end = 0
        self._tickets: dict[str, Ticket] = {}  # by thumbprint, of players who are to connect
        self._connections: dict[str, tuple[int, float]] = {}  # by thumbprint, and when to give up
        self._present: dict[str, int] = {}  # by thumbprint, of players who were admitted
        self._gone: list[int] = []  # connections that nobody has been told to close yet

    def present_untrusted(self, token: str, *, by: str | None = None, now: float) -> Admitted | Awaited:
        """A ticket has arrived, by whatever way.

        Args:
            by: thumbprint of the key of the connection it came over; ``None`` where it came some other way.
            now: Unix seconds.

        Returns:
            ``Admitted`` where the player is connected already, else ``Awaited``. The same ticket may arrive
            again until its player is admitted.

        Raises:
            SignatureError: the only one: the ticket is not good, or not good here, now, for this player, or
                used.
        """
        ticket = read_untrusted(Ticket, token, keys=self.keys, instance=self._instance, now=now)
        self._check_here(ticket)
        thumbprint = ticket.thumbprint
        if by is not None and by != thumbprint:
            raise SignatureError("the ticket is of another player than its bearer")
        self._forget_ended(now)
        waiting = self._connections.pop(thumbprint, None)
        connection = self._present.get(thumbprint) if waiting is None else waiting[0]
        if connection is not None:
            return self._admit(ticket, connection)
        if thumbprint not in self._tickets and len(self._tickets) >= self._capacity:
            self._sweep(now)
            if len(self._tickets) >= self._capacity:
                raise SignatureError("too many players are awaited here: come again")
        self._tickets[thumbprint] = ticket
        return Awaited(ticket=ticket)

    def connect(self, thumbprint: str, connection: int, *, now: float) -> Admitted | None:
        """A player has connected and proven a key.

        Args:
            connection: by which the caller knows it.
            now: Unix seconds.

        Returns:
            ``Admitted`` where the player's ticket is here; else it is awaited for as long as the patience
            lasts.

        Raises:
            SignatureError: too many wait, or the key was revoked: close the connection.
        """
        if thumbprint in self.revoked:
            raise SignatureError("this key was revoked")
        self._forget_ended(now)
        ticket = self._tickets.pop(thumbprint, None)
        # Both may have changed since the ticket came.
        if ticket is not None and ticket.expires_at > now and ticket.room in self.rooms:
            return self._admit(ticket, connection)
        if thumbprint in self._present:
            # The player is here and comes again, over a new connection: that needs no other ticket.
            self._present[thumbprint] = connection
            return None
        if thumbprint not in self._connections and len(self._connections) >= self._capacity:
            self._sweep(now)
            if len(self._connections) >= self._capacity:
                raise SignatureError("too many connections wait for tickets")
        self._connections[thumbprint] = (connection, now + self._patience)
        return None

    def disconnect(self, thumbprint: str, connection: int) -> None:
        """A player's connection ended; to come back takes a new ticket, unless another one is there."""
        if self._present.get(thumbprint) == connection:
            del self._present[thumbprint]
        if thumbprint in self._connections and self._connections[thumbprint][0] == connection:
            del self._connections[thumbprint]

    def is_present(self, thumbprint: str) -> bool:
        """Whether a player with that key was admitted and is connected."""
        return thumbprint in self._present

    def expire(self, now: float) -> list[int]:
        """Forget what has expired; to be called about every second.

        Returns:
            Connections to be closed: those that waited too long for a ticket, and those of revoked keys.
        """
        self._forget_ended(now)
        self._sweep(now)
        gone, self._gone = self._gone, []
        return gone

    def _sweep(self, now: float) -> None:
        for thumbprint in [key for key, ticket in self._tickets.items() if ticket.expires_at <= now]:
            del self._tickets[thumbprint]
        late = [
            (thumbprint, connection)
            for thumbprint, (connection, end) in self._connections.items()
            if end <= now or thumbprint in self.revoked
        ]
        late += [(key, connection) for key, connection in self._present.items() if key in self.revoked]
        for thumbprint, connection in late:
            self.disconnect(thumbprint, connection)
            self._gone.append(connection)

    def _check_here(self, ticket: Ticket) -> None:
        if ticket.server != self._server:
            raise SignatureError("the ticket is for another server")
        if ticket.session != self._session:
            raise SignatureError("the ticket is for another run of this server: ask for a new one")
        if ticket.room not in self.rooms:
            raise SignatureError("the ticket is for a room that is not open here")
        if ticket.thumbprint in self.revoked:
            raise SignatureError("the ticket's key was revoked")
        if ticket.nonce in self._used or ticket.expires_at <= self._forgotten_end:
            raise SignatureError("the ticket was used before")

    def _admit(self, ticket: Ticket, connection: int) -> Admitted:
        if len(self._used) >= self._capacity:
            self._forget_one()
        self._used.add(ticket.nonce)
        heapq.heappush(self._ends, (ticket.expires_at, ticket.nonce))
        self._tickets.pop(ticket.thumbprint, None)
        self._present[ticket.thumbprint] = connection
        return Admitted(ticket=ticket, connection=connection)

    def _forget_ended(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            self._forget_one()

    def _forget_one(self) -> None:
        end, nonce = heapq.heappop(self._ends)
        self._used.discard(nonce)
        self._forgotten_end = max(self._forgotten_end, end)
