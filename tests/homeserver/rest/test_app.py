from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from bridge.homeserver.rest.app import ROUTERS, create_app
from bridge.homeserver.rest.context import Context
from tests.support.cluster import erlang
from tests.support.rest import Rest

NOTHING: Any = None
DOCUMENT = create_app(Context(store=NOTHING, ownership=NOTHING, instance="", authenticator=NOTHING)).openapi()


@erlang
async def test_the_description_is_open_to_all(rest: Rest) -> None:
    document = (await (await rest.client()).get("/v1/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert "/v1/players/{player}/presence" in document["paths"]


def test_every_operation_has_a_name_and_says_what_it_does() -> None:
    operations = [operation for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert "entities_show" in {operation["operationId"] for operation in operations}
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert [one["operationId"] for one in operations if len(one["summary"].split()) < 3] == []
    assert [one["operationId"] for one in operations if not one["description"]] == []


def test_every_member_of_a_request_has_an_example_or_a_choice() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    bodies = {
        operation["requestBody"]["content"]["application/json"]["schema"].get("$ref", "").rpartition("/")[2]
        for methods in DOCUMENT["paths"].values()
        for operation in methods.values()
        if "requestBody" in operation
    }
    bare = [
        (body, name)
        for body in sorted(bodies - {""})
        for name, member in schemas[body]["properties"].items()
        if not {"examples", "default", "$ref", "anyOf", "items"} & member.keys()
        and member["type"] != "boolean"
    ]
    assert bare == []


@erlang
async def test_no_path_leads_to_another(rest: Rest) -> None:
    client = await rest.client("reader")
    for path in ("/v1/scenes/", "/v1/entities/ball/"):
        assert (await client.get(path)).status_code == 404


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
