"""The application: limits around routers, and one description of them all."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

import bridge
from bridge.homeserver.rest import (
    asks,
    certificates,
    entities,
    federation,
    feed,
    grants,
    keys,
    leasing,
    operations,
    players,
    renewals,
    scenes,
    servers,
    sessions,
    tickets,
    tokens,
)
from bridge.homeserver.rest.context import Context
from bridge.homeserver.rest.handlers import add_handlers
from bridge.homeserver.rest.heads import Heads
from bridge.homeserver.rest.limits import AddressLimit, BodyLimit, CallerLimit
from bridge.homeserver.rest.measuring import Measuring
from bridge.homeserver.rest.problems import Problem, problem_of
from bridge.homeserver.rest.tracing import Tracing

ROUTERS: Final[tuple[APIRouter, ...]] = (
    keys.router,
    certificates.router,
    tokens.router,
    tickets.router,
    grants.router,
    players.router,
    entities.router,
    asks.router,
    servers.router,
    sessions.router,
    renewals.router,
    scenes.router,
    feed.router,
    federation.router,
    operations.router,
)
"""in the order of the OpenAPI document"""

_DESCRIPTION: Final = """
Who owns, who masters and who simulates each entity of a Khepri Bridge instance.

Any process of the service answers, and writes reach the cluster's leader whichever it is. Reads are of one
member, behind the leader by what replication takes; `fresh=true` waits until it has caught up. A write that
carries an `Idempotency-Key` may be repeated, at any process, and is applied once. Errors are
`application/problem+json`.
"""
_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: problem_of(description)
    for status, description in (
        (400, "The request is malformed"),
        (401, "No valid access token"),
        (403, "Not for this caller"),
        (404, "There is no such thing"),
        (408, "The body did not come in time"),
        (409, "It does not fit what is there"),
        (413, "The body is too large"),
        (415, "The body is not said to be JSON"),
        (422, "The request is not valid"),
        (429, "Too many requests"),
        (500, "A defect of the service"),
        (503, "The cluster does not answer"),
    )
}


def create_app(context: Context) -> FastAPI:
    """The service over one context.

    The ASGI server must give each request its own scope, as all do; the application holds counts for rate
    limits, and nothing else that one process would know and another not.
    """
    app = FastAPI(
        title="Khepri Bridge homeserver",
        version=bridge.__version__,
        description=_DESCRIPTION,
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        # No name ends in a slash, and where a balancer has the TLS, a redirect would lead past it.
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        responses=_ERRORS,
    )
    app.state.context = context
    app.state.callers = CallerLimit(context.settings)
    app.state.leasing = leasing.Leasing(context)
    app.state.readiness = operations.Readiness(context.store)
    app.state.feeds = feed.Feeds(context.settings.max_feeds, context.settings.max_feeds_of_one)
    app.add_middleware(BodyLimit, settings=context.settings)
    app.add_middleware(AddressLimit, settings=context.settings)
    app.add_middleware(Tracing)
    app.add_middleware(Measuring, registry=context.registry)
    app.add_middleware(Heads)
    routes = [route for router in ROUTERS for route in router.routes]
    for route in routes:
        assert isinstance(route, APIRoute)
        route.summary = route.description.splitlines()[0].rstrip(".")
    add_handlers(app, routes)
    for router in ROUTERS:
        app.include_router(router)
    _describe(app)
    return app


def _operation_id(route: APIRoute) -> str:
    """By which generated clients call an operation: ``entities_show``."""
    return f"{route.tags[0]}_{route.name}"


def _describe(app: FastAPI) -> None:
    """Put the shape of problems, which no route returns, into the document."""
    document = app.openapi

    def with_problems() -> dict[str, Any]:
        schema = document()
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = Problem.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        return schema

    app.openapi = with_problems  # type: ignore[method-assign]
