"""The guide does what it says: its Elixir runs with Khepri itself, its Python against a cluster."""

from __future__ import annotations

import ast
import asyncio
import base64
import inspect
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import bridge.errors
import bridge.khepri
from bridge.cli.app import build_app
from bridge.cluster.build import build_release
from bridge.cluster.local import LocalCluster
from bridge.khepri import Khepri
from tests.support.cluster import hidden_node, local_cluster, started_by_up

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guide-khepri.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall(GUIDE.read_text())

# Horus takes functions from object files, and on OTP 25 only those that were compiled without types.
_ELIXIR = """
Application.put_env(:khepri, :default_store_id, :homeserver)
{:ok, _} = Application.ensure_all_started(:khepri_bridge)
true = :code.add_patha(String.to_charlist(File.cwd!()))
Process.register(self(), :counter)
wait = fn wait, left ->
  if left > 0 and :khepri.exists("/:bridge/:identity") != true do
    Process.sleep(50)
    wait.(wait, left - 1)
  end
end
wait.(wait, 400)
for {line, number} <- Stream.with_index(IO.stream(:stdio, :line)) do
  code = line |> String.trim() |> Base.decode64!()
  answer =
    try do
      source = "defmodule Guide.Block#{number} do\\n@compile :no_type_opt\\ndef run do\\n#{code}\\nend\\nend"
      [{module, beam}] = Code.compile_string(source)
      File.write!("#{module}.beam", beam)
      module.run()
      "ok"
    catch
      kind, reason -> Exception.format(kind, reason, __STACKTRACE__)
    end
  IO.puts("answer " <> Base.encode64(answer))
end
"""


class Elixir:
    """An Elixir program with a store of its own, where blocks run one after another."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, code: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(base64.b64encode(code.encode()) + b"\n")
        said = []
        async with asyncio.timeout(60.0):
            while not (line := await self._process.stdout.readline()).startswith(b"answer "):
                said.append(line)
                assert line, b"".join(said).decode()
        answer = base64.b64decode(line.removeprefix(b"answer ")).decode()
        assert answer == "ok", f"{code}\n{answer}"


@asynccontextmanager
async def elixir(directory: Path) -> AsyncIterator[Elixir]:
    directory.mkdir()
    (directory / "run.exs").write_text(_ELIXIR)
    process = await asyncio.create_subprocess_exec(
        "elixir",
        "run.exs",
        cwd=directory,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "KB_DATA_DIR": str(directory / "data"),
            "KB_TYPE": "simulation",
            "ERL_LIBS": str(build_release(lambda _: None) / "lib"),
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Elixir(process)
    finally:
        process.kill()
        await process.communicate()


async def python(code: str, names: dict[str, Any]) -> None:
    """A snippet of ``main``, or a program without asyncio, which runs in a thread."""
    compiled = compile(code, str(GUIDE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if not compiled.co_flags & inspect.CO_COROUTINE:
        await asyncio.to_thread(exec, compiled, names)
        return
    await eval(compiled, names)


@pytest.fixture
def guide_cluster() -> Any:
    with local_cluster(nodes=1) as running:
        yield running


async def test_every_python_block_runs(
    guide_cluster: LocalCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ERL_EPMD_PORT", str(guide_cluster.epmd_port))
    monkeypatch.chdir(tmp_path)
    started_by_up(guide_cluster, tmp_path / "state", monkeypatch)
    blocks = [
        code.replace('"secret"', repr(guide_cluster.cookie)) for kind, code in BLOCKS if kind == "python"
    ]
    for program in blocks[:2]:
        await asyncio.to_thread(exec, compile(program, str(GUIDE), "exec"), {})
        assert capsys.readouterr().out == "3\n"
    async with hidden_node(guide_cluster) as node, Khepri.connect(node, guide_cluster.members) as store:
        names: dict[str, Any] = {"__name__": "guide"}
        for code in blocks[2:]:
            if "connect_port" in code:
                # The other test has a supervisor start it.
                continue
            names["store"] = store
            await python(code, names)


def test_what_the_text_names_is_there() -> None:
    text = GUIDE.read_text()
    for name in set(re.findall(r"`([A-Z]\w+Error)`", text)):
        assert hasattr(bridge.khepri, name) or hasattr(bridge.errors, name), name
    headings = {
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    for link in re.findall(r"\]\(([^)]+)\)", text):
        file, _, anchor = link.partition("#")
        assert file.startswith("https:") or not file or (GUIDE.parent / file).is_file(), link
        assert file or anchor in headings, link


@pytest.mark.parametrize(
    "line", [line for kind, code in BLOCKS if kind == "sh" for line in code.splitlines()]
)
def test_every_command_line_is_one_that_the_command_takes(line: str) -> None:
    program, name, *arguments = shlex.split(line)
    assert program == "khepri-bridge"
    command = get_command(build_app()).get_command(None, name)  # type: ignore[attr-defined]
    command.make_context(name, arguments)


async def test_every_elixir_block_runs_and_starts_the_python_program(tmp_path: Path) -> None:
    directory = tmp_path / "elixir"
    async with elixir(directory) as there:
        (program,) = [code for kind, code in BLOCKS if kind == "python" and "connect_port" in code]
        (directory / "world.py").write_text(program)
        for kind, code in BLOCKS:
            if kind == "elixir":
                await there.run(code)
        await there.run(
            """
            wait = fn wait, left ->
              if left > 0 and :khepri.get("/:world/:started") != {:ok, true} do
                Process.sleep(50)
                wait.(wait, left - 1)
              end
            end
            wait.(wait, 400)
            {:ok, true} = :khepri.get("/:world/:started")
            """
        )
