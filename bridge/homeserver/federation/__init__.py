"""Federation: entities pass between instances that are run by different people, by way of an escrow."""

from bridge.homeserver.federation.courier import Courier, CourierConfig
from bridge.homeserver.federation.desk import Desk, LaterError, SettledError, UnpinnedError
from bridge.homeserver.federation.escrows import Escrow, Escrows
from bridge.homeserver.federation.link import HttpLink, Link, RejectedError
from bridge.homeserver.federation.peers import Peer

__all__ = [
    "Courier",
    "CourierConfig",
    "Desk",
    "Escrow",
    "Escrows",
    "HttpLink",
    "LaterError",
    "Link",
    "Peer",
    "RejectedError",
    "SettledError",
    "UnpinnedError",
]
