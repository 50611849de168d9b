"""Homeservers and simulation servers in containers, on a network of their own.

Fixture: ``homeservers`` (per test), an empty network whose containers are all removed in the end.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pytest

_READY: Final = "khepri_bridge: ready"
_POLL_SECONDS: Final = 0.1


class CommandError(Exception):
    """A command inside a container failed; the text holds what it printed."""


@dataclass(frozen=True, slots=True)
class Container:
    """A container that a test started.

    Attributes:
        handle: the library's own object.
    """

    handle: Any

    @property
    def id(self) -> str:
        """Its id, which the command ``docker`` takes too."""
        return str(self.handle.id)

    def logs(self) -> str:
        """Everything that it said, both outputs."""
        return str(self.handle.logs().decode(errors="replace"))

    def is_running(self) -> bool:
        """Whether its first process runs."""
        self.handle.reload()
        return bool(self.handle.attrs["State"]["Running"])

    def wait(self, *, seconds: float = 60.0) -> int:
        """Wait until it has ended; its exit status."""
        return int(self.handle.wait(timeout=seconds)["StatusCode"])

    def kill(self) -> None:
        """End it without asking: as a power cut, seen from outside."""
        self.handle.kill(signal="KILL")
        self.wait()

    def start(self) -> None:
        """Start it again, with the data it had."""
        self.handle.start()

    def stop(self, *, seconds: int = 30) -> int:
        """Ask it to end; its exit status (137: it was killed after that time)."""
        self.handle.stop(timeout=seconds)
        return self.wait()

    def execute(self, *command: str) -> str:
        """Standard output of a command inside it.

        Raises:
            CommandError: it did not end with status 0.
        """
        status, outputs = self.handle.exec_run(list(command), demux=True)
        out, error = ((output or b"").decode(errors="replace") for output in outputs)
        if status != 0:
            raise CommandError(f"{command[0]} ended with status {status}: {out}{error}")
        return out.strip()


class Homeservers:
    """Containers on one network; the node in container ``hs1`` is ``hs1@hs1.kb``."""

    def __init__(self, client: Any, image: str) -> None:
        self.image = image
        self.cookie = secrets.token_hex(16)
        self.containers: dict[str, Container] = {}
        self._client = client
        # Internal: nothing in a test has business outside, and no address translation is needed.
        self._network = client.networks.create(f"kb-test-{secrets.token_hex(4)}", internal=True)

    def start(
        self,
        name: str,
        *,
        seed: str = "",
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Container:
        """Start one homeserver.

        Args:
            name: short name, which is also the node's name before the ``@``.
            seed: short name of the homeserver to join through; none for the first.
            environment: variables beside the usual ones, or in their place.
            options: of the library's ``containers.run``, for example ``tmpfs={"/data": "size=8m"}``.
        """
        variables = {
            "KB_NODE": node_name(name),
            "KB_COOKIE": self.cookie,
            "KB_SEED": node_name(seed) if seed else "",
            **(environment or {}),
        }
        return self.run(name, self.image, environment=variables, **options)

    def start_cluster(self, *names: str) -> None:
        """Start homeservers one after the other, each joining through the first."""
        for name in names:
            self.start(name, seed="" if name == names[0] else names[0])
            self.await_ready(name)

    def run(self, name: str, image: str, command: Sequence[str] = (), **options: Any) -> Container:
        """Start any container on the network, reachable as ``<name>.kb``."""
        host = host_name(name)
        place = self._client.api.create_endpoint_config(aliases=[host])
        handle = self._client.containers.create(
            image,
            list(command) or None,
            hostname=host,
            network=self._network.name,
            networking_config={self._network.name: place},
            **options,
        )
        # Known before it starts, so that one that does not start is removed too.
        self.containers[name] = Container(handle)
        handle.start()
        return self.containers[name]

    def address(self, name: str) -> str:
        """Numeric address of a container on the network."""
        handle = self.containers[name].handle
        handle.reload()
        return str(handle.attrs["NetworkSettings"]["Networks"][self._network.name]["IPAddress"])

    def cut_off(self, name: str) -> None:
        """Take a container off the network: its interface is gone, its sockets hear nothing of it."""
        self._network.disconnect(self.containers[name].handle)

    def reconnect(self, name: str) -> None:
        """Put a container that was cut off back, perhaps with another address."""
        self._network.connect(self.containers[name].handle, aliases=[host_name(name)])

    def await_ready(self, name: str, *, times: int = 1, seconds: float = 60.0) -> None:
        """Wait until the node has said ``times`` times, over all its starts, that it is a member."""
        container = self.containers[name]
        deadline = time.monotonic() + seconds
        while (said := container.logs()).count(_READY) < times:
            if not container.is_running() or time.monotonic() > deadline:
                pytest.fail(f"{name} did not get ready:\n{said[-3000:]}")
            time.sleep(_POLL_SECONDS)

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

    def leader(self, name: str) -> str:
        """Short name of the leader as the node in container ``name`` sees it."""
        return str(self.health(name)["leader"]).partition("@")[0]

    def epochs(self, name: str) -> dict[str, int]:
        """Epoch of every entity, asked of the leader through ``name``: nothing acknowledged is missing."""
        printed = self.evaluate(
            name,
            '{ok, Found} = kb_khepri:get_many(homeserver, <<"/:bridge/:entities/*">>,'
            " #{favor => consistency, timeout => 10000}),"
            'Pairs = [io_lib:format("\\"~s\\":~b", [Entity, Epoch])'
            " || #{data := #{entity := Entity, epoch := Epoch}} <- maps:values(Found)],"
            'io:format("{~s}", [lists:join(",", Pairs)]).',
        )
        epochs: dict[str, int] = json.loads(printed)
        return epochs

    def entities(self, name: str) -> dict[str, str]:
        """Record of every entity as ``name`` itself has it, as text with its members in a fixed order."""
        printed = self.evaluate(
            name,
            '{ok, Found} = kb_khepri:get_many(homeserver, <<"/:bridge/:entities/*">>,'
            " #{favor => low_latency, timeout => 5000}),"
            '[io:format("~s ~0tkp~n", [Entity, Record])'
            " || #{data := #{entity := Entity} = Record} <- maps:values(Found)].",
        )
        return dict(line.split(" ", 1) for line in printed.splitlines())

    def peers(self, name: str) -> list[str]:
        """Visible nodes that ``name`` is connected to, sorted."""
        printed = self.evaluate(
            name, 'io:format("~s", [lists:join(" ", [atom_to_list(N) || N <- nodes()])]).'
        )
        return sorted(printed.split())

    def close(self) -> None:
        """Remove everything that was made."""
        for container in self.containers.values():
            with contextlib.suppress(Exception):
                container.handle.remove(force=True, v=True)
        self._network.remove()


def output_of(client: Any, image: str, *command: str, entrypoint: str | None = None) -> str:
    """What a container of its own prints until it ends with status 0.

    Raises:
        CommandError: it ended with another status.
    """
    container = Container(client.containers.create(image, list(command), entrypoint=entrypoint))
    try:
        container.start()
        status = container.wait()
        if status != 0:
            raise CommandError(f"{image} ended with status {status}: {container.logs()}")
        return container.logs()
    finally:
        # The library's `run(remove=True)` would leave the volume.
        container.handle.remove(force=True, v=True)


def host_name(name: str) -> str:
    """Host name of a container on the network."""
    return f"{name}.kb"


def node_name(name: str) -> str:
    """Node name of a container's node."""
    return f"{name}@{host_name(name)}"


@pytest.fixture
def homeservers(docker_client: Any, homeserver_image: str) -> Iterator[Homeservers]:
    """An empty network for homeservers; all containers are removed in the end."""
    started = Homeservers(docker_client, homeserver_image)
    try:
        yield started
    finally:
        started.close()
