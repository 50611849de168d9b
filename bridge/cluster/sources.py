"""Khepri's own sources, and those of what it needs, as plain directories that rebar3 builds.

Two origins give the same six directories:

* ``hex``: rebar3 asks the registry of Erlang packages for the pinned version and checks its checksums.
* ``debian``: the source package of RabbitMQ in Debian carries them below ``deps/``. apt checks the archive's
  signature; it runs as any user, in directories of its own, and leaves the machine's package state alone.

They go into ``_checkouts/``, which rebar3 prefers to every other place, so a build asks nothing of a network.
Real directories, no links: container images copy them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bridge.errors import ConfigurationError

KHEPRI_VERSION: Final = "0.16.0"
APPLICATIONS: Final = ("khepri", "ra", "aten", "gen_batch_server", "horus", "seshat")

_DEBIAN_SUITE: Final = "trixie"
"""Debian 13: its RabbitMQ 4.0 carries Khepri 0.16.0 and the Ra that belongs to it."""
_DEBIAN_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SOURCE_PACKAGE: Final = "rabbitmq-server"
_HEX_SECONDS: Final = 25.0
"""How long the registry may take: six small packages take 3 s, and a walled machine should fall back soon."""
_APT_SECONDS: Final = 180.0
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")

Report = Callable[[str], None]
"""Takes one line that says what is being done."""


def missing_sources(checkouts: Path) -> list[str]:
    """Names of the applications that are not in ``checkouts`` yet."""
    return [name for name in APPLICATIONS if not any((checkouts / name / "src").glob("*.app.src"))]


def fetch_sources(checkouts: Path, report: Report, *, origin: str = "any") -> None:
    """Put the sources of Khepri and what it needs into ``checkouts``; nothing to do when they are there.

    Args:
        checkouts: directory that receives one directory per application; made if missing.
        report: is told what happens.
        origin: ``hex``, ``debian``, or ``any`` (the registry first, then Debian).

    Raises:
        ConfigurationError: no origin gave them; the text holds what each one said.
    """
    origins = {"hex": _from_hex, "debian": _from_debian}
    if origin != "any" and origin not in origins:
        raise ConfigurationError(f"unknown origin of sources {origin!r}: use hex, debian or any")
    if not missing_sources(checkouts):
        return
    checkouts.mkdir(parents=True, exist_ok=True)
    refusals: list[str] = []
    for name, fetch in origins.items():
        if origin not in ("any", name):
            continue
        report(f"fetching Khepri {KHEPRI_VERSION} ({name})")
        # Beside the target: the last step is a rename, so an interrupted fetch leaves no half directory.
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=checkouts) as scratch:
            try:
                found = fetch(Path(scratch))
            except ConfigurationError as error:
                refusals.append(f"{name}: {error}")
                continue
            for application in APPLICATIONS:
                target = checkouts / application
                shutil.rmtree(target, ignore_errors=True)
                (found / application).rename(target)
        return
    raise ConfigurationError(f"Khepri's sources could not be fetched ({'; '.join(refusals)})")


def _from_hex(scratch: Path) -> Path:
    """Let rebar3 resolve and fetch the pinned version in an empty project."""
    rebar3 = shutil.which("rebar3")
    if rebar3 is None:
        raise ConfigurationError("rebar3 is not installed")
    (scratch / "rebar.config").write_text(f'{{deps, [{{khepri, "{KHEPRI_VERSION}"}}]}}.\n', encoding="utf-8")
    _run([rebar3, "get-deps"], cwd=scratch, timeout=_HEX_SECONDS)
    return _complete(scratch / "_build" / "default" / "lib")


def _from_debian(scratch: Path) -> Path:
    """Take them out of Debian's source package of RabbitMQ, verified by apt."""
    if shutil.which("apt-get") is None:
        raise ConfigurationError("this machine has no apt-get")
    if not _DEBIAN_KEYRING.exists():
        raise ConfigurationError(f"{_DEBIAN_KEYRING} is missing (package debian-archive-keyring)")
    refusal = "no Debian archive is configured on this machine"
    for number, archive in enumerate(_archives()):
        room = scratch / f"apt{number}"
        try:
            return _from_archive(archive, room)
        except ConfigurationError as error:
            refusal = str(error)
    raise ConfigurationError(refusal)


def _archives() -> list[str]:
    """Addresses of the Debian archives of this machine, whatever the format of its lists; security last."""
    output = _run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "--no-release-info", "Identifier: Packages"],
        timeout=_APT_SECONDS,
    )
    addresses = dict.fromkeys(line.strip() for line in output.splitlines() if line.strip())
    debian = [address for address in addresses if "debian" in address]
    return sorted(debian, key=lambda address: "security" in address)


def _from_archive(archive: str, room: Path) -> Path:
    for folder in ("parts", "lists/partial", "cache/archives/partial"):
        (room / folder).mkdir(parents=True)
    (room / "parts" / "debian.sources").write_text(
        f"Types: deb-src\nURIs: {archive}\nSuites: {_DEBIAN_SUITE}\nComponents: main\n"
        f"Signed-By: {_DEBIAN_KEYRING}\n",
        encoding="utf-8",
    )
    apt = [
        "apt-get",
        "--quiet",
        *("-o", "Dir::Etc::SourceList=/dev/null"),
        *("-o", f"Dir::Etc::SourceParts={room / 'parts'}"),
        *("-o", f"Dir::State::Lists={room / 'lists'}"),
        *("-o", f"Dir::Cache={room / 'cache'}"),
        # The sandbox user of apt may not enter a directory of ours; what it fetches is verified afterwards.
        *("-o", "APT::Sandbox::User="),
        *("-o", "APT::Update::Error-Mode=any"),
    ]
    _run([*apt, "update"], cwd=room, timeout=_APT_SECONDS)
    _run([*apt, "source", "--download-only", _SOURCE_PACKAGE], cwd=room, timeout=_APT_SECONDS)
    archives = sorted(room.glob("*.orig.tar.*"))
    tarball = next((path for path in archives if path.suffix != ".asc"), None)
    if tarball is None:
        raise ConfigurationError(f"Debian's source package {_SOURCE_PACKAGE} holds no upstream archive")
    target = room / "sources"
    target.mkdir()
    with tarfile.open(tarball) as archive_file:
        for member in archive_file:
            parts = Path(member.name).parts
            wanted = len(parts) > 3 and parts[1] == "deps" and parts[2] in APPLICATIONS and ".." not in parts
            if not wanted or (content := archive_file.extractfile(member)) is None:
                continue
            # By hand: `extract(filter="data")` came with Python 3.11.4, and Debian 12 has 3.11.2.
            path = target.joinpath(*parts[2:])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())
    return _complete(target)


def _complete(found: Path) -> Path:
    if missing := missing_sources(found):
        raise ConfigurationError(f"what was fetched lacks {', '.join(missing)}")
    return found


def _run(command: Sequence[str], *, timeout: float, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"{command[0]} did not answer within {timeout:.0f} s") from None
    except OSError as error:
        raise ConfigurationError(f"{command[0]} cannot be run: {error}") from None
    if done.returncode != 0:
        output = _COLOUR.sub("", done.stderr + done.stdout)
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        said = next(
            (line for line in lines if line.startswith(("E:", "===>"))), lines[-1] if lines else "nothing"
        )
        raise ConfigurationError(f"{Path(command[0]).name} failed: {said}")
    return done.stdout
