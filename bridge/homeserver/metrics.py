"""An instance as Prometheus metrics: its members, its leases, its grants and its refusals.

Whoever asks is answered from the newest sample, which a task of its own takes: a scrape costs the cluster
nothing, and a cluster that hangs does not hang whoever scrapes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bridge.errors import BridgeError, ConfigurationError
from bridge.etf import Atom
from bridge.khepri import Khepri, MemberHealth, NodeCaller, NodeNotFoundError, Path, members_health
from bridge.khepri.reply import unwrap
from bridge.node import HiddenNode

_log = logging.getLogger("bridge.homeserver")

_BRIDGE: Final = Atom("bridge")
_TIMEOUT: Final = 2.0
_GAUGES: Final = {
    "sessions": "Sessions that the lessor keeps alive",
    "silent": "Sessions that it acknowledges no more: hung, unwilling, or ending",
    "expiring": "Sessions whose end is being committed",
}
_COUNTERS: Final = {
    "beats": "Transactions that kept sessions alive",
    "renewals": "Renewals heard",
    "restarts": "Times that all countdowns began again, since the lessor itself was late",
    "taken": "Times that this member became the lessor",
    "expired": "Sessions that ended because they were not renewed",
    "closed": "Sessions that were ended by their servers or guardians",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What an instance told at one moment.

    Attributes:
        at: Unix seconds.
        members: what each says of itself, or why it says nothing.
        leases: counts of each member that answered (``kb_api:leases``).
        grants: epochs given in this incarnation.
        incarnation: of epochs.
        refusals: how often a request was refused for want of a right, by request and reason.
    """

    at: float
    members: Mapping[str, MemberHealth | BridgeError] = field(default_factory=dict)
    leases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    grants: int = 0
    incarnation: int = 0
    refusals: Mapping[tuple[str, str], int] = field(default_factory=dict)


async def take_sample(store: Khepri, node: HiddenNode, members: Sequence[str]) -> Sample:
    """Ask every member of a store's cluster; who does not answer is told as such."""
    health = await members_health(node, members, str(store.store), timeout=_TIMEOUT)
    answering = [name for name, told in health.items() if isinstance(told, MemberHealth)]
    leases = await asyncio.gather(*(_leases(node, name, store.store) for name in answering))
    grants = await _record(store, "grants")
    refusals = await _record(store, "refusals")
    return Sample(
        at=time.time(),
        members=health,
        leases=dict(zip(answering, leases, strict=True)),
        grants=grants.get("counter", 0),
        incarnation=grants.get("incarnation", 0),
        refusals={
            (request, str(reason)): count
            for request, reasons in refusals.items()
            for reason, count in reasons.items()
        },
    )


class InstanceCollector(Collector):
    """Metrics of the newest sample.

    Args:
        registry: where they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sample = Sample(at=0.0)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """The metrics, as ``prometheus_client`` asks for them."""
        sample = self.sample
        yield GaugeMetricFamily(
            "khepri_bridge_sample_timestamp_seconds",
            "When the metrics of the instance were asked for",
            value=sample.at,
        )
        yield from self._members(sample)
        yield from self._leases(sample)
        yield GaugeMetricFamily(
            "khepri_bridge_incarnation",
            "Incarnation of epochs; a restore raises it",
            value=sample.incarnation,
        )
        yield CounterMetricFamily(
            "khepri_bridge_grants",
            "Epochs given in this incarnation: every grant is one",
            value=sample.grants,
        )
        refusals = CounterMetricFamily(
            "khepri_bridge_refusals",
            "Requests refused for want of a right",
            labels=("request", "reason"),
        )
        for (request, reason), count in sample.refusals.items():
            refusals.add_metric((request, reason), count)
        yield refusals

    def _members(self, sample: Sample) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "khepri_bridge_member_up", "Whether the member answers and its store runs", labels=("member",)
        )
        leads = GaugeMetricFamily(
            "khepri_bridge_member_leads", "Whether the member leads, by its own account", labels=("member",)
        )
        term = GaugeMetricFamily(
            "khepri_bridge_member_term", "Term of Raft that the member knows", labels=("member",)
        )
        committed = GaugeMetricFamily(
            "khepri_bridge_member_commit_index", "Newest entry that a majority has", labels=("member",)
        )
        applied = GaugeMetricFamily(
            "khepri_bridge_member_last_applied", "Newest entry in the member's tree", labels=("member",)
        )
        for name, told in sample.members.items():
            label = (name,)
            up.add_metric(label, isinstance(told, MemberHealth) and told.running)
            if isinstance(told, MemberHealth):
                leads.add_metric(label, told.role == "leader")
                term.add_metric(label, told.term)
                committed.add_metric(label, told.commit_index)
                applied.add_metric(label, told.last_applied)
        yield from (up, leads, term, committed, applied)

    def _leases(self, sample: Sample) -> Iterator[Metric]:
        role = GaugeMetricFamily(
            "khepri_bridge_lessor",
            "Whether the member is the lessor, who keeps sessions alive",
            labels=("member",),
        )
        generation = GaugeMetricFamily(
            "khepri_bridge_lease_generation", "Generation of the lessor", labels=("member",)
        )
        for name, told in sample.leases.items():
            role.add_metric((name,), told.get("role") == Atom("leads"))
            generation.add_metric((name,), told.get("generation", 0))
        yield from (role, generation)
        for key, text in _GAUGES.items():
            gauge = GaugeMetricFamily(f"khepri_bridge_lease_{key}", text, labels=("member",))
            yield _filled(gauge, key, sample)
        for key, text in _COUNTERS.items():
            counter = CounterMetricFamily(f"khepri_bridge_lease_{key}", text, labels=("member",))
            yield _filled(counter, key, sample)


@contextlib.asynccontextmanager
async def exposing(
    address: str, store: Khepri, registry: CollectorRegistry, *, every: float = 5.0
) -> AsyncIterator[int]:
    """Serve a registry's metrics over HTTP, those of the instance among them.

    Args:
        address: ``HOST:PORT``, or a port of this machine; port 0 takes a free one.
        store: a client over a gateway.
        registry: what is served.
        every: seconds between two samples of the instance.

    Yields:
        The port.

    Raises:
        ConfigurationError: the address is none, or is taken.
    """
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise ConfigurationError(
            f"metrics are at HOST:PORT or PORT, such as 127.0.0.1:9464, not {address!r:.100}"
        )
    caller = store.caller
    if not isinstance(caller, NodeCaller):
        raise ConfigurationError("metrics of an instance are asked for through a hidden node")
    collector = InstanceCollector(registry)
    try:
        server, thread = start_http_server(int(port), host.strip("[]") or "127.0.0.1", registry)
    except OSError as error:
        raise ConfigurationError(f"metrics cannot be served at {address}: {error.strerror}") from error
    sampling = asyncio.create_task(
        _keep_sampling(collector, store, caller.gateway.node, caller.gateway.members, every)
    )
    try:
        yield server.server_port
    finally:
        sampling.cancel()
        await asyncio.wait([sampling])
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        await asyncio.to_thread(thread.join)


async def _keep_sampling(
    collector: InstanceCollector, store: Khepri, node: HiddenNode, members: Sequence[str], every: float
) -> None:
    while True:
        try:
            collector.sample = await take_sample(store, node, members)
        except Exception:
            # Metrics that stand still without a word would look like a cluster at rest.
            _log.exception("the instance's metrics could not be taken")
        await asyncio.sleep(every)


def _filled(
    metric: GaugeMetricFamily | CounterMetricFamily, key: str, sample: Sample
) -> GaugeMetricFamily | CounterMetricFamily:
    for name, told in sample.leases.items():
        if key in told:
            metric.add_metric((name,), told[key])
    return metric


async def _leases(node: HiddenNode, member: str, store: Atom) -> Mapping[str, Any]:
    try:
        told = unwrap(await node.call(member, "kb_api", "leases", [store], timeout=_TIMEOUT))
    except BridgeError:
        return {}
    return {str(name): value for name, value in told.items()}


async def _record(store: Khepri, name: str) -> Mapping[str, Any]:
    path: Path = [_BRIDGE, Atom(name)]
    try:
        found = await store.get(path, timeout=_TIMEOUT)
    except NodeNotFoundError:
        return {}
    except BridgeError:
        # The members' metrics tell that nobody answers.
        return {}
    return {str(key): value for key, value in found.items()}
