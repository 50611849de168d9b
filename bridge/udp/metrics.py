"""Statistics of engines as Prometheus metrics, read when they are asked for: counting them costs nothing.

``prometheus_client`` is an extra (``khepri-bridge[metrics]``) and imported at the first reading only, when
the program that asked for it has it in memory anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import nlargest
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from bridge.errors import InvalidStateError
from bridge.udp.peers import Address
from bridge.udp.session import Session
from bridge.udp.socket import SocketCounters
from bridge.udp.statistics import EndpointStatistics, SessionStatistics

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_PREFIX: Final = "khepri_bridge_udp_"


class StatisticsSource(Protocol):
    """What a collector reads: an engine."""

    @property
    def local_address(self) -> Address:
        """Where it is bound; :class:`InvalidStateError` while it is not open."""

    @property
    def socket_counters(self) -> SocketCounters:
        """System calls and errors."""

    def statistics(self) -> EndpointStatistics:
        """Counters of the endpoint."""

    def sessions(self) -> Sequence[Session]:
        """The established sessions."""


class _Row(NamedTuple):
    """A field of a statistics class and the metric it becomes; a name in ``_total`` is a counter's."""

    field: str
    name: str
    documentation: str


_ENDPOINT: Final = (
    _Row("peers", "peers", "Peers with whom sessions are allowed"),
    _Row("sessions", "sessions", "Established sessions"),
    _Row("handshakes_pending", "handshakes_pending", "Handshakes that wait for confirmation"),
    _Row("handshakes_checked", "handshakes_checked_total", "Handshakes whose signature was checked"),
    _Row("retries", "retries_total", "INITs answered by a RETRY"),
    _Row("signatures_made", "signatures_made_total", "Signatures of states made for signed sessions"),
    _Row("datagrams_received", "datagrams_received_total", "Datagrams received, from anybody"),
    _Row("datagrams_sent", "datagrams_sent_total", "Datagrams sent"),
)
_SOCKET: Final = (
    _Row("system_calls_sent", "system_calls_sent_total", "System calls that sent datagrams"),
    _Row("system_calls_received", "system_calls_received_total", "System calls that received datagrams"),
    _Row("send_errors", "send_errors_total", "Datagrams that the kernel refused for their destination"),
    _Row("receive_errors", "receive_errors_total", "Errors that came instead of a datagram"),
    _Row("backlog_dropped", "backlog_dropped_total", "Datagrams that found no room in kernel or backlog"),
)
_SESSION: Final = (
    _Row("datagrams_sent", "session_datagrams_sent_total", "Datagrams sent to the peer"),
    _Row("datagrams_received", "session_datagrams_received_total", "Authentic datagrams from the peer"),
    _Row("bytes_sent", "session_sent_bytes_total", "Bytes of UDP payload sent to the peer"),
    _Row("bytes_received", "session_received_bytes_total", "Bytes of UDP payload from the peer"),
    _Row("datagrams_lost", "session_datagrams_lost_total", "Datagrams to the peer counted as lost"),
    _Row("states_superseded", "session_states_superseded_total", "States replaced before they were sent"),
    _Row("address_changes", "session_address_changes_total", "Address changes that the peer has proven"),
    _Row("rekeys", "session_rekeys_total", "Times this side moved on to its next keys"),
    _Row("rtt", "session_rtt_seconds", "Smoothed round-trip time"),
    _Row("rtt_minimum", "session_rtt_minimum_seconds", "Shortest round-trip time"),
    _Row("reliable_buffered", "session_reliable_buffered_bytes", "Reliable bytes not yet acknowledged"),
    _Row("reliable_credit", "session_reliable_credit_bytes", "Reliable bytes the peer would take now"),
    _Row("unordered_buffered", "session_unordered_buffered_bytes", "Unordered bytes not yet acknowledged"),
    _Row("unordered_credit", "session_unordered_credit_bytes", "Unordered bytes the peer would take now"),
    _Row("reassembly_bytes", "session_reassembly_bytes", "Reliable bytes that wait for the application"),
    _Row("signatures_checked", "session_signatures_checked_total", "Signatures of the peer's states checked"),
    _Row("rate", "session_rate_bytes", "Bytes a second that may be sent to the peer"),
    _Row("loss", "session_loss_ratio", "Share of datagrams lost when the rate was last looked at"),
    _Row("paced", "session_paced_total", "Flushes that left something waiting because of the rate"),
    _Row("congestion_window", "session_congestion_window_bytes", "Reliable bytes that may be out at once"),
)


class UdpCollector:
    """Metrics of engines, for ``prometheus_client.REGISTRY.register(UdpCollector(engine))``.

    All are labelled with the ``endpoint`` (host:port the engine is bound to), those of sessions with the
    ``peer`` too. They are gathered in the thread that asks, which need not be the engine's. An engine that is
    not open is left out. A peer's counters begin anew with each session.
    """

    def __init__(self, *engines: StatisticsSource, max_peers: int = 100) -> None:
        """Read these engines.

        Args:
            max_peers: of each engine, the peers told apart: those with the most bytes in their present
                sessions. The rest is in the endpoint's sums; each peer is some twenty time series.
        """
        self._engines = engines
        self._max_peers = max_peers

    def describe(self) -> Iterable[Metric]:
        """Names and kinds, without values: what a registry asks for to find two metrics of one name."""
        return _Families().all()

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        families = _Families()
        for engine in self._engines:
            try:
                host, port = engine.local_address
                counters = engine.socket_counters
            except InvalidStateError:
                continue
            statistics = engine.statistics()
            endpoint = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            families.add(_ENDPOINT, [endpoint], statistics)
            families.add(_SOCKET, [endpoint], counters)
            families.add_drops([endpoint], statistics)
            sessions = [(session.peer, session.statistics()) for session in engine.sessions()]
            busiest = nlargest(
                self._max_peers, sessions, key=lambda one: one[1].bytes_sent + one[1].bytes_received
            )
            for peer, of_session in busiest:
                families.add(_SESSION, [endpoint, peer], of_session)
                families.add_drops([endpoint, peer], of_session)
        yield from families.all()


class _Families:
    """The metrics being filled."""

    def __init__(self) -> None:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        self._by_name: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for rows, labels in (
            ((*_ENDPOINT, *_SOCKET), ["endpoint"]),
            (_SESSION, ["endpoint", "peer"]),
        ):
            for row in rows:
                family = CounterMetricFamily if row.name.endswith("_total") else GaugeMetricFamily
                self._by_name[row.name] = family(_PREFIX + row.name, row.documentation, labels=labels)
        self._drops = CounterMetricFamily(
            _PREFIX + "dropped_total", "Datagrams and states dropped", labels=["endpoint", "reason"]
        )
        self._session_drops = CounterMetricFamily(
            _PREFIX + "session_dropped_total",
            "Datagrams and states of the peer dropped",
            labels=["endpoint", "peer", "reason"],
        )

    def add(self, rows: Iterable[_Row], labels: list[str], source: object) -> None:
        for row in rows:
            value = getattr(source, row.field)
            if value is not None:
                self._by_name[row.name].add_metric(labels, value)

    def add_drops(self, labels: list[str], statistics: EndpointStatistics | SessionStatistics) -> None:
        family = self._drops if len(labels) == 1 else self._session_drops
        for reason, count in statistics.drops.items():
            family.add_metric([*labels, reason.value], count)

    def all(self) -> list[Metric]:
        return [*self._by_name.values(), self._drops, self._session_drops]
