"""Containers for tests: a daemon, the images, and homeservers on a network of their own.

By Docker's own command rather than its Python library: that one has no types, type checkers confuse it with
the folder ``docker/``, and builds go through the command anyway.

Fixtures: ``docker_daemon``, ``homeserver_image``, ``simulation_image`` (session), ``homeservers`` (per test).
A test module takes them by importing them, so that tests without Docker never come near a daemon.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
_LABEL: Final = "khepri-bridge.inputs"
_READY: Final = "khepri_bridge: ready"
_INPUTS: Final[Mapping[str, Sequence[str]]] = {
    "homeserver": ("rebar.config", "erlang", "_checkouts", "docker"),
    "simulation": ("rebar.config", "erlang", "bridge", "pyproject.toml", "docker"),
}


def docker(*arguments: str | Path, seconds: float = 60.0) -> str:
    """Standard output of a ``docker`` command that must succeed."""
    done = run_docker(*arguments, seconds=seconds)
    assert done.returncode == 0, f"docker {' '.join(map(str, arguments))}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def run_docker(*arguments: str | Path, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a ``docker`` command that may fail."""
    return subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
    )


@dataclass(frozen=True, slots=True)
class Container:
    """A container that a test started."""

    id: str

    def logs(self) -> str:
        """Everything that it said, both outputs."""
        done = run_docker("logs", self.id)
        return done.stdout + done.stderr

    def is_running(self) -> bool:
        """Whether its first process runs."""
        return docker("inspect", "--format", "{{.State.Running}}", self.id) == "true"

    def wait(self, *, seconds: float = 60.0) -> int:
        """Wait until it has ended; its exit status."""
        return int(docker("wait", self.id, seconds=seconds))

    def execute(self, *command: str) -> str:
        """Standard output of a command inside it that must succeed."""
        return docker("exec", self.id, *command)


@pytest.fixture(scope="session")
def docker_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The machine's daemon, or one that is started for the session and ended with it."""
    if shutil.which("docker") is None:
        pytest.skip("Docker is not installed: apt-get install -y docker.io debootstrap iptables")
    if _answers():
        yield
        return
    with _daemon(tmp_path_factory.mktemp("dockerd")):
        yield


def _answers() -> bool:
    return run_docker("version", "--format", "{{.Server.Version}}").returncode == 0


@contextlib.contextmanager
def _daemon(directory: Path) -> Iterator[None]:
    """Start ``dockerd``; a kernel without overlayfs (a container's, say) gets the plain storage driver."""
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        pytest.skip("no Docker daemon answers, and starting one needs dockerd and root")
    said = ""
    for driver in ("overlay2", "vfs"):
        log = directory / f"{driver}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["dockerd", "--storage-driver", driver, "--pidfile", str(directory / f"{driver}.pid")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            if _await_daemon(process):
                yield
                return
        finally:
            process.terminate()
            process.wait(timeout=60)
        said = log.read_text(errors="replace").strip().rpartition("\n")[2]
    pytest.fail(f"dockerd does not start: {said}")


def _await_daemon(process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + 60.0
    while process.poll() is None and time.monotonic() < deadline:
        if _answers():
            return True
        time.sleep(0.2)
    return False


@pytest.fixture(scope="session")
def homeserver_image(docker_daemon: None) -> str:
    """Tag of the homeserver's image, built when its inputs changed."""
    del docker_daemon
    return _image("homeserver")


@pytest.fixture(scope="session")
def simulation_image(docker_daemon: None) -> str:
    """Tag of the simulation server's image, built when its inputs changed."""
    del docker_daemon
    return _image("simulation")


def _image(kind: str) -> str:
    tag = f"khepri-bridge-{kind}:test"
    digest = _digest(_INPUTS[kind])
    known = run_docker("inspect", "--format", f'{{{{index .Config.Labels "{_LABEL}"}}}}', tag)
    if known.returncode == 0 and known.stdout.strip() == digest:
        return tag
    subprocess.run([ROOT / "scripts/base-image"], check=True, stdin=subprocess.DEVNULL, timeout=300)
    label = f"{_LABEL}={digest}"
    done = run_docker(
        "build", "-f", f"docker/{kind}.Dockerfile", "-t", tag, "--label", label, ".", seconds=600.0
    )
    if done.returncode != 0:
        pytest.fail(f"docker/{kind}.Dockerfile does not build:\n{(done.stdout + done.stderr)[-4000:]}")
    return tag


def _digest(inputs: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for name in inputs:
        top = ROOT / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            below = path.relative_to(ROOT)
            if path.is_file() and not {"__pycache__", "test"} & set(below.parts):
                digest.update(f"{below}\0{path.stat().st_mode & 0o111}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


class Homeservers:
    """Homeserver containers on one network; the node in container ``hs1`` is ``hs1@hs1.kb``."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.cookie = secrets.token_hex(16)
        self.network = f"kb-test-{secrets.token_hex(4)}"
        self.containers: dict[str, Container] = {}
        # Internal: nothing in a test has business outside, and no address translation is needed.
        docker("network", "create", "--internal", self.network)

    def start(
        self,
        name: str,
        *,
        seed: str = "",
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Container:
        """Start one homeserver.

        Args:
            name: short name, which is also the node's name before the ``@``.
            seed: short name of the homeserver to join through; none for the first.
            options: of ``docker run``, for example ``["--tmpfs", "/data:size=8m"]``.
            environment: variables beside the usual ones, or in their place.
        """
        variables = {
            "KB_NODE": f"{name}@{name}.kb",
            "KB_COOKIE": self.cookie,
            "KB_SEED": f"{seed}@{seed}.kb" if seed else "",
            **(environment or {}),
        }
        settings = [word for key, value in variables.items() for word in ("--env", f"{key}={value}")]
        return self.run(name, self.image, options=[*settings, *options])

    def run(self, name: str, image: str, *command: str, options: Sequence[str] = ()) -> Container:
        """Start any container on the network, reachable as ``<name>.kb``."""
        host = f"{name}.kb"
        place = ("--network", self.network, "--hostname", host, "--network-alias", host)
        self.containers[name] = Container(docker("run", "--detach", *place, *options, image, *command))
        return self.containers[name]

    def await_ready(self, name: str, *, seconds: float = 60.0) -> None:
        """Wait until the node says that it is a member."""
        container = self.containers[name]
        deadline = time.monotonic() + seconds
        while _READY not in (said := container.logs()):
            if not container.is_running() or time.monotonic() > deadline:
                pytest.fail(f"{name} did not get ready:\n{said[-3000:]}")
            time.sleep(0.1)

    def evaluate(self, name: str, expressions: str) -> str:
        """What Erlang expressions print on the node in container ``name``."""
        return self.containers[name].execute("homeserver-eval", expressions)

    def health(self, name: str) -> dict[str, Any]:
        """Members, leader and OTP release as the node in container ``name`` sees them."""
        printed = self.evaluate(
            name,
            "{ok, H} = kb_api:health(homeserver),"
            'Names = [["\\"", atom_to_list(N), "\\""] || N <- maps:get(members, H)],'
            'io:format("{\\"members\\":[~s],\\"leader\\":\\"~s\\",\\"otp\\":\\"~s\\"}",'
            ' [lists:join(",", Names), maps:get(leader, H), maps:get(otp, H)]).',
        )
        health: dict[str, Any] = json.loads(printed)
        return health

    def close(self) -> None:
        """Remove everything that was made."""
        for container in self.containers.values():
            run_docker("rm", "--force", "--volumes", container.id)
        docker("network", "rm", self.network)


@pytest.fixture
def homeservers(homeserver_image: str) -> Iterator[Homeservers]:
    """An empty network for homeservers; all containers are removed in the end."""
    started = Homeservers(homeserver_image)
    try:
        yield started
    finally:
        started.close()
