"""The guide to simulation servers does what it says: its blocks run in order, against a real cluster."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.cluster.local import LocalCluster, LocalClusterConfig
from tests.support.otp import free_port

pytestmark = [pytest.mark.erlang, pytest.mark.slow, pytest.mark.timeout(300)]

_GUIDE = Path(__file__).parents[2] / "docs" / "guide-sim.md"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SECONDS = 60.0


class Terminal:
    """A server that was started by a line of the guide; its log goes to a file."""

    def __init__(self, line: str, place: Path, environment: dict[str, str]) -> None:
        words = shlex.split(line)
        self.name = words[words.index("--name") + 1]
        self.log = place / f"{self.name}.log"
        self.said: list[dict[str, Any]] = []
        self._words, self._place, self._environment = words[1:], place, environment
        self._changed = asyncio.Event()

    async def open(self) -> None:
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bridge.cli", *self._words),
                cwd=self._place,
                env=self._environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self._reading = asyncio.create_task(self._read())
        await self.hears(lambda line: line["type"] == "started")

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.said.append(json.loads(line))
            self._changed.set()

    def write(self, line: str) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        number: int = json.loads(line)["id"]
        return number

    async def hears(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(_SECONDS):
            while not (found := [line for line in self.said if wanted(line)]):
                self._changed.clear()
                await self._changed.wait()
        return found[0]

    async def done(self, number: int) -> None:
        answer = await self.hears(lambda line: line.get("id") == number)
        assert answer["type"] == "done", answer

    async def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        await asyncio.wait_for(self.process.wait(), _SECONDS)
        await self._reading

    def traces(self) -> set[str]:
        """Transfers that its log tells of."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return {line["trace"] for line in lines if "trace" in line}


async def _talk(terminals: dict[str, Terminal], conversation: str) -> None:
    """Each line once the one before it was carried out; a request is, once its master has answered."""
    asked: list[tuple[Terminal, int]] = []
    for line in conversation.splitlines():
        name, _, command = line.partition(" ")
        terminal, kind = terminals[name], json.loads(command)["type"]
        if kind == "answer":
            await terminal.hears(lambda told: told["type"] == "asked")
        number = terminal.write(command.strip())
        if kind == "request":
            asked.append((terminal, number))
        else:
            await terminal.done(number)
    for terminal, number in asked:
        await terminal.done(number)


async def test_every_block_of_the_guide_runs(tmp_path: Path) -> None:
    """And a transfer has one trace id in the logs of all who took part."""
    environment = {
        **os.environ,
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "PYTHONPATH": str(_GUIDE.parents[1]),
        "KHEPRI_BRIDGE_LOG_LEVEL": "info",
        "KHEPRI_BRIDGE_LOG_FORMAT": "json",
    }
    port = str(free_port())
    terminals: dict[str, Terminal] = {}

    def run(line: str) -> str:
        command = ["bash", "-c", line.replace("khepri-bridge", f"{sys.executable} -m bridge.cli", 1)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    async def shown(holder: str) -> None:
        async with asyncio.timeout(_SECONDS):
            while holder not in await asyncio.to_thread(run, "khepri-bridge entity show ball"):
                await asyncio.sleep(0.2)

    blocks = _BLOCK.findall(_GUIDE.read_text())
    with LocalCluster(LocalClusterConfig(nodes=3, directory=tmp_path / "state" / "khepri-bridge" / "local")):
        try:
            for language, code in blocks:
                match language:
                    case "":
                        await _talk(terminals, code)
                        await shown("red")
                        assert terminals["blue"].traces() & terminals["red"].traces()
                        terminals["red"].process.kill()
                        await shown("blue")
                    case "python":
                        program = await asyncio.create_subprocess_exec(
                            *(sys.executable, "-c", code),
                            cwd=tmp_path,
                            env=environment,
                            stdout=asyncio.subprocess.PIPE,
                        )
                        said, _ = await asyncio.wait_for(program.communicate(), _SECONDS)
                        assert (program.returncode, ("text", said.decode()) in blocks) == (0, True)
                    case "toml":
                        (tmp_path / "mesh.toml").write_text(code)
                    case "sh":
                        for line in code.strip().splitlines():
                            if line.startswith("khepri-bridge sim "):
                                terminal = Terminal(line.replace("9465", port), tmp_path, environment)
                                terminals[terminal.name] = terminal
                                await terminal.open()
                            else:
                                assert "no two holders" in await asyncio.to_thread(run, line)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
                assert b"khepri_bridge_sim_up 1.0" in answer.read()
        finally:
            for terminal in terminals.values():
                with contextlib.suppress(ProcessLookupError):
                    await terminal.close()
    assert set(terminals) == {"blue", "red", "green", "sim1"}
