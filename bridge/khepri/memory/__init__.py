"""A store in this process, without Erlang: ``Khepri(MemoryCaller())``."""

from bridge.khepri.memory.caller import MemoryCaller

__all__ = ["MemoryCaller"]
