"""The homeserver's image on OTP 27, the simulation server's on Python 3.13."""

from __future__ import annotations

import json

import pytest

import docker
from tests.support.docker import (
    Homeservers,
    docker_client,
    homeserver_image,
    homeservers,
    simulation_image,
)

__all__ = ["docker_client", "homeserver_image", "homeservers", "simulation_image"]

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]


def test_three_containers_form_one_cluster(homeservers: Homeservers) -> None:
    for name in ("hs1", "hs2", "hs3"):
        homeservers.start(name, seed="" if name == "hs1" else "hs1")
        homeservers.await_ready(name)
    expected = ["hs1@hs1.kb", "hs2@hs2.kb", "hs3@hs3.kb"]
    for name in ("hs1", "hs2", "hs3"):
        health = homeservers.health(name)
        assert sorted(health["members"]) == expected
        assert health["leader"] in expected
        assert health["otp"] == "27"


def test_a_full_disk_is_one_clear_line(homeservers: Homeservers) -> None:
    container = homeservers.start("hs1", tmpfs={"/data": "size=8m"})
    status = container.wait(timeout=60)["StatusCode"]
    said = [line for line in container.logs().decode().splitlines() if line.startswith("khepri_bridge: ")]
    assert status != 0
    assert len(said) == 1, container.logs().decode()
    assert "/data" in said[0]


def test_a_missing_cookie_is_one_clear_line(homeservers: Homeservers) -> None:
    container = homeservers.start("hs1", environment={"KB_COOKIE": ""})
    assert container.wait(timeout=60)["StatusCode"] == 1
    assert container.logs().decode().count("\n") == 1
    assert "no cookie" in container.logs().decode()


def test_a_node_stops_in_order_with_its_container(homeservers: Homeservers) -> None:
    container = homeservers.start("hs1")
    homeservers.await_ready("hs1")
    container.stop(timeout=30)
    assert container.wait()["StatusCode"] == 0


def test_the_command_runs_on_the_images_own_python(
    docker_client: docker.DockerClient, simulation_image: str
) -> None:
    def output(*command: str, entrypoint: str | None = None) -> str:
        options = {} if entrypoint is None else {"entrypoint": entrypoint}
        said: bytes = docker_client.containers.run(simulation_image, list(command), remove=True, **options)
        return said.decode()

    assert "Example" not in output("--help")
    assert output("--version").startswith("khepri-bridge ")
    assert output("--version", entrypoint="python3").startswith("Python 3.13")
    key = json.loads(output("box", "keygen", "--json").splitlines()[-1])
    assert key["private"]["crv"] == "P-256"
