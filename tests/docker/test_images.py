"""The homeserver's image on OTP 27, the simulation server's on Python 3.13."""

from __future__ import annotations

import json

import pytest

from tests.support.docker import (
    Homeservers,
    docker,
    docker_daemon,
    homeserver_image,
    homeservers,
    simulation_image,
)

__all__ = ["docker_daemon", "homeserver_image", "homeservers", "simulation_image"]

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
    container = homeservers.start("hs1", options=["--tmpfs", "/data:size=32k"])
    assert container.wait() != 0
    said = [line for line in container.logs().splitlines() if line.startswith("khepri_bridge: ")]
    assert len(said) == 1, container.logs()
    assert "/data" in said[0]


def test_a_missing_cookie_is_one_clear_line(homeservers: Homeservers) -> None:
    container = homeservers.start("hs1", environment={"KB_COOKIE": ""})
    assert container.wait() == 1
    assert (
        container.logs()
        == "khepri_bridge: no cookie: mount a file at /run/secrets/cookie, or set KB_COOKIE\n"
    )


def test_a_node_stops_in_order_with_its_container(homeservers: Homeservers) -> None:
    container = homeservers.start("hs1")
    homeservers.await_ready("hs1")
    docker("stop", "--time", "30", container.id)
    assert container.wait() == 0


def test_the_node_is_not_root(homeservers: Homeservers) -> None:
    homeservers.start("hs1")
    homeservers.await_ready("hs1")
    assert homeservers.containers["hs1"].execute("stat", "--format", "%U", "/proc/1").strip() == "khepri"


def test_the_command_runs_on_the_images_own_python(simulation_image: str) -> None:
    assert docker("run", "--rm", simulation_image, "--version").startswith("khepri-bridge ")
    version = docker("run", "--rm", "--entrypoint", "python3", simulation_image, "--version")
    assert version.startswith("Python 3.13")
    key = json.loads(docker("run", "--rm", simulation_image, "box", "keygen", "--json").splitlines()[-1])
    assert key["private"]["crv"] == "P-256"
