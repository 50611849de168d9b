"""A data plane that stands still, at SIGUSR1, between its look at the deadline and the sealing after it."""

from __future__ import annotations

import os
import signal

from bridge.sim.dataplane import process
from bridge.sim.dataplane.plane import DataPlane

_is_armed = False


class FreezingPlane(DataPlane):
    """Stops its own process once it may seal, and has something to."""

    def before_sealing(self, *, now_ns: int) -> None:
        global _is_armed
        super().before_sealing(now_ns=now_ns)
        if _is_armed and self._may_seal() and self._has_states():
            _is_armed = False
            os.kill(os.getpid(), signal.SIGSTOP)

    def _has_states(self) -> bool:
        return any(getattr(link, "states_waiting", 0) for link in self._peers.links())


def _arm(*_: object) -> None:
    global _is_armed
    _is_armed = True


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _arm)
    setattr(process, "DataPlane", FreezingPlane)  # noqa: B010 - the fault is put around the real one
    process.main()
