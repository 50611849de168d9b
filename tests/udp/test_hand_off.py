"""Tickets over real UDP: a player's data arrives with the connection, in whatever order (R4-6, R4-7)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from bridge.errors import SignatureError
from bridge.jose import Jwk
from bridge.jose.credentials import Admitted, Awaited, TicketDesk
from bridge.udp.config import UdpConfig
from bridge.udp.engine import UdpEngine
from bridge.udp.events import MessageReceived, SessionClosed, SessionEstablished, UdpEvent
from bridge.udp.peers import Peer
from tests.support.credentials import INSTANCE, KEYS, SESSION, issued, ticket

PLAYER, SERVER = Jwk.generate(), Jwk.generate()
ROOMS = {"tavern"}
# A responder sends nothing to it: the session's address is where the player's handshake comes from.
NOWHERE = ("127.0.0.1", 9)


class Door:
    """A server's door: an engine, and a desk that asks nobody."""

    def __init__(self) -> None:
        self.desk = TicketDesk(
            server="B", session=SESSION, instance=INSTANCE, keys=KEYS, rooms=ROOMS, patience=20.0
        )
        self.admitted: list[Admitted] = []
        self.refused: list[str] = []
        self.engine: UdpEngine
        self.changed = asyncio.Event()

    def on_event(self, event: UdpEvent) -> None:
        match event:
            case SessionEstablished(peer=peer):
                self._note(self.desk.connect(peer, 1, now=time.time()))
            case MessageReceived(peer=peer, payload=payload):
                self.present(payload.decode(), by=peer)
            case SessionClosed(peer=peer):
                self.desk.disconnect(peer, 1)
            case _:
                return
        self.changed.set()

    def present(self, text: str, *, by: str | None = None) -> None:
        """A ticket has come; with it the key that the handshake must prove."""
        try:
            result = self.desk.present_untrusted(text, by=by, now=time.time())
        except SignatureError as error:
            self.refused.append(str(error))
            return
        if isinstance(result, Awaited):
            self.expect(result.ticket.key)
        self._note(result)

    def expect(self, key: Jwk) -> None:
        self.engine.add_peer(Peer(name=key.thumbprint(), public_key=key, address=NOWHERE))

    def _note(self, result: object) -> None:
        if isinstance(result, Admitted):
            self.admitted.append(result)

    async def until(self, what: str) -> None:
        async with asyncio.timeout(30):
            while not getattr(self, what):
                self.changed.clear()
                await self.changed.wait()


@contextlib.asynccontextmanager
async def open_door() -> AsyncIterator[tuple[Door, UdpEngine]]:
    door = Door()
    async with (
        UdpEngine(UdpConfig(), identity=SERVER, on_event=door.on_event) as door.engine,
        UdpEngine(UdpConfig(), identity=PLAYER) as player,
    ):
        player.add_peer(Peer(name="B", public_key=SERVER.public(), address=door.engine.local_address))
        yield door, player


def a_ticket() -> str:
    now = int(time.time())
    return issued(ticket(PLAYER, issued_at=now, expires_at=now + 60))


async def test_the_ticket_comes_first_and_lets_its_player_in() -> None:
    """R4-4, R4-6: the key of the handshake is the ticket's; the server looked nothing up."""
    async with open_door() as (door, player):
        door.present(a_ticket())
        await player.connect("B", timeout=20)
        await door.until("admitted")
        assert door.admitted[0].ticket.data["gold"] == 7


async def test_the_handshake_comes_first_and_goes_on_when_the_ticket_is_there() -> None:
    """R4-6: until then the player is a stranger, who costs nothing."""
    async with open_door() as (door, player):
        connecting = asyncio.create_task(player.connect("B", timeout=20))
        async with asyncio.timeout(20):
            while sum(door.engine.statistics().drops.values()) == 0:
                await asyncio.sleep(0.01)
        assert not connecting.done()
        door.present(a_ticket())
        await connecting
        await door.until("admitted")


async def test_the_session_comes_first_and_carries_the_ticket() -> None:
    """R4-1, R4-7: by the connection alone; of a player whose key the server had."""
    async with open_door() as (door, player):
        door.expect(PLAYER.public())
        session = await player.connect("B", timeout=20)
        text = a_ticket()
        session.send_reliable(text.encode())
        await door.until("admitted")
        session.send_reliable(text.encode())
        await door.until("refused")
        assert door.refused == ["the ticket was used before"]
        assert len(door.admitted) == 1


async def test_a_ticket_over_somebody_elses_session_admits_nobody() -> None:
    async with open_door() as (door, player):
        door.expect(PLAYER.public())
        session = await player.connect("B", timeout=20)
        now = int(time.time())
        stolen = issued(ticket(Jwk.generate(), issued_at=now, expires_at=now + 60))
        session.send_reliable(stolen.encode())
        await door.until("refused")
        assert (door.admitted, len(door.refused)) == ([], 1)
        assert "bearer" in door.refused[0]
