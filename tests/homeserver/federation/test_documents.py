from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import DecodeError
from bridge.homeserver.federation.documents import (
    MAX_QUESTION_BYTES,
    Accepted,
    Answer,
    AskServers,
    Cancel,
    Endpoint,
    Giver,
    Moved,
    Noted,
    Offer,
    Question,
    Refused,
    Servers,
    Settle,
    Settled,
    act_of,
    decode_answer_untrusted,
    decode_question_untrusted,
    encode_document,
)
from bridge.jose.encoding import base64url_encode
from bridge.registry import Rule

NAMES = st.text(min_size=1, max_size=255).filter(lambda text: text.encode("utf-8", "ignore").decode() == text)
U64S = st.integers(0, 2**64 - 1).map(str)
IDS = st.binary(min_size=16, max_size=16).map(base64url_encode)
HOPS = st.integers(0, 63)
THUMBPRINTS = st.binary(min_size=32, max_size=32).map(base64url_encode)
ENDPOINTS = st.builds(
    Endpoint,
    server=NAMES,
    session=IDS,
    key=NAMES,
    thumbprint=THUMBPRINTS,
    host=NAMES,
    port=st.integers(1, 65_535),
)
QUESTIONS: st.SearchStrategy[Question] = st.one_of(
    st.builds(
        Offer,
        transfer=U64S,
        low=U64S,
        entity=NAMES,
        owner=NAMES,
        master=NAMES,
        default_owner=st.none() | NAMES,
        rule=st.sampled_from(Rule),
        home=NAMES,
        to=NAMES,
        box=NAMES,
        giver=st.builds(Giver, endpoint=ENDPOINTS, epoch=U64S),
        trace=IDS,
        hop=HOPS,
    ),
    st.builds(Cancel, transfer=U64S, low=U64S, trace=IDS, hop=HOPS),
    st.builds(Settle, low=U64S),
    st.builds(Moved, entity=NAMES, at=NAMES, epoch=U64S),
    st.just(AskServers()),
)
ANSWERS: st.SearchStrategy[Answer] = st.one_of(
    st.builds(Accepted, transfer=U64S, epoch=U64S, trace=IDS, hop=HOPS),
    st.builds(Refused, transfer=U64S, reason=NAMES, trace=IDS, hop=HOPS),
    st.builds(Settled, low=U64S),
    st.builds(Noted, entity=NAMES),
    st.builds(Servers, servers=st.lists(ENDPOINTS, max_size=3)),
)
OFFER: dict[str, Any] = {
    "act": "offer",
    "transfer": "281474976710657",
    "low": "281474976710656",
    "entity": "ball",
    "owner": "Player2",
    "master": "Player1@emerald",
    "default_owner": None,
    "rule": "allow",
    "home": "emerald",
    "to": "sim2",
    "box": "a.b.c",
    "giver": {
        "endpoint": {
            "server": "sim1",
            "session": "AAECAwQFBgcICQoLDA0ODw",
            "key": "{}",
            "thumbprint": "A" * 43,
            "host": "127.0.0.1",
            "port": 4000,
        },
        "epoch": "281474976710655",
    },
    "trace": "AAECAwQFBgcICQoLDA0ODw",
    "hop": 1,
}


@given(QUESTIONS)
def test_a_question_reads_back(question: Question) -> None:
    body = encode_document(question)
    assert decode_question_untrusted(body) == question
    assert json.loads(body)["act"] == act_of(question)
    with pytest.raises(DecodeError):
        decode_answer_untrusted(body)


@given(ANSWERS)
def test_an_answer_reads_back(answer: Answer) -> None:
    body = encode_document(answer)
    assert decode_answer_untrusted(body) == answer
    with pytest.raises(DecodeError):
        decode_question_untrusted(body)


def test_numbers_beyond_53_bits_are_texts() -> None:
    offer = decode_question_untrusted(json.dumps(OFFER).encode())
    assert isinstance(offer, Offer)
    assert int(offer.transfer) == 1 << 48 | 1


@pytest.mark.parametrize(
    "change",
    [
        {"act": "gift"},
        {"transfer": 7},
        {"transfer": "07"},
        {"transfer": "-1"},
        {"transfer": "18446744073709551616"},
        {"low": "1e3"},
        {"entity": ""},
        {"entity": "e" * 256},
        {"rule": "maybe"},
        {"box": ""},
        {"box": "b" * 16_385},
        {"trace": "short"},
        {"trace": "AAECAwQFBgcICQoLDA0OD_"},
        {"hop": 64},
        {"hop": True},
        {"default_owner": 3},
        {"giver": None},
        {"extra": 1},
    ],
    ids=lambda change: f"{next(iter(change))}={next(iter(change.values()))!r:.20}",
)
def test_what_is_out_of_range_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        decode_question_untrusted(json.dumps({**OFFER, **change}).encode())


@pytest.mark.parametrize("member", OFFER)
def test_nothing_may_be_missing(member: str) -> None:
    body = json.dumps({name: value for name, value in OFFER.items() if name != member}).encode()
    with pytest.raises(DecodeError):
        decode_question_untrusted(body)


@given(st.binary(max_size=200))
def test_other_bytes_end_in_one_error(body: bytes) -> None:
    for decode in (decode_question_untrusted, decode_answer_untrusted):
        with pytest.raises(DecodeError):
            decode(body)


def test_a_question_is_measured_before_it_is_read() -> None:
    with pytest.raises(DecodeError, match="bytes"):
        decode_question_untrusted(b" " * (MAX_QUESTION_BYTES + 1))
    with pytest.raises(DecodeError):
        decode_question_untrusted(b"[" * 40_000)


def test_a_document_of_a_directory_is_bounded() -> None:
    endpoint = msgspec.to_builtins(
        Endpoint(server="s", session="A" * 22, key="k", thumbprint="A" * 43, host="h", port=1)
    )
    body = json.dumps({"act": "servers", "servers": [endpoint] * 1001}).encode()
    with pytest.raises(DecodeError):
        decode_answer_untrusted(body)
