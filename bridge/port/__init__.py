"""A client on an Erlang port: two pipes to a virtual machine, without names, cookies or sockets."""

from bridge.port.caller import PortCaller, connect_port, open_port
from bridge.port.connection import PortConfig, PortConnection

__all__ = ["PortCaller", "PortConfig", "PortConnection", "connect_port", "open_port"]
