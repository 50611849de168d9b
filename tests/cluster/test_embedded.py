"""A store of the program's own, with a real virtual machine; and programs that a real supervisor starts."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bridge.cluster.build import build_release
from bridge.cluster.embedded import EmbeddedConfig, embedded_store
from bridge.errors import ConfigurationError, ConnectionLostError, OutcomeUnknownError, RemoteRaisedError
from bridge.etf import Atom
from bridge.khepri import CompareAndSwap, MismatchingNodeError, Snapshot, Updated

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


async def test_it_is_a_store_of_type_simulation_that_no_one_else_can_reach(tmp_path: Path) -> None:
    async with embedded_store(EmbeddedConfig(directory=tmp_path)) as store:
        health = await store.health()
        assert health.type == "simulation"
        assert health.node == "nonode@nohost"
        listening = subprocess.run(
            ["ss", "-H", "-l", "-n", "-p", "-t", "-u"], capture_output=True, text=True, check=True
        )
        (pid,) = _children(tmp_path)
        assert f"pid={pid}," not in listening.stdout


async def test_it_writes_reads_and_watches_as_any_other() -> None:
    async with embedded_store() as store:
        await store.put("/:stock/wood", {Atom("count"): 3})
        assert await store.get("/:stock/wood") == {Atom("count"): 3}
        async with store.watch("/:stock") as feed:
            changes = aiter(feed)
            assert isinstance(await anext(changes), Snapshot)
            await store.transaction([CompareAndSwap("/:stock/wood", {Atom("count"): 3}, 4)])
            assert await anext(changes) == Updated((Atom("stock"), b"wood"), 4)
        with pytest.raises(MismatchingNodeError):
            await store.transaction([CompareAndSwap("/:stock/wood", 3, 5)])


async def test_its_data_stay_in_the_directory_for_the_next_run(tmp_path: Path) -> None:
    config = EmbeddedConfig(directory=tmp_path / "own")
    async with embedded_store(config) as store:
        await store.put_once("/:kept", b"yes")
    async with embedded_store(config) as store:
        assert await store.get("/:kept") == b"yes"


async def test_one_directory_serves_one_program_at_a_time(tmp_path: Path) -> None:
    config = EmbeddedConfig(directory=tmp_path / "own")
    async with embedded_store(config):
        with pytest.raises(ConfigurationError, match="another program"):
            async with embedded_store(config):
                pass


async def test_data_of_another_instance_are_refused_with_what_the_store_says(tmp_path: Path) -> None:
    async with embedded_store(EmbeddedConfig(directory=tmp_path, instance="one")):
        pass
    with pytest.raises(ConfigurationError, match="instance one, not two"):
        async with embedded_store(EmbeddedConfig(directory=tmp_path, instance="two")):
            pass


async def test_its_death_reaches_those_who_wait(tmp_path: Path) -> None:
    async with embedded_store(EmbeddedConfig(directory=tmp_path)) as store:
        (pid,) = _children(tmp_path)
        os.kill(pid, 9)
        with pytest.raises((OutcomeUnknownError, ConnectionLostError)):
            await store.put("/:a", 1, timeout=20.0)
        with pytest.raises(ConnectionLostError):
            await store.get("/:a", timeout=20.0)
        assert store.caller.current is None


async def test_other_modules_of_the_machine_are_out_of_reach() -> None:
    async with embedded_store() as store:
        with pytest.raises(RemoteRaisedError, match="not_allowed"):
            await store.caller.call("os", "cmd", [list(b"id")], timeout=10.0, idempotent=True)


def _children(directory: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            environment = (entry / "environ").read_bytes().split(b"\0") if entry.name.isdigit() else []
            program = (entry / "comm").read_text() if environment else ""
        except OSError:
            continue
        if f"KB_DATA_DIR={directory}".encode() in environment and program.startswith("beam"):
            found.append(int(entry.name))
    return found


async def test_many_calls_at_once_are_all_answered_and_casts_too() -> None:
    async with embedded_store() as store:
        call = store.caller.call
        calls = [call("kb_api", "version", [], timeout=60.0, idempotent=True) for _ in range(20_000)]
        casts = [store.caller.cast("", "kb_api", "version", []) for _ in range(20_000)]
        *answers, _ = await asyncio.gather(*calls, asyncio.gather(*casts))
        assert set(answers) == {await call("kb_api", "version", [], timeout=20.0, idempotent=True)}


async def test_an_answer_that_is_too_large_ends_nothing_else() -> None:
    async with embedded_store() as store:
        for number in range(140):
            await store.put(f"/:large/:k{number}", bytes(1_000_000))
        with pytest.raises(RemoteRaisedError, match="packet_too_large"):
            await store.get_many("/:large/*", timeout=60.0)
        assert await store.exists("/:large/:k0")


@pytest.mark.parametrize("again", [False, True])
async def test_whoever_is_cancelled_while_it_starts_leaves_nothing(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    tmp_path, temporary = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    async def start() -> None:
        async with embedded_store(EmbeddedConfig(directory=tmp_path)):
            await asyncio.Event().wait()

    starting = asyncio.create_task(start())
    while not _children(tmp_path):
        await asyncio.sleep(0.01)
    starting.cancel()
    if again:
        await asyncio.sleep(0)
        starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    assert _children(tmp_path) == []
    assert list(temporary.iterdir()) == []


async def test_a_machine_whose_program_ended_before_it_was_up_stops(tmp_path: Path) -> None:
    launcher = build_release(lambda _: None) / "bin" / "khepri_bridge"
    reading, writing = os.pipe()
    environment = {
        **os.environ,
        "KB_DATA_DIR": str(tmp_path),
        "KB_TYPE": "simulation",
        "KB_INSTANCE": "local",
        "KB_STORE": "simulation",
    }
    child = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'exec "$0" embedded 3</dev/null 4>&1 1>&2', str(launcher)),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=writing,
        stderr=asyncio.subprocess.DEVNULL,
    )
    os.close(writing)
    os.close(reading)
    try:
        async with asyncio.timeout(60.0):
            await child.wait()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert _children(tmp_path) == []


_PROGRAM = """
import asyncio, os, sys
from bridge.khepri import Khepri, Snapshot
from bridge.port import connect_port

async def main():
    async with await connect_port(name="world") as caller, Khepri(caller, store=caller.store) as store:
        print("a program may print")
        await store.put_once("/:from/python", b"hello")
        async with store.watch("/:to") as feed:
            async for change in feed:
                told = change.nodes.values() if isinstance(change, Snapshot) else [change.data]
                if b"stop" in told:
                    await store.put_once("/:from/python", b"stopped")
                    return

asyncio.run(main())
"""


@pytest.mark.parametrize("language", ["erlang", "elixir"])
async def test_a_supervisor_starts_a_python_program_as_a_port(tmp_path: Path, language: str) -> None:
    release = build_release(lambda _: None)
    program = tmp_path / "world.py"
    program.write_text(_PROGRAM)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "KB_DATA_DIR": str(tmp_path / "data"),
        "KB_TYPE": "simulation",
        "KB_STORE": "simulation",
        "ERL_LIBS": str(release / "lib"),
    }
    if language == "elixir":
        assert shutil.which("elixir"), "elixir is missing: scripts/setup --dev installs it"
        script = tmp_path / "run.exs"
        script.write_text(
            f"""
            {{:ok, _}} = Application.ensure_all_started(:khepri_bridge)
            wait = fn wait, path, value ->
              if :khepri.get(:simulation, path) != {{:ok, value}} do
                Process.sleep(20)
                wait.(wait, path, value)
              end
            end
            options = %{{command: "{sys.executable}", args: ["{program}"]}}
            {{:ok, _}} = Supervisor.start_link([{{:kb_port, options}}], strategy: :one_for_one)
            wait.(wait, [:from, "python"], "hello")
            :ok = :khepri.put(:simulation, [:to], "stop")
            wait.(wait, [:from, "python"], "stopped")
            IO.puts("done")
            """
        )
        command = ["elixir", str(script)]
    else:
        source = f"""
            {{ok, _}} = application:ensure_all_started(khepri_bridge),
            Wait = fun W(Path, Value) ->
                case khepri:get(simulation, Path) of
                    {{ok, Value}} -> ok;
                    _ -> timer:sleep(20), W(Path, Value)
                end
            end,
            {{ok, _}} = supervisor:start_child(kb_sup, kb_port:child_spec(
                #{{command => "{sys.executable}", args => ["{program}"]}})),
            Wait([from, <<"python">>], <<"hello">>),
            ok = khepri:put(simulation, [to], <<"stop">>),
            Wait([from, <<"python">>], <<"stopped">>),
            io:format("done~n"), halt(0).
        """
        command = ["erl", "-noshell", "-eval", " ".join(source.split())]
    child = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(60):
            output, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    text = output.decode(errors="replace")
    assert "done" in text, text
    assert "a program may print" in text
