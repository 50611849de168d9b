"""Other servers as one session knows them: their keys, where they listen, and the sessions that they have."""

from __future__ import annotations

from bridge.errors import InvalidStateError
from bridge.registry import Homeserver, ServerRecord
from bridge.sim.dataplane import DataPlaneClient
from bridge.sim.dataplane.messages import AddPeer, RemovePeer


class Acquaintances:
    """Servers of which the homeserver told; the data plane hears of each.

    Args:
        name: this server's.
        home: is asked for one that the feed has not told yet.
        plane: meets them.
    """

    def __init__(self, name: str, *, home: Homeserver, plane: DataPlaneClient) -> None:
        self._name = name
        self._home = home
        self._plane = plane
        self._records: dict[str, ServerRecord] = {}

    def __contains__(self, server: str) -> bool:
        """Whether something can be sealed for a server: it is known, and its key was not revoked."""
        return server in self._records

    def learn(self, record: ServerRecord) -> None:
        """Hear from the feed of a server, its key and where it listens."""
        if record.server == self._name or self._records.get(record.server) == record:
            return
        if record.revoked:
            self.forget(record.server)
            return
        self._records[record.server] = record
        self._plane.tell(
            AddPeer(
                server=record.server,
                session=record.session,
                key=record.key,
                thumbprint=record.thumbprint,
                host=record.host,
                port=record.port,
            )
        )

    def forget(self, server: str) -> None:
        """Hear from the feed that the homeserver knows a server no more."""
        if self._records.pop(server, None) is not None:
            self._plane.tell(RemovePeer(server=server))

    def session_of(self, server: str) -> bytes | None:
        """The session of a server, as the feed told; ``None`` where it has none, or is not known."""
        known = self._records.get(server)
        return None if known is None else known.session

    def in_session(self) -> list[str]:
        """Those that have a session, as the feed told."""
        return [name for name, record in self._records.items() if record.session is not None]

    async def know(self, server: str) -> None:
        """Have the key and the address of a server.

        Raises:
            InvalidStateError: it is this one.
            UnknownServerError: the homeserver knows none of that name.
        """
        if server == self._name:
            raise InvalidStateError(f"{server} is this server: give passes an entity to another owner here")
        if server not in self._records:
            self.learn(await self._home.server(server))
