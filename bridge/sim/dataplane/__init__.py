"""The data plane of a simulation server: its own process between strangers' datagrams and the simulation."""

from bridge.sim.dataplane.client import DataPlaneClient

__all__ = ["DataPlaneClient"]
