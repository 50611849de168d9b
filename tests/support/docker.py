"""Containers for tests: a daemon, the images, and homeservers on a network of their own.

Fixtures: ``docker_client``, ``homeserver_image``, ``simulation_image`` (session), ``homeservers`` (per test).
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

import docker
from docker.errors import DockerException, ImageNotFound, NotFound

ROOT: Final = Path(__file__).parents[2]
_LABEL: Final = "khepri-bridge.inputs"
_READY: Final = "khepri_bridge: ready"
_HOMESERVER_INPUTS: Final = ("rebar.config", "erlang", "_checkouts", "docker/homeserver.Dockerfile", "docker/homeserver-entrypoint", "docker/homeserver-eval")
_SIMULATION_INPUTS: Final = ("pyproject.toml", "bridge", "erlang", "rebar.config", "docker/simulation.Dockerfile")


@pytest.fixture(scope="session")
def docker_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[docker.DockerClient]:
    """A client of the machine's daemon, or of one that is started for the session and ended with it."""
    with contextlib.ExitStack() as cleanup:
        client = _connect()
        if client is None:
            client = cleanup.enter_context(_daemon(tmp_path_factory.mktemp("dockerd")))
        cleanup.callback(client.close)
        yield client


def _connect() -> docker.DockerClient | None:
    try:
        client = docker.from_env(timeout=120)
    except DockerException:
        return None
    try:
        client.ping()
    except DockerException:
        client.close()
        return None
    return client


@contextlib.contextmanager
def _daemon(directory: Path) -> Iterator[docker.DockerClient]:
    """Start ``dockerd``; a kernel without overlayfs (a container, say) gets the plain storage driver."""
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
            said = log.read_text(errors="replace").strip().rpartition("\n")[2]
        finally:
            process.terminate()
            process.wait(timeout=60)
    pytest.fail(f"dockerd does not start: {said}")


def _await_daemon(process: subprocess.Popen[bytes]) -> docker.DockerClient | None:
    deadline = time.monotonic() + 60.0
    while process.poll() is None and time.monotonic() < deadline:
        if (client := _connect()) is not None:
            return client
        time.sleep(0.2)
    return None


@pytest.fixture(scope="session")
def homeserver_image(docker_client: docker.DockerClient) -> str:
    """Tag of the homeserver's image, built when its inputs changed."""
    return _image(docker_client, "homeserver", _HOMESERVER_INPUTS)


@pytest.fixture(scope="session")
def simulation_image(docker_client: docker.DockerClient) -> str:
    """Tag of the simulation server's image, built when its inputs changed."""
    return _image(docker_client, "simulation", _SIMULATION_INPUTS)


def _image(client: docker.DockerClient, kind: str, inputs: Sequence[str]) -> str:
    tag = f"khepri-bridge-{kind}:test"
    digest = _digest(inputs)
    with contextlib.suppress(ImageNotFound):
        if client.images.get(tag).labels.get(_LABEL) == digest:
            return tag
    subprocess.run([ROOT / "scripts/base-image"], check=True, stdin=subprocess.DEVNULL, timeout=300)
    # The command, not the library: it reads .dockerignore as people's builds do, and shows where a build failed.
    done = subprocess.run(
        ["docker", "build", "-q", "-f", f"docker/{kind}.Dockerfile", "-t", tag, "--label", f"{_LABEL}={digest}", "."],
        cwd=ROOT,
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"docker/{kind}.Dockerfile does not build:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return tag


def _digest(inputs: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for name in inputs:
        top = ROOT / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts and "test" not in path.relative_to(ROOT).parts:
                digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_mode & 0o111}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


class Homeservers:
    """Homeserver containers on one network; the node in container ``hs1`` is ``hs1@hs1.kb``."""

    def __init__(self, client: docker.DockerClient, image: str) -> None:
        self.client = client
        self.image = image
        self.cookie = secrets.token_hex(16)
        self.network: Any = client.networks.create(f"kb-test-{secrets.token_hex(4)}", internal=True)
        self.containers: dict[str, Any] = {}

    def start(self, name: str, *, seed: str = "", command: Sequence[str] = ("foreground",), **options: Any) -> Any:
        """Start one container.

        Args:
            name: short name, which is also the node's name before the ``@``.
            seed: short name of the homeserver to join through; none for the first.
            command: argument of the release's start script.
            options: of ``docker run``, for example ``tmpfs={"/data": "size=8m"}``.
        """
        host = f"{name}.kb"
        environment = {
            "KB_NODE": f"{name}@{host}",
            "KB_COOKIE": self.cookie,
            "KB_SEED": f"{seed}@{seed}.kb" if seed else "",
            **options.pop("environment", {}),
        }
        return self.run(name, self.image, list(command), environment=environment, **options)

    def run(self, name: str, image: str, command: Sequence[str], **options: Any) -> Any:
        """Start any container on the network, reachable as ``<name>.kb``."""
        host = f"{name}.kb"
        container = self.client.containers.create(
            image, list(command), hostname=host, network=self.network.name, detach=True, **options
        )
        self.containers[name] = container
        # The alias by a second connection: `create` has no option for it, and a container's own name has no dot.
        self.network.disconnect(container)
        self.network.connect(container, aliases=[host])
        container.start()
        return container

    def await_ready(self, name: str, *, seconds: float = 60.0) -> None:
        """Wait until the node says that it is a member."""
        container = self.containers[name]
        deadline = time.monotonic() + seconds
        while _READY not in (said := container.logs().decode(errors="replace")):
            container.reload()
            if container.status == "exited" or time.monotonic() > deadline:
                pytest.fail(f"{name} ({container.status}) did not get ready:\n{said[-3000:]}")
            time.sleep(0.1)

    def eval(self, name: str, expression: str) -> str:
        """Value of an Erlang expression on the node in container ``name``, as Erlang prints it."""
        code, output = self.containers[name].exec_run(["homeserver-eval", expression])
        assert code == 0, output.decode(errors="replace")
        return str(output.decode().strip())

    def health(self, name: str) -> dict[str, Any]:
        """Members, leader and OTP release as the node in container ``name`` sees them."""
        text = self.eval(
            name,
            "{ok, H} = kb_api:health(homeserver),"
            'Names = [["\\"", atom_to_list(N), "\\""] || N <- maps:get(members, H)],'
            'io:format("{\\"members\\":[~s],\\"leader\\":\\"~s\\",\\"otp\\":\\"~s\\"}",'
            ' [lists:join(",", Names), maps:get(leader, H), maps:get(otp, H)]).',
        )
        health: dict[str, Any] = json.loads(text)
        return health

    def close(self) -> None:
        """Remove everything that was made."""
        for container in self.containers.values():
            with contextlib.suppress(NotFound):
                container.remove(force=True, v=True)
        self.network.remove()


@pytest.fixture
def homeservers(docker_client: docker.DockerClient, homeserver_image: str) -> Iterator[Homeservers]:
    """An empty network for homeservers; all containers are removed in the end."""
    started = Homeservers(docker_client, homeserver_image)
    try:
        yield started
    finally:
        started.close()
