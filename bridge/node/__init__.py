"""A hidden Erlang node for asyncio, and the gateway that stays connected to some member of a cluster."""

from bridge.node.certificates import TlsConfig
from bridge.node.config import GatewayConfig, NodeConfig
from bridge.node.gateway import Gateway
from bridge.node.gen import Sender
from bridge.node.mailbox import Mailbox, Watch
from bridge.node.node import HiddenNode, NodeStatistics
from bridge.node.server import NO_REPLY, GenServer, ServerProcess, Stop

__all__ = [
    "NO_REPLY",
    "Gateway",
    "GatewayConfig",
    "GenServer",
    "HiddenNode",
    "Mailbox",
    "NodeConfig",
    "NodeStatistics",
    "Sender",
    "ServerProcess",
    "Stop",
    "TlsConfig",
    "Watch",
]
