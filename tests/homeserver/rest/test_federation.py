"""What strangers and peers get at the place where instances ask."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from bridge.homeserver.federation.documents import (
    AskServers,
    Document,
    Servers,
    Settle,
    Settled,
    decode_answer_untrusted,
)
from bridge.homeserver.federation.link import SEAL_HEADER
from bridge.homeserver.federation.sealing import Sealed, check_seal_untrusted, seal_document
from bridge.homeserver.rest.app import create_app
from bridge.jose import Jwk
from tests.support.cluster import erlang
from tests.support.credentials import KeySigner
from tests.support.federation import Federation
from tests.support.rest import Rest, kind


async def sealed(federation: Federation, document: Document, **changes: Any) -> Sealed:
    arguments: dict[str, Any] = {
        "signer": federation.x.signer,
        "instance": "emerald",
        "audience": "ruby",
        "question": None,
        "now": time.time(),
        "random": secrets.token_bytes(16),
    }
    return await seal_document(document, **{**arguments, **changes})


@pytest.fixture
async def ruby(federation: Federation) -> AsyncIterator[httpx.AsyncClient]:
    """A client, without a token, of the service of the instance ruby."""
    async with await Rest.over(federation.y.store) as rest:
        app = create_app(replace(rest.context, desk=federation.y.desk))
        async with Rest(app, rest.context) as served:
            yield await served.client()


async def ask(client: httpx.AsyncClient, made: Sealed, **changes: Any) -> httpx.Response:
    arguments: dict[str, Any] = {"content": made.body, "headers": {SEAL_HEADER: made.seal}}
    return await client.post("/v1/federation", **{**arguments, **changes})


@erlang
async def test_a_peer_asks_and_the_answer_is_sealed_for_it(
    federation: Federation, ruby: httpx.AsyncClient
) -> None:
    question = await sealed(federation, AskServers())
    answer = await ask(ruby, question)
    assert answer.status_code == 200, answer.text
    check_seal_untrusted(
        answer.headers[SEAL_HEADER],
        answer.content,
        keys=federation.y.as_peer().keyring,
        instance="ruby",
        audience="emerald",
        question=question.id,
        now=time.time(),
    )
    assert isinstance(decode_answer_untrusted(answer.content), Servers)
    settled = await ask(ruby, await sealed(federation, Settle(low="0")))
    assert decode_answer_untrusted(settled.content) == Settled(low="0")


@erlang
async def test_whatever_does_not_hold_is_refused(federation: Federation, ruby: httpx.AsyncClient) -> None:
    stranger = KeySigner(Jwk.generate())
    good = await sealed(federation, Settle(low="0"))
    other = await sealed(federation, Settle(low="1"))
    unknown = await sealed(federation, Settle(low="0"), instance="opal", signer=stranger)
    assert kind(await ask(ruby, unknown)) == "unpinned"
    assert kind(await ask(ruby, await sealed(federation, Settle(low="0"), signer=stranger))) == "bad_seal"
    assert kind(await ask(ruby, await sealed(federation, Settle(low="0"), audience="opal"))) == "bad_seal"
    assert kind(await ask(ruby, await sealed(federation, Settle(low="0"), now=1_800_000))) == "bad_seal"
    assert kind(await ask(ruby, good, content=other.body)) == "bad_seal"
    assert kind(await ask(ruby, good, headers={})) == "invalid_request"
    assert kind(await ask(ruby, good, headers={SEAL_HEADER: "a.b.c"})) == "bad_seal"
    assert kind(await ask(ruby, good, content=b" " * 70_000)) == "too_large"
    answer = await sealed(federation, Settled(low="0"))
    assert kind(await ask(ruby, answer)) == "invalid_request"


@erlang
async def test_a_process_without_the_signer_says_so(federation: Federation) -> None:
    async with await Rest.over(federation.y.store) as rest:
        client = await rest.client()
        assert kind(await ask(client, await sealed(federation, AskServers()))) == "no_federation"
