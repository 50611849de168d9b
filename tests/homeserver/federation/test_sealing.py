from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import SignatureError
from bridge.homeserver.federation.documents import Settle
from bridge.homeserver.federation.sealing import (
    LIFETIME_S,
    Sealed,
    check_seal_untrusted,
    claimed_instance_untrusted,
    seal_document,
)
from bridge.jose import Jwk
from bridge.jose.credentials import keyring
from tests.support.credentials import INSTANCE, KEYS, NOW, KeySigner


async def sealed(*, question: str | None = None, random: bytes = bytes(16)) -> Sealed:
    return await seal_document(
        Settle(low="7"),
        signer=KeySigner(),
        instance=INSTANCE,
        audience="ruby",
        question=question,
        now=NOW,
        random=random,
    )


def check(made: Sealed, **changes: Any) -> None:
    arguments: dict[str, Any] = {
        "body": made.body,
        "keys": KEYS,
        "instance": INSTANCE,
        "audience": "ruby",
        "question": None,
        "now": NOW,
    }
    body = changes.pop("body", made.body)
    arguments.update(changes, body=body)
    check_seal_untrusted(made.seal, **arguments)


async def test_a_sealed_document_is_checked_in_full() -> None:
    made = await sealed()
    check(made)
    assert claimed_instance_untrusted(made.seal) == INSTANCE
    for change in (
        {"body": made.body + b" "},
        {"body": b""},
        {"keys": keyring([Jwk.generate()])},
        {"instance": "opal"},
        {"audience": "opal"},
        {"now": NOW + LIFETIME_S},
        {"now": NOW - 31},
        {"question": made.id},
    ):
        with pytest.raises(SignatureError):
            check(made, **change)


async def test_an_answer_belongs_to_its_question() -> None:
    question = await sealed()
    answer = await sealed(question=question.id, random=bytes(range(16)))
    check(answer, question=question.id)
    with pytest.raises(SignatureError, match="another question"):
        check(answer, question=answer.id)
    with pytest.raises(SignatureError, match="another question"):
        check(answer)


@pytest.mark.parametrize("text", ["", "a.b.c", "é", "x" * 5000])
def test_what_is_no_seal_claims_nothing(text: str) -> None:
    with pytest.raises(SignatureError):
        claimed_instance_untrusted(text)
