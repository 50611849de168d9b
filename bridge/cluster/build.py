"""The Erlang release of a homeserver: compiled in the clone, or in a cache when it came in a wheel."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import bridge
from bridge.cluster.sources import KHEPRI_VERSION, Report, fetch_sources, missing_sources
from bridge.errors import ConfigurationError

INSTALL_ERLANG: Final = (
    "apt-get install -y rebar3 erlang-base erlang-crypto erlang-ssl erlang-os-mon erlang-tools erlang-inets"
)
_RELEASE: Final = Path("_build/default/rel/khepri_bridge")
_STAMP: Final = "khepri_bridge.stamp"
_BUILD_SECONDS: Final = 300.0
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Where the release is built.

    Attributes:
        root: holds ``rebar.config``, ``erlang/``, ``_checkouts/`` and ``_build/``.
        origin: the sources to copy to ``root`` first; ``None`` where they already lie there (a clone).
    """

    root: Path
    origin: Path | None

    @property
    def release(self) -> Path:
        """Directory of the built release."""
        return self.root / _RELEASE

    @property
    def executable(self) -> Path:
        """The start script inside the release."""
        return self.release / "bin" / "khepri_bridge"

    @property
    def checkouts(self) -> Path:
        """Directory of the sources of Khepri and what it needs."""
        return self.root / "_checkouts"


def workshop() -> Workshop:
    """Where this installation builds.

    Raises:
        ConfigurationError: the installation holds no Erlang sources.
    """
    package = Path(bridge.__file__).resolve().parent
    clone = package.parent
    if (clone / "rebar.config").is_file() and (clone / "erlang").is_dir():
        return Workshop(root=clone, origin=None)
    packed = package / "cluster" / "_erlang"
    if not (packed / "rebar.config").is_file():
        raise ConfigurationError(
            f"this installation holds no Erlang sources (looked in {packed}): install it again"
        )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "khepri-bridge"
    # The hash keeps two builds of one version apart: a wheel made from a changed clone has the same version.
    return Workshop(root=cache / f"{bridge.__version__}-{_digest(packed)[:12]}", origin=packed)


def is_built(place: Workshop) -> bool:
    """Whether the release is there and was made from the present sources by the present Erlang."""
    stamp = place.release / _STAMP
    try:
        return place.executable.exists() and stamp.read_text(encoding="ascii") == _fingerprint(place)
    except OSError:
        return False


def build_release(
    report: Report, *, place: Workshop | None = None, origin: str = "any", force: bool = False
) -> Path:
    """Build the release unless it is up to date; two builds at once wait for each other.

    Args:
        report: is told what happens.
        place: where; the one of this installation when ``None``.
        origin: of Khepri's sources, see `bridge.cluster.sources.fetch_sources`.
        force: build even when nothing changed.

    Returns:
        The release's directory.

    Raises:
        ConfigurationError: Erlang or rebar3 is missing, sources cannot be fetched, or they do not compile.
    """
    place = place or workshop()
    if not force and is_built(place):
        return place.release
    require_erlang()
    with _locked(place.root, report):
        if not force and is_built(place):
            return place.release
        if place.origin is not None:
            _copy_sources(place.origin, place.root)
        fetch_sources(place.checkouts, report, origin=origin)
        report("compiling the Erlang release (about 10 s)")
        _compile(place.root)
        if not place.executable.exists():
            raise ConfigurationError(f"the build made no release at {place.release}")
        (place.release / _STAMP).write_text(_fingerprint(place), encoding="ascii")
    return place.release


def require_erlang() -> None:
    """Check that Erlang and rebar3 can be run.

    Raises:
        ConfigurationError: one of them is missing; the text says how to install it.
    """
    absent = [program for program in ("erl", "epmd", "rebar3") if shutil.which(program) is None]
    if absent:
        raise ConfigurationError(f"{' and '.join(absent)} not found; on Debian, as root: {INSTALL_ERLANG}")


def _compile(root: Path) -> None:
    log = root / "_build" / "build.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        try:
            done = subprocess.run(
                ["rebar3", "release"],
                cwd=root,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=_BUILD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ConfigurationError(
                f"rebar3 did not finish within {_BUILD_SECONDS:.0f} s, see {log}"
            ) from None
    if done.returncode != 0:
        lines = [line.strip() for line in _COLOUR.sub("", log.read_text(errors="replace")).splitlines()]
        # The last line that says something: rebar3 ends with the error, and compilers with the place.
        said = next((line for line in reversed(lines) if line), "it said nothing")
        raise ConfigurationError(f"the Erlang release does not build: {said} (log: {log})")


def _copy_sources(origin: Path, root: Path) -> None:
    """Copy packed sources into the workshop; the target is new, or the leftover of an interrupted copy."""
    for name in ("erlang", "rebar.config"):
        source, target = origin / name, root / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)


def _fingerprint(place: Workshop) -> str:
    """Changes whenever a build would give another result: sources, Khepri's version, Erlang itself."""
    erlang = shutil.which("erl")
    # Not the release number, which costs a start of the virtual machine: the program's path and age do too.
    machine = f"{Path(erlang).resolve()} {Path(erlang).stat().st_mtime_ns}" if erlang else "none"
    missing = ",".join(missing_sources(place.checkouts))
    return hashlib.sha256(f"{_digest(place.root)}|{KHEPRI_VERSION}|{missing}|{machine}".encode()).hexdigest()


def _digest(root: Path) -> str:
    """Hash over names and contents of ``rebar.config`` and ``erlang/``, tests left out."""
    erlang = root / "erlang"
    files = (
        path for path in erlang.rglob("*") if path.is_file() and "test" not in path.relative_to(erlang).parts
    )
    digest = hashlib.sha256()
    for path in (root / "rebar.config", *sorted(files)):
        with contextlib.suppress(FileNotFoundError):
            digest.update(f"{path.relative_to(root)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@contextlib.contextmanager
def _locked(root: Path, report: Report) -> Iterator[None]:
    (root / "_build").mkdir(parents=True, exist_ok=True)
    with (root / "_build" / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another build to finish")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
