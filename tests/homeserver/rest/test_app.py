from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from bridge.homeserver.rest.app import ROUTERS
from tests.support.cluster import erlang
from tests.support.rest import Rest


@erlang
async def test_the_description_is_open_to_all(rest: Rest) -> None:
    document = (await (await rest.client()).get("/v1/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert "/v1/players/{player}/presence" in document["paths"]


def test_nothing_that_a_request_needs_runs_in_a_thread() -> None:
    """FastAPI runs what is not asynchronous in threads, and a read takes three times as long."""
    routes: list[Any] = [route for router in ROUTERS for route in router.routes]
    calls = {call for route in routes for call in _calls(route.dependant)}
    assert len(calls) > len(routes)
    assert [call for call in calls if not _is_asynchronous(call)] == []


def _calls(dependant: Any) -> Iterator[Callable[..., Any]]:
    yield dependant.call
    for below in dependant.dependencies:
        yield from _calls(below)


def _is_asynchronous(call: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call).__call__)
