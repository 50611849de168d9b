"""The OpenAPI document is valid and true: schemathesis asks the service on a real store for all of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from bridge.cluster.local import LocalCluster
from bridge.homeserver.issuing import IssuingSettings
from bridge.homeserver.rest.app import create_app
from bridge.homeserver.rest.context import Context
from bridge.homeserver.rest.serve import Listening, serving
from bridge.jose import Jwk
from bridge.jose.credentials import Role
from bridge.jose.encoding import base64url_encode
from bridge.khepri import Khepri
from bridge.registry import Rule
from tests.support.authority import Server
from tests.support.cluster import fresh, hidden_node
from tests.support.credentials import KeySigner
from tests.support.rest import Rest, bearer

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

NOTHING: Any = None
OPEN = IssuingSettings(open_registration=True)
DOCUMENT = create_app(Context(store=NOTHING, ownership=NOTHING, instance="", authenticator=NOTHING)).openapi()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
# What If-Match names need not be there.
SCHEMA.config.checks.positive_data_acceptance.expected_statuses.append("412")
SIGNED = ("/v1/certificates", "/v1/tokens", "/v1/tokens/peer", "/v1/tickets")
"""what is sent there is signed: a text of the right form is not yet valid"""
# A feed never ends: its own tests read it.
OPERATIONS = SCHEMA.exclude(path="/v1/feed")


@dataclass(frozen=True)
class Running:
    """A service, what there is in its store, and a token of each role."""

    url: str
    names: dict[str, str]
    tokens: dict[Role, str]


@pytest.fixture(scope="module")
def running(cluster: LocalCluster) -> Iterator[Running]:
    """The service in a thread: schemathesis calls it as any client does."""
    loop = asyncio.new_event_loop()
    ended, ready = asyncio.Event(), threading.Event()
    found: list[Running] = []

    async def run() -> None:
        async with (
            hidden_node(cluster) as node,
            Khepri.connect(node, cluster.members, store=cluster.store) as store,
            await Rest.over(store, signer=KeySigner(), issuing=OPEN) as rest,
            serving(rest.app, Listening()) as (url, _),
        ):
            key = Jwk.generate()
            server = Server(store, fresh("sim"), key)
            await server.open()
            player, thing = fresh("Player"), fresh("thing")
            await rest.context.ownership.enter(player, server.session)
            await server.home.create_entity(entity=thing, owner=player, master=player, rule=Rule.ASK)
            subjects = {Role.PLAYER: player, Role.SERVER: server.name, Role.OPERATOR: "ops"}
            tokens = {
                role: bearer(rest.context.instance, subject, role, key=key)
                for role, subject in subjects.items()
            }
            names = {
                "entity": thing,
                "player": player,
                "server": server.name,
                "session": base64url_encode(server.session),
            }
            found.append(Running(url, names, tokens))
            ready.set()
            await ended.wait()
            await server.home.close_session()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert ready.wait(60)
    yield found[0]
    loop.call_soon_threadsafe(ended.set)
    thread.join(60)
    loop.close()


def _role(case: schemathesis.Case[Any]) -> Role:
    if case.path.startswith("/v1/sessions"):
        return Role.SERVER
    return Role.OPERATOR if case.path.startswith("/v1/scenes") else Role.PLAYER


@OPERATIONS.parametrize()
@settings(
    max_examples=8,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_operation_answers_as_its_description_says(
    case: schemathesis.Case[Any], running: Running
) -> None:
    """R0-13: no request leads to a 5xx, and every response is one of those that are described."""
    mutated = _mutated(case)
    if not mutated:
        for name, value in (case.path_parameters or {}).items():
            # Half of them are about what there is.
            if len(str(value)) % 2 == 0 and name in running.names:
                case.path_parameters[name] = running.names[name]
    headers = {"Authorization": f"Bearer {running.tokens[_role(case)]}"}
    tolerated: list[Any] = []
    if mutated <= {"query", "header"}:
        # Members of a query that nobody knows are ignored, and an access token is there in any case.
        tolerated.append(negative_data_rejection)
    if case.path in SIGNED:
        tolerated.append(positive_data_acceptance)
    if case.path.endswith("/renewals"):
        # One with a number that was sent before is never acknowledged: 503.
        tolerated.append(not_a_server_error)
    case.call_and_validate(base_url=running.url, headers=headers, excluded_checks=tolerated)


def _mutated(case: schemathesis.Case[Any]) -> set[str]:
    """Where a case does not follow the description, on purpose."""
    if case.meta is None:
        return set()
    components = case.meta.components.items()
    return {str(where.value) for where, info in components if info.mode is GenerationMode.NEGATIVE}


def test_the_document_is_valid() -> None:
    SCHEMA.validate()
