"""Checks of this machine, each with the command that mends what it finds."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from bridge.cluster.build import INSTALL_ERLANG, is_built, workshop
from bridge.cluster.processes import marked_processes
from bridge.cluster.sources import KHEPRI_VERSION, missing_sources
from bridge.cluster.state import default_directory, load_state
from bridge.errors import ConfigurationError

Verdict = Literal["good", "advice", "bad"]

_MIN_PYTHON: Final = (3, 11)
_OTP: Final = range(25, 30)
"""OTP releases that the nodes were run on."""
_MIN_FREE_BYTES: Final = 1 << 30
"""A release takes 60 MB, and a Raft log per node up to some 100 MB between snapshots."""
_EPMD_PORT: Final = 4369


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found.

    Attributes:
        check: what was looked at.
        verdict: ``good``; ``advice`` where something works less well, or only for some uses; ``bad`` where
            clusters cannot run.
        text: what was found, one line.
        remedy: command or step that mends it; empty when good.
    """

    check: str
    verdict: Verdict
    text: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Run all checks, in the order in which a newcomer would mend them."""
    checks: tuple[Callable[[], Iterable[Finding]], ...] = (
        _python,
        _erlang,
        _sources_and_release,
        _disk,
        _port_mapper,
        _docker,
        _leftovers,
    )
    return [finding for check in checks for finding in check()]


def _python() -> Iterable[Finding]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] >= _MIN_PYTHON:
        yield Finding(check="Python", verdict="good", text=version)
    else:
        yield Finding(
            check="Python", verdict="bad", text=f"{version}, not 3.11", remedy="apt-get install python3"
        )


def _erlang() -> Iterable[Finding]:
    erl = shutil.which("erl")
    if erl is None:
        yield Finding(check="Erlang", verdict="bad", text="erl not found", remedy=INSTALL_ERLANG)
    else:
        yield _otp_release(erl)
    for program in ("epmd", "rebar3"):
        path = shutil.which(program)
        yield Finding(
            check=program,
            verdict="good" if path else "bad",
            text=path or "not found",
            remedy="" if path else INSTALL_ERLANG,
        )


def _otp_release(erl: str) -> Finding:
    # crypto and ssl are packages of their own on Debian, and a release without them fails only when it boots.
    program = (
        'io:format("~s", [erlang:system_info(otp_release)]),'
        '[io:format(" ~s", [A]) || A <- [crypto, ssl, os_mon, syntax_tools],'
        "  code:lib_dir(A) =:= {error, bad_name}],"
        "halt()."
    )
    said = _output([erl, "-noinput", "-boot", "start_clean", "-eval", program])
    release, *absent = said.split() or ["unknown"]
    if not release.isdigit() or int(release) not in _OTP:
        return Finding(
            check="Erlang",
            verdict="advice",
            text=f"OTP {release}; run with OTP {_OTP[0]} to {_OTP[-1]}",
            remedy="install one of these releases, or expect surprises",
        )
    if absent:
        return Finding(
            check="Erlang",
            verdict="bad",
            text=f"OTP {release} without {', '.join(absent)}",
            remedy="apt-get install -y " + " ".join(f"erlang-{name.replace('_', '-')}" for name in absent),
        )
    return Finding(check="Erlang", verdict="good", text=f"OTP {release} ({erl})")


def _sources_and_release() -> Iterable[Finding]:
    try:
        place = workshop()
    except ConfigurationError as error:
        yield Finding(check="sources", verdict="bad", text=str(error), remedy="install the package again")
        return
    missing = missing_sources(place.checkouts)
    yield Finding(
        check="sources",
        verdict="advice" if missing else "good",
        text=f"missing: {', '.join(missing)}" if missing else f"Khepri {KHEPRI_VERSION} in {place.checkouts}",
        remedy="khepri-bridge build" if missing else "",
    )
    built = is_built(place)
    yield Finding(
        check="release",
        verdict="good" if built else "advice",
        text=str(place.release) if built else "not built from the present sources",
        remedy="" if built else "khepri-bridge build",
    )


def _disk() -> Iterable[Finding]:
    place = default_directory()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    enough = free >= _MIN_FREE_BYTES
    yield Finding(
        check="disk",
        verdict="good" if enough else "bad",
        text=f"{free / (1 << 30):.1f} GiB free at {place}",
        remedy="" if enough else "free some space, or set XDG_STATE_HOME to another disk",
    )
    if not os.access(place, os.W_OK):
        yield Finding(
            check="state",
            verdict="bad",
            text=f"{place} is not writable",
            remedy="set XDG_STATE_HOME to a writable place",
        )


def _port_mapper() -> Iterable[Finding]:
    """An automatic epmd is none of ours: clusters bring their own, but it tells of another Erlang here."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        found = probe.connect_ex(("127.0.0.1", _EPMD_PORT)) == 0
    yield Finding(
        check="ports",
        verdict="good",
        text=f"an epmd listens on {_EPMD_PORT}; clusters here use their own ports"
        if found
        else f"nothing listens on {_EPMD_PORT}; clusters here use their own ports",
    )


def _docker() -> Iterable[Finding]:
    """Only for the images and their tests."""
    docker = shutil.which("docker")
    if docker is None:
        yield Finding(
            check="Docker",
            verdict="advice",
            text="not installed (only images need it)",
            remedy="apt-get install -y docker.io debootstrap iptables",
        )
        return
    version = _output([docker, "version", "--format", "{{.Server.Version}}"])
    if re.match(r"\d", version):
        yield Finding(check="Docker", verdict="good", text=f"server {version}")
    else:
        yield Finding(
            check="Docker",
            verdict="advice",
            text="no daemon answers (only images need it; the tests start one)",
            remedy="systemctl start docker, or as root: dockerd &",
        )


def _leftovers() -> Iterable[Finding]:
    """Processes of clusters whose state file is gone or does not know them."""
    strays: dict[Path, list[int]] = {}
    running: set[Path] = set()
    for process, directory in marked_processes().items():
        try:
            state = load_state(directory)
        except ConfigurationError:
            state = None
        if state is not None and state.processes:
            running.add(directory)
        else:
            strays.setdefault(directory, []).append(process.pid)
    for directory, pids in strays.items():
        yield Finding(
            check="leftovers",
            verdict="advice",
            text=f"processes {', '.join(map(str, pids))} of an interrupted start in {directory}",
            remedy=f"khepri-bridge down --dir {directory}"
            if directory.is_dir()
            else f"kill {' '.join(map(str, pids))}",
        )
    if not strays:
        text = f"none; running clusters: {', '.join(map(str, sorted(running)))}" if running else "none"
        yield Finding(check="leftovers", verdict="good", text=text)


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
