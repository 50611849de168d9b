"""Answers count that the asked instance sealed, to this very question."""

from __future__ import annotations

import pytest

from bridge.errors import ConfigurationError, SignatureError
from bridge.homeserver.federation.asking import Asker
from bridge.homeserver.federation.documents import AskEntity, Standing
from bridge.homeserver.federation.link import Link
from bridge.homeserver.federation.peers import Peer
from bridge.jose import Jwk
from tests.support.cluster import fresh
from tests.support.federation import Federation

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


class Replaying:
    """Answers each question with the answer to the first one."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._first: tuple[bytes, str] | None = None

    async def ask(self, peer: Peer, body: bytes, seal: str) -> tuple[bytes, str]:
        if self._first is None:
            self._first = await self._link.ask(peer, body, seal)
        return self._first


def asker(federation: Federation, link: Link) -> Asker:
    x = federation.x
    return Asker(x.escrows, instance=x.name, signer=x.signer, link=link)


async def test_an_instance_answers_under_its_seal(federation: Federation) -> None:
    thing = fresh("thing")
    answer = await asker(federation, federation.link).ask("ruby", AskEntity(entity=thing, transfer="1"))
    assert isinstance(answer, Standing)
    assert (answer.entity, answer.place, answer.at, answer.home) == (thing, "none", None, None)


async def test_an_answer_to_another_question_does_not_count(federation: Federation) -> None:
    replayed = asker(federation, Replaying(federation.link))
    question = AskEntity(entity=fresh("thing"), transfer="1")
    await replayed.ask("ruby", question)
    with pytest.raises(SignatureError, match="another question"):
        await replayed.ask("ruby", question)


async def test_nobody_is_asked_who_is_not_pinned_nor_believed_under_another_key(
    federation: Federation,
) -> None:
    ask = asker(federation, federation.link).ask
    with pytest.raises(ConfigurationError, match="not pinned"):
        await ask("opal", AskEntity(entity="thing", transfer="1"))
    await federation.x.escrows.pin(federation.y.as_peer(keys=(Jwk.generate().public(),)))
    try:
        with pytest.raises(SignatureError):
            await ask("ruby", AskEntity(entity="thing", transfer="1"))
    finally:
        await federation.x.escrows.pin(federation.y.as_peer())
