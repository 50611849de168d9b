"""A simulation server as Prometheus metrics: what it holds and gives, its lease, its load, its datagrams.

Whoever asks causes one question to each of the server's processes; one that hangs is told as such, and hangs
nobody. ``prometheus_client`` is an extra (``khepri-bridge[metrics]``).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from bridge.authority import CASES
from bridge.errors import ConfigurationError
from bridge.sim.dataplane.messages import Measured
from bridge.sim.relieving import ReliefCounts
from bridge.sim.zoning import ZoneCounts

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_PREFIX: Final = "khepri_bridge_sim_"
_SAMPLE_SECONDS: Final = 5.0
"""until a server that does not answer is told to be down; Prometheus asks for ten"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a server tells at one moment.

    Attributes:
        held: entities that it acts for.
        slots: of the shared world, in use.
        lease_left: seconds that it may act without another acknowledgement; 0 once it may not.
        busy: share of a step's period that steps take.
        messages: control messages that crossed, by kind.
        events: what it told its driver, by name (``bridge.sim.events``).
        relief: what was shed in the present session.
        zones: what was handed over in it since it left this server's zones; ``None``: it is of no mesh.
        ghosts: entities of others that are followed since they are near these zones.
        refused_changes: changes of players who do not own what they would change.
        kept: entries of the control plane's tables.
        data: of the data plane; ``None`` where it does not answer.
    """

    held: int
    slots: int
    lease_left: float
    busy: float
    messages: Mapping[str, int]
    events: Mapping[str, int]
    relief: ReliefCounts
    zones: ZoneCounts | None
    ghosts: int
    refused_changes: int
    kept: int
    data: Measured | None


class Measurable(Protocol):
    """What is measured: a simulation server."""

    async def sample(self) -> Sample:
        """What it tells now."""


class SimulationCollector:
    """Metrics of a server, gathered in whatever thread asks.

    Args:
        server: runs in ``loop``.
        loop: of the server.
        seconds: until it is told to be down.
    """

    def __init__(
        self, server: Measurable, loop: asyncio.AbstractEventLoop, *, seconds: float = _SAMPLE_SECONDS
    ) -> None:
        self._server = server
        self._loop = loop
        self._seconds = seconds

    def collect(self) -> Iterator[Metric]:
        """The metrics now, as ``prometheus_client`` asks for them."""
        asked = asyncio.run_coroutine_threadsafe(self._server.sample(), self._loop)
        sample: Sample | None = None
        try:
            sample = asked.result(self._seconds)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            asked.cancel()
        yield _gauge("up", "Whether the control plane answers", sample is not None)
        if sample is not None:
            yield from _control(sample)
            if sample.zones is not None:
                yield from _zones(sample.zones, sample.ghosts)
            yield _gauge("data_plane_up", "Whether the data plane answers", sample.data is not None)
            if sample.data is not None:
                yield from _data(sample.data)


def _control(sample: Sample) -> Iterator[Metric]:
    yield _gauge("held_entities", "Entities that this server acts for", sample.held)
    yield _gauge("slots_used", "Slots of the shared world in use, held and followed", sample.slots)
    yield _gauge(
        "lease_left_seconds",
        "How long it may act without another acknowledgement of its session",
        sample.lease_left,
    )
    yield _gauge("busy_ratio", "Share of a step's period that simulation steps take", sample.busy)
    begun = {formula.begins: case for case, formula in CASES.items()}
    yield _counter(
        "transfers",
        "Transfers begun that this server took part in, by case",
        "case",
        {begun[kind]: count for kind, count in sample.messages.items() if kind in begun},
    )
    yield _counter("messages", "Control messages that crossed, by kind", "kind", sample.messages)
    yield _counter("events", "What the server told its driver, by event", "event", sample.events)
    yield _counter(
        "pauses",
        "Times that nothing was simulated or sealed, since the lease was not renewed in time",
        "",
        {"": sample.events.get("fell_silent", 0)},
    )
    yield _counter("shed_entities", "Entities shed, in this session", "", {"": sample.relief.shed})
    yield _counter("shed_failures", "Entities not shed, in this session", "", {"": sample.relief.failed})
    yield _counter(
        "shed_in_vain", "Rounds in which nobody had room, in this session", "", {"": sample.relief.in_vain}
    )
    yield _counter(
        "refused_changes",
        "Changes refused to players who do not own what they would change, in this session",
        "",
        {"": sample.refused_changes},
    )
    yield _gauge("kept_entries", "Entries of the control plane's tables", sample.kept)


def _zones(counts: ZoneCounts, ghosts: int) -> Iterator[Metric]:
    yield _gauge("ghosts", "Entities followed since they are near this server's zones", ghosts)
    yield _counter(
        "zone_entities",
        "Entities handed over to servers of a mesh, in this session: they left, or this server ends",
        "why",
        {"left": counts.given, "drained": counts.drained},
    )
    yield _counter(
        "zone_deferrals",
        "Times that a neighbour had no room for an entity or gave no answer, in this session",
        "",
        {"": counts.deferred},
    )
    yield _counter(
        "zone_failures", "Entities not handed over in spite of room, in this session", "", {"": counts.failed}
    )


def _data(measured: Measured) -> Iterator[Metric]:
    from prometheus_client.parser import text_string_to_metric_families

    yield _counter("states", "State records of other servers, by verdict", "verdict", measured.verdicts)
    yield _counter(
        "malformed", "Payloads of authentic servers that did not decode", "", {"": measured.malformed}
    )
    yield _gauge("data_plane_kept_entries", "Entries of the data plane's tables", measured.kept)
    yield from text_string_to_metric_families(measured.udp)


def _gauge(name: str, documentation: str, value: float) -> Metric:
    from prometheus_client.metrics_core import GaugeMetricFamily

    return GaugeMetricFamily(_PREFIX + name, documentation, value=float(value))


def _counter(name: str, documentation: str, label: str, values: Mapping[str, float]) -> Metric:
    from prometheus_client.metrics_core import CounterMetricFamily

    family = CounterMetricFamily(_PREFIX + name, documentation, labels=[label] if label else [])
    for value, count in values.items():
        family.add_metric([value] if label else [], count)
    return family


def check_metrics_address(address: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``, or of a port of this machine.

    Raises:
        ConfigurationError: it is none, or ``prometheus_client`` is not installed.
    """
    from importlib.util import find_spec

    if find_spec("prometheus_client") is None:
        raise ConfigurationError("metrics take the extra [metrics] of khepri-bridge (README, Install)")
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdecimal()) or int(port) > 65_535:
        raise ConfigurationError(
            f"metrics are at HOST:PORT or PORT, such as 127.0.0.1:9465, not {address!r:.100}"
        )
    return host.strip("[]") or "127.0.0.1", int(port)


@contextlib.asynccontextmanager
async def exposing(address: str, server: Measurable) -> AsyncIterator[int]:
    """Serve a server's metrics over HTTP, with those of its process.

    Args:
        address: ``HOST:PORT``, or a port of this machine alone; port 0 takes a free one.
        server: runs in this event loop.

    Yields:
        The port.

    Raises:
        ConfigurationError: the address is none, or is taken, or ``prometheus_client`` is not installed.
    """
    host, port = check_metrics_address(address)
    from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    collector = SimulationCollector(server, asyncio.get_running_loop())
    registry.register(collector)
    try:
        http, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigurationError(f"metrics cannot be served at {address}: {error.strerror}") from error
    try:
        yield http.server_port
    finally:
        await asyncio.to_thread(http.shutdown)
        http.server_close()
        await asyncio.to_thread(thread.join)
