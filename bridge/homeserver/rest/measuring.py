"""Requests as Prometheus metrics: how many, how they ended, how long they took."""

from __future__ import annotations

import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Measuring:
    """Counts what goes through it.

    Routes, not paths, are labels: names of players and entities would make a metric each.

    Args:
        app: what is behind.
        registry: where the metrics are registered.
    """

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        self._requests = Counter(
            "khepri_bridge_rest_requests",
            "Requests answered",
            ("method", "route", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "khepri_bridge_rest_request_seconds",
            "From a request to the beginning of its answer",
            ("method", "route"),
            registry=registry,
            buckets=_BUCKETS,
        )
        self._open = Gauge(
            "khepri_bridge_rest_requests_open", "Requests under way, live feeds among them", registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                method = scope["method"] if scope["method"] in _METHODS else "other"
                route = getattr(scope.get("route"), "path", "none")
                self._requests.labels(method, route, str(message["status"])).inc()
                self._seconds.labels(method, route).observe(time.perf_counter() - began)
            await send(message)

        with self._open.track_inprogress():
            await self._app(scope, receive, counted)


_METHODS: Final = frozenset({"GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS"})
