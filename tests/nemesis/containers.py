"""The stage of containers: three homeservers, and three hosts for simulation servers, on one network."""

from __future__ import annotations

import contextlib
import importlib
import io
import random
import signal
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from bridge.node import NodeConfig
from tests.nemesis.damage import is_unreadable
from tests.nemesis.schedule import Fault, Kind
from tests.nemesis.stages import OTHER, chosen, kind_of, send
from tests.support.containers import Container, Homeservers, host_name, node_name

_HOMESERVERS: Final = ("hs1", "hs2", "hs3")
_SERVERS: Final = ("sim1", "sim2", "sim3")
_SMALL_DISK: Final = 1
"""number of the homeserver whose disk can be filled"""
_CLOCKED: Final = 2
"""number of the homeserver and of the server whose wall clock can be set"""
_DISK_MIB: Final = 400
_LIBFAKETIME: Final = "/usr/local/lib/libfaketime.so.1"


def clock_image(client: Any, base: str) -> str:
    """An image whose clock can be set, made of another one."""
    tag = base.replace(":", "-clock:")
    with io.BytesIO() as context:
        with tarfile.open(fileobj=context, mode="w") as archive:
            archive.add(Path(__file__).parent / "clock.Dockerfile", "Dockerfile")
        context.seek(0)
        client.images.build(
            fileobj=context, custom_context=True, tag=tag, buildargs={"BASE": base}, rm=True, forcerm=True
        )
    return tag


class ContainerStage:
    """Homeservers and hosts in containers; as a context manager it leaves none.

    Args:
        client: of the Docker daemon.
        homeserver: image.
        simulation: image.
        records: directory of this host for the records of servers.
        environment: more variables of the homeservers.

    Attributes:
        emptied: how often a homeserver had to begin anew after its disk was full.
    """

    kinds: tuple[Kind, ...] = tuple(Kind)
    members: tuple[str, ...] = tuple(map(node_name, _HOMESERVERS))
    servers: tuple[str, ...] = _SERVERS
    store = "homeserver"

    def __init__(
        self,
        client: Any,
        homeserver: str,
        simulation: str,
        records: Path,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.records = records
        self.emptied = 0
        self._said = 0
        """how much the member with the small disk had said when it was started last"""
        self._client = client
        self._images = {
            "homeserver": homeserver,
            "simulation": simulation,
            "homeserver clock": clock_image(client, homeserver),
            "simulation clock": clock_image(client, simulation),
        }
        self._environment = environment or {}
        self._network = Network(client, homeserver)
        self.cookie = self._network.cookie
        self._volume: Any = None

    def __enter__(self) -> ContainerStage:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything."""
        with contextlib.suppress(Exception):
            self.heal_networks()
        self._network.close()
        if self._volume is not None:
            self._volume.remove(force=True)

    def _start(self) -> None:
        options = {"type": "tmpfs", "device": "tmpfs", "o": f"size={_DISK_MIB}m"}
        name = f"kb-nemesis-{self.cookie[:8]}"
        self._volume = self._client.volumes.create(name, driver="local", driver_opts=options)
        disk = {"volumes": {name: {"bind": "/data", "mode": "rw"}}}
        # Holds the disk while its homeserver is down, and can fill it.
        self._network.run(
            "ballast", self._images["homeserver"], ["infinity"], entrypoint=["sleep"], init=True, **disk
        )
        for number, homeserver in enumerate(_HOMESERVERS):
            self._network.start(
                homeserver,
                seed="" if number == 0 else _HOMESERVERS[0],
                environment=self._environment,
                made_of=self._images["homeserver clock" if number == _CLOCKED else "homeserver"],
                **(disk if number == _SMALL_DISK else {}),
            )
            self._network.await_ready(homeserver)
        self.records.chmod(0o777)
        mount = {str(self.records): {"bind": "/record", "mode": "rw"}}
        for number, server in enumerate(_SERVERS):
            self._network.run(
                server,
                self._images["simulation clock" if number == _CLOCKED else "simulation"],
                ["infinity"],
                entrypoint=["sleep"],
                init=True,
                environment={"KB_COOKIE": self.cookie},
                volumes=mount,
            )

    def node_config(self) -> NodeConfig:
        """Dials the containers by their addresses on the network."""
        addresses = {host_name(name): self._network.fixed[name] for name in _HOMESERVERS}
        return NodeConfig(addresses=addresses, register=False)

    def command(self, server: str) -> list[str]:
        """Starts a server in its container, whose port mapper and cookie are made ready."""
        container = self._network.containers[server]
        with contextlib.suppress(Exception):
            container.execute("simulation-entrypoint", "--version")
        turn = _SERVERS.index(server)
        members = self.members[turn:] + self.members[:turn]
        user = ("setpriv", "--reuid", "khepri", "--regid", "khepri", "--clear-groups", "--no-new-privs", "--")
        # The clock's library into Python alone: it would stop the entrypoint's shell.
        clock = ("--env", f"LD_PRELOAD={_LIBFAKETIME}") if turn == _CLOCKED else ()
        return [
            *("docker", "exec", "--interactive", *clock, container.id, *user),
            *("khepri-bridge", "sim", "--name", server, "--node", node_name(server)),
            *("--host", self._network.fixed[server], "--key-file", "/data/key.pem"),
            *(word for member in members for word in ("--member", member)),
            *("--record-dir", "/record", "--commands"),
        ]

    def begin(self, fault: Fault, leader: int) -> None:
        """Break something."""
        homeserver, server = _HOMESERVERS[fault.target], _SERVERS[fault.target]
        network = self._network
        match fault.kind:
            case Kind.KILL_HOMESERVER:
                _kill(network.containers[homeserver])
            case Kind.KILL_LEADER:
                _kill(network.containers[_HOMESERVERS[leader]])
            case Kind.KILL_HOMESERVERS:
                self._kill_together(_HOMESERVERS)
            case Kind.KILL_EVERYTHING:
                self._kill_together((*_HOMESERVERS, *_SERVERS))
            case Kind.KILL_HOST:
                _kill(network.containers[server])
            case Kind.STOP_HOMESERVER:
                send(list(network.processes(homeserver)), signal.SIGSTOP)
            case Kind.STOP_LEADER:
                send(list(network.processes(_HOMESERVERS[leader])), signal.SIGSTOP)
            case Kind.KILL_CONTROL | Kind.KILL_DATA_PLANE | Kind.KILL_SERVER:
                send(self._chosen(fault, server), signal.SIGKILL)
            case Kind.STOP_CONTROL | Kind.STOP_DATA_PLANE | Kind.STOP_SERVER:
                send(self._chosen(fault, server), signal.SIGSTOP)
            case Kind.FULL_DISK:
                fill = "dd if=/dev/zero of=/data/ballast bs=1M 2>/dev/null || true"
                network.containers["ballast"].execute("sh", "-c", fill)
            case Kind.CLOCK:
                self._set_clocks(fault.offset)
            case _:
                self._break_network(fault, leader)

    def end(self, fault: Fault) -> None:
        """Mend what it broke, and start what it ended."""
        match fault.kind:
            case Kind.FULL_DISK:
                self._free_disk()
            case Kind.CLOCK:
                self._set_clocks(0)
        if fault.kind not in (Kind.CLOCK, Kind.FULL_DISK):
            self.heal_networks()
            self._continue_all()
        self._start_dead()

    def heal(self) -> None:
        """Mend everything."""
        self._free_disk()
        self._set_clocks(0)
        self.heal_networks()
        self._continue_all()
        self._start_dead()

    def keep_logs(self, directory: Path) -> None:
        """Leave what the homeservers said."""
        for name in _HOMESERVERS:
            (directory / f"{name}.log").write_text(self._network.containers[name].logs())

    def heal_networks(self) -> None:
        """Let everybody hear everybody."""
        for name in (*_HOMESERVERS, *_SERVERS):
            self._network.reconnect_fixed(name)
            self._network.filter(name, "-F")

    def _break_network(self, fault: Fault, leader: int) -> None:
        network = self._network
        homeserver, server = _HOMESERVERS[fault.target], _SERVERS[fault.target]
        match fault.kind:
            case Kind.CUT_HOMESERVER:
                network.cut_off(homeserver)
            case Kind.CUT_LEADER:
                network.cut_off(_HOMESERVERS[leader])
            case Kind.CUT_SERVER:
                network.cut_off(server)
            case Kind.DEAFEN:
                network.filter(homeserver, "-A", "INPUT", "-j", "DROP")
            case Kind.MUTE:
                network.filter(homeserver, "-A", "OUTPUT", "-j", "DROP")
            case Kind.DEAFEN_SERVER:
                network.filter(server, "-A", "INPUT", "-j", "DROP")
            case Kind.PART:
                network.part(homeserver, _HOMESERVERS[fault.other])
            case Kind.PART_SERVERS:
                network.part(server, _SERVERS[fault.other])
            case Kind.MINORITY:
                for apart in (_HOMESERVERS[leader], server):
                    for other in (*_HOMESERVERS, *_SERVERS):
                        if other not in (_HOMESERVERS[leader], server):
                            network.part(apart, other)

    def _chosen(self, fault: Fault, server: str) -> list[int]:
        return chosen(fault, self._network.processes(server))

    def _kill_together(self, names: tuple[str, ...]) -> None:
        with ThreadPoolExecutor(max_workers=len(names)) as pool:
            list(pool.map(lambda name: _kill(self._network.containers[name]), names))

    def _continue_all(self) -> None:
        for name in (*_HOMESERVERS, *_SERVERS):
            send(list(self._network.processes(name)), signal.SIGCONT)

    def _free_disk(self) -> None:
        self._network.containers["ballast"].execute("rm", "-f", "/data/ballast")

    def _set_clocks(self, seconds: int) -> None:
        for name in (_HOMESERVERS[_CLOCKED], _SERVERS[_CLOCKED]):
            # Where it is down it comes back with the clock it had.
            with contextlib.suppress(Exception):
                self._network.containers[name].execute("sh", "-c", f"echo {seconds:+} >/clock/offset")

    def _start_dead(self) -> None:
        for name in (*_HOMESERVERS, *_SERVERS):
            container = self._network.containers[name]
            if not container.is_running():
                if name == _HOMESERVERS[_SMALL_DISK]:
                    log = container.logs()
                    if is_unreadable(log[self._said :]):
                        self._empty_disk()
                    self._said = len(log)
                container.start()

    def _empty_disk(self) -> None:
        """What an operator does with a member whose log Ra cannot read: it joins anew with an empty disk."""
        self._network.containers["ballast"].execute("sh", "-c", "rm -rf /data/* /data/.[!.]*")
        self.emptied += 1


def _kill(container: Container) -> None:
    # It may have been killed by another fault, or ended on a full disk.
    with contextlib.suppress(importlib.import_module("docker.errors").APIError):
        container.kill()


class Network(Homeservers):
    """Containers with fixed addresses, whose packets can be dropped."""

    def __init__(self, client: Any, image: str) -> None:
        super().__init__(client, image)
        self._network.remove()
        types = importlib.import_module("docker.types")
        while True:
            subnet = f"172.{random.randint(16, 31)}.{random.randint(0, 255)}"
            pool = types.IPAMPool(subnet=f"{subnet}.0/24")
            ipam = types.IPAMConfig(pool_configs=[pool])
            with contextlib.suppress(importlib.import_module("docker.errors").APIError):
                self._network = client.networks.create(f"kb-{self.cookie[:8]}", internal=True, ipam=ipam)
                break
        self.fixed = {
            name: f"{subnet}.{10 + number}"
            for number, name in enumerate((*_HOMESERVERS, *_SERVERS, "ballast"))
        }

    def run(self, name: str, image: str, command: Any = (), **options: Any) -> Container:
        place = self._place(name)
        handle = self._client.containers.create(
            options.pop("made_of", image),
            list(command) or None,
            hostname=host_name(name),
            network=self._network.name,
            networking_config={self._network.name: place},
            **options,
        )
        self.containers[name] = Container(handle)
        handle.start()
        return self.containers[name]

    def processes(self, name: str) -> dict[int, str]:
        """Processes of a container, by this host's numbers, with their kind where they are of a server."""
        try:
            found = self.containers[name].handle.top(ps_args="-eo pid,args")["Processes"]
        except importlib.import_module("docker.errors").APIError:
            return {}
        known = {int(pid): words for pid, words in found}
        if name in _HOMESERVERS:
            return {pid: OTHER for pid, words in known.items() if "beam" in words}
        return {pid: kind for pid, words in known.items() if (kind := kind_of(words)) is not None}

    def reconnect_fixed(self, name: str) -> None:
        """Put a container back where it was, if it is not there."""
        handle = self.containers[name].handle
        handle.reload()
        if self._network.name not in handle.attrs["NetworkSettings"]["Networks"]:
            self._network.connect(handle, aliases=[host_name(name)], ipv4_address=self.fixed[name])

    def part(self, name: str, other: str) -> None:
        """Let two containers hear nothing of each other."""
        for chain, side in (("INPUT", "-s"), ("OUTPUT", "-d")):
            self.filter(name, "-A", chain, side, self.fixed[other], "-j", "DROP")

    def filter(self, name: str, *rule: str) -> None:
        """Change the packet filter of a container; nothing where it does not run."""
        handle = self.containers[name].handle
        handle.reload()
        if pid := handle.attrs["State"]["Pid"]:
            command = ["nsenter", "-t", str(pid), "-n", "iptables", "-w", *rule]
            subprocess.run(command, check=False, capture_output=True, timeout=30)

    def _place(self, name: str) -> Any:
        return self._client.api.create_endpoint_config(
            aliases=[host_name(name)], ipv4_address=self.fixed[name]
        )
