"""Datagram sessions: sealed state and reliable messages over UDP, between peers who know each other."""

from bridge.udp.conditioner import Conditioner, ConditionerStatistics
from bridge.udp.conditions import NetworkConditions, Partition
from bridge.udp.config import UdpConfig
from bridge.udp.endpoint import Endpoint
from bridge.udp.engine import UdpEngine
from bridge.udp.events import (
    CloseReason,
    EndpointEvent,
    MessageReceived,
    PeerUnreachable,
    SessionClosed,
    SessionEstablished,
    SessionEvent,
    StateReceived,
    StatesReceived,
    UdpEvent,
)
from bridge.udp.frames import (
    MAX_MESSAGE_BYTES,
    MAX_STATE_BYTES,
)
from bridge.udp.heap import keep_freed_memory
from bridge.udp.metrics import UdpCollector
from bridge.udp.peers import Address, Peer
from bridge.udp.session import Session
from bridge.udp.socket import SocketCounters, UdpSocket
from bridge.udp.statistics import DropReason, EndpointStatistics, SessionStatistics
from bridge.udp.transmit import Transmit
from bridge.udp.wire import (
    MAX_DATAGRAM_BYTES,
)

__all__ = [
    "MAX_DATAGRAM_BYTES",
    "MAX_MESSAGE_BYTES",
    "MAX_STATE_BYTES",
    "Address",
    "CloseReason",
    "Conditioner",
    "ConditionerStatistics",
    "DropReason",
    "Endpoint",
    "EndpointEvent",
    "EndpointStatistics",
    "MessageReceived",
    "NetworkConditions",
    "Partition",
    "Peer",
    "PeerUnreachable",
    "Session",
    "SessionClosed",
    "SessionEstablished",
    "SessionEvent",
    "SessionStatistics",
    "SocketCounters",
    "StateReceived",
    "StatesReceived",
    "Transmit",
    "UdpCollector",
    "UdpConfig",
    "UdpEngine",
    "UdpEvent",
    "UdpSocket",
    "keep_freed_memory",
]
