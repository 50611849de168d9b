"""Docker for tests: a daemon, a client of it, and this project's images.

Fixtures: ``docker_client``, ``homeserver_image``, ``simulation_image``, ``broker_image`` (session). A test
module takes them by importing them, so that tests without Docker never come near a daemon.

The Python package ``docker`` has no types, and its name is that of the folder ``docker/`` at the top, which a
type checker would read in its place: it is loaded by name here and nowhere else, and its objects are ``Any``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TextIO

import pytest

ROOT: Final = Path(__file__).parents[2]
REQUEST_SECONDS: Final = 300
"""how long the daemon may stay silent: a step of a build prints nothing while it compiles"""
_OTHERS_SECONDS: Final = 900.0
"""how long the session that started the daemon waits for others that use it, each with all of its tests"""
_LABEL: Final = "khepri-bridge.inputs"


@dataclass(frozen=True, slots=True)
class Image:
    """How an image is made."""

    dockerfile: str
    """below ``docker/``"""
    inputs: Sequence[str]
    """what it is made of, as patterns below the top: it is built again when one of them changed"""
    arguments: Mapping[str, str] = field(default_factory=dict)
    """of the build"""
    stage: str | None = None
    """of a build of several; the last one when ``None``"""

    @property
    def suite(self) -> str:
        """Debian's, whose base image is needed."""
        return self.arguments.get("SUITE", "trixie")


_ERLANG: Final = (".dockerignore", "rebar.config", "erlang", "_checkouts")
_HOMESERVER: Final = Image("homeserver.Dockerfile", (*_ERLANG, "docker/homeserver*", "docker/inetrc"))
_BROKER: Final = Image(
    "rabbitmq.Dockerfile", (".dockerignore", "erlang", "docker/rabbitmq*", "scripts/rabbitmq-plugin")
)
_TESTING: Final = {"SUITE": "testing"}
IMAGES: Final[Mapping[str, Image]] = {
    "homeserver": _HOMESERVER,
    # What a cluster of the one above is upgraded to.
    "homeserver-testing": replace(_HOMESERVER, arguments={**_TESTING, "KHEPRI": "rabbitmq"}),
    # With compiler and tools, for tests that start Erlang nodes of their own.
    "otp27": replace(_HOMESERVER, stage="build"),
    "otp29": replace(_HOMESERVER, stage="build", arguments={**_TESTING, "KHEPRI": "rabbitmq"}),
    "broker": _BROKER,
    "broker-testing": replace(_BROKER, arguments=_TESTING),
    "simulation": Image(
        "simulation.Dockerfile",
        (".dockerignore", "docker/simulation*", "pyproject.toml", "rebar.config", "erlang", "bridge"),
    ),
}


@pytest.fixture(scope="session")
def docker_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A ``DockerClient`` of the machine's daemon, or of one that is started and ended with the session."""
    with daemon_client(tmp_path_factory.mktemp("dockerd")) as client:
        yield client


@contextlib.contextmanager
def daemon_client(directory: Path) -> Iterator[Any]:
    """The same as a context; a daemon that must be started keeps its files in ``directory``."""
    if shutil.which("docker") is None:
        pytest.skip("Docker is not installed: apt-get install -y docker.io debootstrap iptables")
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context((Path(tempfile.gettempdir()) / "khepri-bridge-dockerd.lock").open("w"))
        # Held shared while the daemon is used, so that its starter does not end it under another session.
        fcntl.flock(lock, fcntl.LOCK_SH)
        while (client := _connect()) is None:
            if _lock_alone(lock, seconds=0.0):
                client = stack.enter_context(_daemon(directory))
                stack.callback(_lock_alone, lock, seconds=_OTHERS_SECONDS)
                fcntl.flock(lock, fcntl.LOCK_SH)
                break
            time.sleep(random.uniform(0.1, 0.5))
            fcntl.flock(lock, fcntl.LOCK_SH)
        stack.callback(client.close)
        yield client


def _lock_alone(lock: TextIO, *, seconds: float) -> bool:
    """Whether within a time no other session held the lock any more; if not, nothing is held here."""
    fcntl.flock(lock, fcntl.LOCK_UN)
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.2)
        else:
            return True


def _connect() -> Any | None:
    # Asked by the command first: where nobody listens, the library leaves its socket open.
    asked = ["docker", "version", "--format", "{{.Server.Version}}"]
    if subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, timeout=60).returncode != 0:
        return None
    return importlib.import_module("docker").from_env(timeout=REQUEST_SECONDS)


@contextlib.contextmanager
def _daemon(directory: Path) -> Iterator[Any]:
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
            client = _await_daemon(process)
            if client is not None:
                yield client
                return
        finally:
            process.terminate()
            process.wait(timeout=60)
        said = log.read_text(errors="replace").strip().rpartition("\n")[2]
    pytest.fail(f"dockerd does not start: {said}")


def _await_daemon(process: subprocess.Popen[bytes]) -> Any | None:
    deadline = time.monotonic() + 60.0
    while process.poll() is None and time.monotonic() < deadline:
        client = _connect()
        if client is not None:
            return client
        time.sleep(0.2)
    return None


@pytest.fixture(scope="session")
def homeserver_image(docker_client: Any) -> str:
    """Tag of the homeserver's image, built when its inputs changed."""
    return built_image(docker_client, "homeserver")


@pytest.fixture(scope="session")
def newer_homeserver_image(docker_client: Any) -> str:
    """Tag of the homeserver's image with the Erlang and the Khepri of Debian testing."""
    return built_image(docker_client, "homeserver-testing")


@pytest.fixture(scope="session")
def simulation_image(docker_client: Any) -> str:
    """Tag of the simulation server's image, built when its inputs changed."""
    return built_image(docker_client, "simulation")


@pytest.fixture(scope="session", params=["otp27", pytest.param("otp29", marks=pytest.mark.matrix)])
def tools_image(docker_client: Any, request: pytest.FixtureRequest) -> str:
    """Tag of an image with Erlang's tools and our sources: of Debian 13, and with the matrix of testing."""
    return built_image(docker_client, request.param)


@pytest.fixture(scope="session", params=["broker", pytest.param("broker-testing", marks=pytest.mark.matrix)])
def broker_image(docker_client: Any, request: pytest.FixtureRequest) -> str:
    """Tag of a RabbitMQ broker's image with our plugin: of Debian 13, and with the matrix of testing."""
    return built_image(docker_client, request.param)


def built_image(client: Any, name: str) -> str:
    """Tag of an image of ``IMAGES``, built when its inputs changed; of several sessions, by the first."""
    with (Path(tempfile.gettempdir()) / f"khepri-bridge-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _built_image(client, name)


def _built_image(client: Any, name: str) -> str:
    image = IMAGES[name]
    errors = importlib.import_module("docker.errors")
    tag = f"khepri-bridge-{name}:test"
    digest = _digest(image.inputs)
    with contextlib.suppress(errors.ImageNotFound):
        if client.images.get(tag).labels.get(_LABEL) == digest:
            return tag
    base = subprocess.run(
        [ROOT / "scripts/base-image", image.suite],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if base.returncode != 0:
        pytest.fail(f"scripts/base-image failed:\n{base.stderr}")
    try:
        client.images.build(
            path=str(ROOT),
            dockerfile=f"docker/{image.dockerfile}",
            tag=tag,
            labels={_LABEL: digest},
            buildargs=dict(image.arguments),
            target=image.stage or "",
            rm=True,
            forcerm=True,
        )
    except errors.BuildError as error:
        log = "".join(line.get("stream", "") for line in error.build_log)
        pytest.fail(f"docker/{image.dockerfile} does not build: {error}\n{log[-4000:]}")
    return tag


def _digest(inputs: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for top in (found for pattern in inputs for found in sorted(ROOT.glob(pattern))):
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            below = path.relative_to(ROOT)
            if path.is_file() and not {"__pycache__", "test"} & set(below.parts):
                digest.update(f"{below}\0{path.stat().st_mode & 0o111}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()
