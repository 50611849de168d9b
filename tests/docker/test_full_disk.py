"""A homeserver without room says so in one line, ends, and comes back with its data when there is room."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.support.containers import CommandError, Container, Homeservers, homeservers
from tests.support.docker import docker_client, homeserver_image

__all__ = ["docker_client", "homeserver_image", "homeservers"]

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(300)]

_PUT: Final = '{ok, _} = kb_khepri:put(homeserver, <<"/:stock/wood">>, 7, #{timeout => 5000}).'
_GET: Final = (
    '{ok, #{data := D}} = kb_khepri:get(homeserver, <<"/:stock/wood">>, #{timeout => 5000}), io:write(D).'
)
_WRITE_ON: Final = (
    "Chunk = binary:copy(<<0>>, 65536),"
    'lists:takewhile(fun(_) -> ok =:= element(1, kb_khepri:put(homeserver, <<"/:stock/scratch">>, Chunk,'
    " #{timeout => 2000})) end, lists:seq(1, 500))."
)


def lines(container: Container) -> list[str]:
    """What the homeserver itself said, without what Erlang logged."""
    return [line for line in container.logs().splitlines() if line.startswith("khepri_bridge: ")]


@pytest.fixture
def volume(docker_client: Any) -> Iterator[str]:
    """A disk of 100 MiB in memory, as long as some container holds it."""
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=100m"}
    made = docker_client.volumes.create(
        f"kb-test-{secrets.token_hex(4)}", driver="local", driver_opts=options
    )
    try:
        yield made.name
    finally:
        made.remove(force=True)


def test_a_disk_too_small_to_start_on_is_one_clear_line(homeservers: Homeservers) -> None:
    container = homeservers.start("hs1", tmpfs={"/data": "size=8m"})
    assert container.wait() == 1
    (line,) = container.logs().splitlines()
    assert line.startswith("khepri_bridge: ")
    assert "/data" in line
    assert "KB_MIN_FREE_MB" in line


def test_a_homeserver_may_be_told_that_less_room_is_enough(homeservers: Homeservers) -> None:
    homeservers.start("hs1", tmpfs={"/data": "size=8m"}, environment={"KB_MIN_FREE_MB": "4"})
    homeservers.await_ready("hs1")


def test_a_disk_that_fills_up_ends_the_homeserver_and_loses_nothing(
    docker_client: Any, homeserver_image: str, volume: str, request: pytest.FixtureRequest
) -> None:
    homeservers = Homeservers(docker_client, homeserver_image)
    # Before the volume, which a container must not hold any more.
    request.addfinalizer(homeservers.close)
    mounts: dict[str, Any] = {"volumes": {volume: {"bind": "/data", "mode": "rw"}}}
    ballast = homeservers.run(
        "ballast", homeserver_image, ["infinity"], entrypoint=["sleep"], init=True, **mounts
    )
    node = homeservers.start("hs1", **mounts)
    homeservers.await_ready("hs1")
    homeservers.evaluate("hs1", _PUT)

    ballast.execute("sh", "-c", "dd if=/dev/zero of=/data/ballast bs=1M 2>/dev/null || true")
    # The node may end before it has answered.
    with contextlib.suppress(CommandError):
        homeservers.evaluate("hs1", _WRITE_ON)
    assert node.wait() == 1
    _ready, ended = lines(node)
    assert "disk" in ended

    node.start()
    assert node.wait() == 1
    assert "KB_MIN_FREE_MB" in lines(node)[-1]

    ballast.execute("rm", "/data/ballast")
    node.start()
    homeservers.await_ready("hs1", times=2)
    assert homeservers.evaluate("hs1", _GET) == "7"
