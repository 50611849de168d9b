"""The homeserver's image on OTP 27, the simulation server's on Python 3.13."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.containers import Homeservers, homeservers, output_of
from tests.support.docker import docker_client, homeserver_image, simulation_image

__all__ = ["docker_client", "homeserver_image", "homeservers", "simulation_image"]

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]


def test_three_containers_form_one_cluster(homeservers: Homeservers) -> None:
    homeservers.start_cluster("hs1", "hs2", "hs3")
    expected = ["hs1@hs1.kb", "hs2@hs2.kb", "hs3@hs3.kb"]
    for name in ("hs1", "hs2", "hs3"):
        health = homeservers.health(name)
        assert sorted(health["members"]) == expected
        assert health["leader"] in expected
        assert health["otp"] == "27"


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
    assert container.stop() == 0


def test_a_start_that_is_killed_before_it_gives_the_cookie_away_does_not_keep_the_node_from_starting(
    homeservers: Homeservers,
) -> None:
    container = homeservers.start("hs1")
    homeservers.await_ready("hs1")
    container.execute("chown", "root:root", "/data/.erlang.cookie")
    container.stop()
    container.start()
    homeservers.await_ready("hs1", times=2)


def test_the_node_is_not_root(homeservers: Homeservers) -> None:
    container = homeservers.start("hs1")
    homeservers.await_ready("hs1")
    assert container.execute("stat", "--format", "%U", "/proc/1") == "khepri"


def test_the_command_runs_on_the_images_own_python(docker_client: Any, simulation_image: str) -> None:
    def output(*command: str, entrypoint: str | None = None) -> str:
        return output_of(docker_client, simulation_image, *command, entrypoint=entrypoint)

    assert output("--version").startswith("khepri-bridge ")
    assert output("--version", entrypoint="python3").startswith("Python 3.13")
    key = json.loads(output("box", "keygen", "--json").splitlines()[-1])
    assert key["private"]["crv"] == "P-256"
