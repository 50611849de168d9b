"""A data plane that closes its connection when its session is ended, and lives on."""

from __future__ import annotations

import os
import threading
from typing import Never

from bridge.errors import InvalidStateError
from bridge.sim.dataplane import process
from bridge.sim.dataplane.messages import Command, EndSession
from bridge.sim.dataplane.process import DataPlaneProcess

_carry_out = DataPlaneProcess._carry_out


async def _fall_mute(self: DataPlaneProcess, command: Command) -> None:
    if isinstance(command, EndSession):
        raise InvalidStateError("falls mute")
    await _carry_out(self, command)


def _live_on(status: int) -> Never:
    threading.Event().wait()
    raise AssertionError(f"nobody sets it: {status}")


if __name__ == "__main__":
    DataPlaneProcess._carry_out = _fall_mute  # type: ignore[method-assign]
    os._exit = _live_on
    process.main()
