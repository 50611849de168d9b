"""The application's own suites, on the Erlang and the Khepri of an image."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.docker import ROOT, docker_client, tools_image

__all__ = ["docker_client", "tools_image"]

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]


def test_they_pass(docker_client: Any, tools_image: str) -> None:
    container = docker_client.containers.create(
        tools_image,
        # In one container, since both are compiled alike.
        ["sh", "-c", "rebar3 eunit && rebar3 ct"],
        volumes={str(ROOT / "erlang" / "test"): {"bind": "/build/erlang/test", "mode": "ro"}},
        # One suite mounts a small disk.
        cap_add=["SYS_ADMIN"],
    )
    try:
        container.start()
        status = container.wait(timeout=600)["StatusCode"]
        said = container.logs().decode(errors="replace")
        assert status == 0, said[-6000:]
        assert said.count("tests passed") == 2, said[-6000:]
        assert "SKIPPED" not in said
    finally:
        container.remove(force=True, v=True)
