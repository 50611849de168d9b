"""What tests of live nodes run against: this host's Erlang, or that of an image of ours.

``pytest --cluster=otp27`` (Debian 13) or ``--cluster=otp29`` (Debian testing) takes each Erlang node that the
tests of homeservers and of nodes start from the image. Its file system is laid out in a temporary directory,
and a program of it is entered by ``chroot`` in a mount namespace of its own: so it is a process of this host,
which the same tests start, pause, kill and find like a native one. Needs root.
"""

from __future__ import annotations

import contextlib
import datetime
import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.docker import built_image, daemon_client

_quote: Final = shlex.quote
_IMAGE_RELEASE: Final = "/opt/khepri_bridge/bin/khepri_bridge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where Erlang nodes of tests come from.

    Attributes:
        erl: the program that starts a node.
        release: the homeserver's release; ``None``: the one of this clone.
        versions: of the image's Erlang, Khepri and Ra, as a text.
    """

    erl: str = "erl"
    release: Path | None = None
    versions: str = ""


_HOST: Final = Target()
_chosen: Target = _HOST


def target() -> Target:
    """What was chosen for this test run."""
    return _chosen


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cluster",
        choices=("host", "otp27", "otp29"),
        default="host",
        help="where Erlang nodes come from: this host, or the image of Debian 13 or of Debian testing",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of the archive that moves run only where they are named: ``-m matrix``."""
    if "matrix" not in config.getoption("markexpr"):
        moving = [item for item in items if item.get_closest_marker("matrix")]
        items[:] = [item for item in items if item not in moving]
        config.hook.pytest_deselected(items=moving)


def pytest_sessionstart(session: pytest.Session) -> None:
    global _chosen
    name: str = session.config.getoption("--cluster")
    if name != "host":
        stack = contextlib.ExitStack()
        session.config.add_cleanup(stack.close)
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="kb-target-", dir="/var/tmp"))
        )
        try:
            client = stack.enter_context(daemon_client(directory))
            _chosen = _laid_out(client, name, directory)
        except (pytest.skip.Exception, pytest.fail.Exception) as error:
            raise pytest.UsageError(f"--cluster={name}: {error}") from None


def pytest_report_header() -> str | None:
    return f"cluster: {_chosen.versions}" if _chosen.versions else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The line of this run for the table of ``docs/testing.md``."""
    if _chosen.versions:
        outcomes = terminalreporter.stats
        passed, failed = (
            len(outcomes.get("passed", [])),
            sum(len(outcomes.get(o, [])) for o in ("failed", "error")),
        )
        today = datetime.datetime.now(datetime.UTC).date()
        terminalreporter.write_line(f"| {today} | {_chosen.versions} | {passed} | {failed} |")


def _laid_out(client: Any, name: str, directory: Path) -> Target:
    """Put the image's file system below ``directory``, with programs that enter it."""
    container = client.containers.create(built_image(client, name))
    try:
        root = directory / "root"
        root.mkdir()
        with subprocess.Popen(["tar", "-x", "-C", root], stdin=subprocess.PIPE) as tar:
            assert tar.stdin is not None
            for chunk in container.export():
                tar.stdin.write(chunk)
            tar.stdin.close()
            assert tar.wait(timeout=300) == 0
    finally:
        container.remove(v=True)
    release = directory / "release"
    erl = directory / "erl"
    for program, inside in ((erl, "/usr/bin/erl"), (release / "bin" / "khepri_bridge", _IMAGE_RELEASE)):
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(_entering(root, inside))
        program.chmod(0o755)
    return Target(erl=str(erl), release=release, versions=_versions(erl, root))


def _versions(erl: Path, root: Path) -> str:
    """What the image holds: Erlang, Khepri and Ra, and the RabbitMQ they were taken from."""
    said = subprocess.run(
        [erl, "-noshell", "-eval", 'io:format("OTP ~s", [erlang:system_info(otp_release)]), halt().'],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    found = [*root.glob("opt/khepri_bridge/lib/khepri-[0-9]*"), *root.glob("opt/khepri_bridge/lib/ra-*")]
    found += root.glob("rabbitmq/usr/lib/rabbitmq/lib/rabbitmq_server-*")
    return " · ".join([said, *(path.name.replace("_server", "").replace("-", " ") for path in found)])


def _entering(root: Path, program: str) -> str:
    """A script that becomes ``program`` of the image, with this host's network and temporary files."""
    shared = ["/proc", "/dev", *dict.fromkeys([tempfile.gettempdir(), "/tmp"])]
    binds = ""
    for place in map(_quote, shared):
        below = f"{_quote(str(root))}{place}"
        binds += f"mkdir -p {below}\nmount --rbind {place} {below}\n"
    return f"""#!/bin/sh
set -eu
[ "${{1-}}" = --entered ] || exec unshare --mount -- "$0" --entered "$@"
shift
{binds}exec chroot {_quote(str(root))} {_quote(program)} "$@"
"""
