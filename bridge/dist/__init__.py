"""The Erlang distribution protocol and the port mapper's, without any input or output."""

from bridge.dist.connection import DistConfig, DistConnection
from bridge.dist.control import (
    AliasSend,
    ControlMessage,
    DemonitorP,
    Exit,
    Exit2,
    GroupLeader,
    Link,
    MonitorP,
    MonitorPExit,
    RegSend,
    Send,
    SpawnReply,
    SpawnRequest,
    UnlinkId,
    UnlinkIdAck,
)
from bridge.dist.epmd import Registered, encode_alive2, encode_port_please, parse_alive2, parse_port_please
from bridge.dist.events import Connected, Disconnected, DistEvent, HandshakeFailed, NameReceived, Received
from bridge.dist.flags import DEMANDED, MANDATORY, OFFERED, REFUSED, DistFlag
from bridge.dist.handshake import Failure, Identity, Role, State, Status, challenge_digest
from bridge.dist.outbox import LARGE, PORTION

__all__ = [
    "DEMANDED",
    "LARGE",
    "MANDATORY",
    "OFFERED",
    "PORTION",
    "REFUSED",
    "AliasSend",
    "Connected",
    "ControlMessage",
    "DemonitorP",
    "Disconnected",
    "DistConfig",
    "DistConnection",
    "DistEvent",
    "DistFlag",
    "Exit",
    "Exit2",
    "Failure",
    "GroupLeader",
    "HandshakeFailed",
    "Identity",
    "Link",
    "MonitorP",
    "MonitorPExit",
    "NameReceived",
    "Received",
    "RegSend",
    "Registered",
    "Role",
    "Send",
    "SpawnReply",
    "SpawnRequest",
    "State",
    "Status",
    "UnlinkId",
    "UnlinkIdAck",
    "challenge_digest",
    "encode_alive2",
    "encode_port_please",
    "parse_alive2",
    "parse_port_please",
]
