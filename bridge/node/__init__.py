"""A hidden Erlang node for asyncio, and the gateway that stays connected to some member of a cluster."""

from bridge.node.certificates import TlsConfig
from bridge.node.config import GatewayConfig, NodeConfig
from bridge.node.gateway import Gateway
from bridge.node.mailbox import Mailbox, Watch
from bridge.node.node import HiddenNode, NodeStatistics

__all__ = [
    "Gateway",
    "GatewayConfig",
    "HiddenNode",
    "Mailbox",
    "NodeConfig",
    "NodeStatistics",
    "TlsConfig",
    "Watch",
]
