"""The node's guide does what it says: its snippets run in order, against a real Elixir node."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bridge.etf import Atom
from bridge.node import HiddenNode
from tests.support.otp import COOKIE, PortMapper

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

_GUIDE = Path(__file__).parents[2] / "docs" / "guide-node.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHOP = "shop@127.0.0.1"


@asynccontextmanager
async def _shop(mapper: PortMapper) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        "elixir",
        *("--name", _SHOP, "--cookie", COOKIE, "--erl"),
        "-start_epmd false -kernel prevent_overlapping_partitions false",
        *("-e", 'IO.puts("ready"); IO.read(:line)'),
        env=mapper.environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30.0):
            assert await process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        await process.communicate()


async def _python(code: str, names: dict[str, Any]) -> None:
    if "asyncio.run(" in code:
        await asyncio.to_thread(exec, compile(code, str(_GUIDE), "exec"), {})
        return
    run = eval(compile(code, str(_GUIDE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    if inspect.isawaitable(run):
        await run


async def _there(runner: HiddenNode, language: str, code: str) -> None:
    if language == "elixir":
        await runner.call(_SHOP, "Elixir.Code", "eval_string", [code], timeout=20.0)
        return
    _, tokens, _ = await runner.call(_SHOP, "erl_scan", "string", [list(code.encode())])
    _, parsed = await runner.call(_SHOP, "erl_parse", "parse_exprs", [tokens])
    await runner.call(_SHOP, "erl_eval", "exprs", [parsed, []], timeout=20.0)


async def _until_it_waits(node: HiddenNode, running: asyncio.Task[None]) -> None:
    """A snippet has come to where only the other side gets it on, or to its end."""
    for _ in range(3):
        for _ in range(50):
            await asyncio.sleep(0)
        while node.statistics().pending_calls and not running.done():
            await asyncio.sleep(0.01)


async def test_every_snippet_of_the_guide_runs(
    mapper: PortMapper, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ERL_EPMD_PORT", str(mapper.port))
    monkeypatch.setenv("ERL_EPMD_ADDRESS", "127.0.0.1")
    blocks = _BLOCK.findall(_GUIDE.read_text())
    assert {language for language, _ in blocks} == {"python", "elixir", "erlang"}
    async with _shop(mapper), HiddenNode("runner@127.0.0.1", cookie=COOKIE) as runner:
        # The program at the head runs alone: it has the name that the later snippets' node has.
        (_, program), *blocks = blocks
        await _python(program, {})
        assert "shop@127.0.0.1" in capsys.readouterr().out
        async with HiddenNode("py@127.0.0.1", cookie=COOKIE) as node:
            names: dict[str, Any] = {"node": node, "asyncio": asyncio, "__name__": "guide"}
            # A snippet for the other side belongs to the Python before it, which is then still running.
            running: asyncio.Task[None] | None = None
            for (language, code), (following, _) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
                if language == "python":
                    if running is not None:
                        await running
                    running = asyncio.create_task(_python(code, names))
                    if following != "python":
                        await _until_it_waits(node, running)
                else:
                    await _there(runner, language, code)
            assert running is not None
            await running
            assert Atom("ok") is names["Atom"]("ok")
