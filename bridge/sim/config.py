"""Configuration of a simulation server."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.errors import ConfigurationError
from bridge.jose.credentials import name_fault
from bridge.node import TlsConfig
from bridge.sim.zones import Layout
from bridge.udp import NetworkConditions


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationConfig:
    """How one simulation server runs."""

    name: str
    """the server's name at the homeserver, stable from start to start"""
    node: str
    """name of its hidden node, ``name@host``"""
    members: tuple[str, ...]
    """node names of homeservers; one is enough to start, more survive its death"""
    cookie: str | None = None
    """shared secret of the cluster; ``None`` reads ``~/.erlang.cookie``"""
    epmd_port: int = 4369
    """TCP port of the port mapper on each node's host"""
    register: bool = True
    """tell this host's port mapper, so that a second node of this name is refused; a host without Erlang
    has none, and the node then only dials"""
    tls: TlsConfig | None = None
    """certificates with which this server's nodes prove themselves; the cluster then speaks TLS alone"""
    store: str = "homeserver"
    """id of the store"""
    host: str = "127.0.0.1"
    """address the data plane listens on, and tells other servers"""
    port: int = 0
    """UDP port; 0 takes a free one"""
    key_file: str | None = None
    """private key, made where there is none; ``None`` makes one for this run alone"""
    rate_hz: float = 60.0
    """simulation ticks and state datagrams a second; who makes none in a second is taken for one that hangs,
    and loses its session"""
    capacity: int = 1_024
    """slots of the shared world: entities that are held or followed at one time"""
    follow: int = 256
    """entities of other servers whose state is kept in the world, the first ones that come: interest, not
    order of arrival, should choose them, and will; they take slots, never more than half of ``capacity``, and
    give them up to what is to be held"""
    shed: bool = False
    """give entities to servers with less to do while there are more than ``max_entities``, or while the
    simulation's steps take more of their period than ``max_busy``"""
    max_entities: int | None = None
    """entities that this server may hold before it sheds, and four fifths of which it takes from others that
    shed; ``None``: ``capacity``"""
    mesh: Layout | None = None
    """zones of which this server has some: what leaves them is handed over, what is near is followed. Ghosts
    have a budget beside ``follow``; half of ``capacity`` is for both"""
    max_busy: float = 1.0
    """share of a step's period that steps may take before this server sheds; it stops at four fifths of it,
    and takes nothing from others above those"""
    network: NetworkConditions | None = None
    """a bad network that what the data plane sends goes through; the other side's has its own"""
    signed: bool = False
    """sign the state of each tick, so that others can be shown what this server said (``khepri-bridge box
    verify-datagram``); signed both ways when either side wants it. A datagram then holds a third less"""
    record_dir: str | None = None
    """directory for records that survive a kill: requests with their answers, and acts; ``None``: none"""
    keep_history: bool = False
    """keep every record and every control message in memory for ``report``, which grows as long as the server
    runs: for demonstrations, benchmarks and tests. Without it the newest ones are kept"""
    linger_ms: int = 0
    """for demonstrations and tests: go on sending under the old epoch so long after each hand-over"""

    def __post_init__(self) -> None:
        if (fault := name_fault(self.name)) is not None:
            raise ConfigurationError(f"the name {self.name!r:.80} of a server {fault}")
        if not 5 <= self.rate_hz <= 1_000:
            raise ConfigurationError(f"rate_hz is 5 to 1000, not {self.rate_hz}")
        if not 1 <= self.capacity <= 65_536:
            raise ConfigurationError(f"capacity is 1 to 65536, not {self.capacity}")
        if not 0 <= self.follow <= 65_536:
            raise ConfigurationError(f"follow is 0 to 65536, not {self.follow}")
        if self.max_entities is not None and not 1 <= self.max_entities <= self.capacity:
            raise ConfigurationError(f"max_entities is 1 to {self.capacity}, not {self.max_entities}")
        if not 0 < self.max_busy <= 1:
            raise ConfigurationError(f"max_busy is above 0 and at most 1, not {self.max_busy}")
        if self.mesh is not None:
            self._check_mesh(self.mesh)
        if not self.members:
            raise ConfigurationError("name at least one homeserver node")
        if not 0 <= self.linger_ms <= 10_000:
            raise ConfigurationError(f"linger_ms is 0 to 10000, not {self.linger_ms}")

    @property
    def most_in_mesh(self) -> int:
        """Entities that neighbours in a mesh may give it: some slots are of those that come and go."""
        return self.capacity - self.capacity // 8

    def _check_mesh(self, mesh: Layout) -> None:
        if self.name not in mesh.servers:
            raise ConfigurationError(f"{self.name} has no zone of the mesh of {', '.join(mesh.servers)}")
        if self.shed:
            raise ConfigurationError("a server of a mesh does not shed: its zones say what it simulates")
        if (mesh.policy.authority_budget or 0) > self.most_in_mesh:
            raise ConfigurationError(
                f"the mesh's authority_budget is above seven eighths of the capacity, {self.most_in_mesh}"
            )
