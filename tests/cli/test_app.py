from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from bridge.cli.app import build_app


def run(*arguments: str, state: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", "from bridge.cli import main; main()", *arguments],
        input=stdin,
        capture_output=True,
        check=False,
        env={"XDG_STATE_HOME": str(state), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        cwd=Path(__file__).parents[2],
    )


def commands() -> Iterator[tuple[str, object]]:
    def walk(command: object, name: str) -> Iterator[tuple[str, object]]:
        below = getattr(command, "commands", None)
        if below is None:
            yield name, command
            return
        for child, each in below.items():
            yield from walk(each, f"{name} {child}".strip())

    yield from walk(get_command(build_app()), "")


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_each_command_shows_an_example_and_takes_json(name: str, command: object) -> None:
    epilog = getattr(command, "epilog", None)
    assert epilog is not None
    assert epilog.startswith(f"Example: khepri-bridge {name}")
    options = {option for parameter in getattr(command, "params", []) for option in parameter.opts}
    # `sim` serves until it is ended: it has no result to print.
    assert "--json" in options or name == "sim"


def test_an_error_is_one_line_and_status_one(tmp_path: Path) -> None:
    done = run("status", state=tmp_path)
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1
    assert b"no cluster runs" in done.stderr


def test_a_file_that_is_not_there_is_named_first(tmp_path: Path) -> None:
    missing = tmp_path / "instance.jwk"
    done = run(
        "homeserver", "signer", "--key", str(missing), "--socket", "s", "--instance", "a", state=tmp_path
    )
    assert done.stderr.decode() == f"khepri-bridge: {missing}: No such file or directory\n"


def test_an_error_in_json_is_the_last_line_of_stdout(tmp_path: Path) -> None:
    done = run("get", "/a", "--json", state=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout.splitlines()[-1])["error"]["type"] == "InvalidStateError"


def test_a_wrong_option_is_status_two(tmp_path: Path) -> None:
    done = run("up", "--nodes", "many", state=tmp_path)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_a_usage_error_in_json_is_the_last_line_of_stdout_too(tmp_path: Path) -> None:
    done = run("get", "/:a", "--jsonn", "--json", state=tmp_path)
    assert (done.returncode, b"Try 'khepri-bridge get" in done.stderr) == (2, True)
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert (error["type"], "--jsonn" in error["message"]) == ("UsageError", True)


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("sys.modules['uvicorn'] = None", "install khepri-bridge with its extra [homeserver]"),
        ("sys.modules['bridge.homeserver.issuing'] = 0", "a mistake in khepri-bridge, "),
    ],
)
def test_what_nobody_foresaw_is_one_line_too(trouble: str, said: str) -> None:
    program = f"import sys; {trouble}\nfrom bridge.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "homeserver", "serve"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert said in done.stderr


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    assert b"Traceback" in run("--debug", "status", state=tmp_path).stderr


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom bridge.cli.app import build_app\nbuild_app()\n"
        "heavy = {'numpy', 'cryptography', 'uvloop', 'msgspec', 'rich'} & set(sys.modules)\n"
        "sys.stderr.write(' '.join(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, cwd=Path.cwd())
    assert done.stderr == b""


def test_down_without_a_cluster_is_fine(tmp_path: Path) -> None:
    for _ in range(2):
        done = run("down", "--json", state=tmp_path)
        assert done.returncode == 0
        assert json.loads(done.stdout)["ended"] is False
    assert b"there was no data to erase" in run("down", "--erase", state=tmp_path).stdout


def test_the_list_of_commands_says_each_whole() -> None:
    shown = CliRunner().invoke(build_app(), []).output
    assert "it runs until" in shown
    assert "..." not in shown.partition("Commands:")[2]
