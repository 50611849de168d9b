from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import SignatureError
from bridge.jose import Jwk, verify
from bridge.jose.credentials import Ticket, read_untrusted
from bridge.jose.credentials.ticket import MAX_TICKET_DATA_BYTES, check_data
from bridge.jose.encoding import base64url_encode, json_encode, json_object_untrusted
from bridge.jose.signature import sign_raw
from tests.support.credentials import INSTANCE, ISSUER, KEYS, NOW, issued, ticket

ALICE = Jwk.generate()
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


def depth(value: object) -> int:
    match value:
        case dict():
            return 1 + max(map(depth, value.values()), default=0)
        case list():
            return 1 + max(map(depth, value), default=0)
        case _:
            return 0


@given(st.dictionaries(TEXT, JSON, max_size=4).filter(lambda data: depth(data) <= 7))
def test_any_data_of_a_player_arrives_as_it_was(data: dict[str, Any]) -> None:
    """R4-1."""
    made = ticket(ALICE, data=data)
    assert read_untrusted(Ticket, issued(made), keys=KEYS, instance=INSTANCE, now=NOW) == made


def test_the_player_can_read_the_ticket_and_any_reader_of_jose_can_check_it() -> None:
    """R4-3: signed, not hidden."""
    claims = json_object_untrusted(verify(issued(ticket(ALICE)), ISSUER.public()))
    assert claims["data"]["gold"] == 7
    assert claims["room"] == "tavern"


@pytest.mark.parametrize("size", [MAX_TICKET_DATA_BYTES, MAX_TICKET_DATA_BYTES + 1])
def test_data_is_bounded_and_the_largest_fits(size: int) -> None:
    data = {"a": "x" * (size - 8)}
    if size <= MAX_TICKET_DATA_BYTES:
        made = ticket(ALICE, subject="s" * 255, server="B" * 255, room="r" * 255, data=data)
        assert read_untrusted(Ticket, issued(made), keys=KEYS, instance=INSTANCE, now=NOW) == made
        return
    with pytest.raises(SignatureError, match="up to 8192 bytes"):
        ticket(ALICE, data=data)


def _nested(levels: int) -> dict[str, Any]:
    return {"a": _nested(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    "data",
    [None, [], "{}", {1: 2}, {"a": float("inf")}, {"a": b"x"}, {"a": (1,)}, {"a": "\ud800"}, _nested(7)],
    ids=str,
)
def test_what_does_not_read_back_is_no_data(data: object) -> None:
    check_data(_nested(6))
    with pytest.raises(SignatureError, match="data"):
        check_data(data)


def test_a_number_too_large_for_any_float_is_refused_though_signed() -> None:
    header = issued(ticket(ALICE)).split(".")[0]
    raw = json_encode(ticket(ALICE, data={"a": 1e300}).claims()).replace(b"1e300", b"1e999")
    assert b"1e999" in raw
    covered = f"{header}.{base64url_encode(raw)}"
    forged = f"{covered}.{base64url_encode(sign_raw(covered.encode(), ISSUER, 'ES256'))}"
    with pytest.raises(SignatureError, match="read back"):
        read_untrusted(Ticket, forged, keys=KEYS, instance=INSTANCE, now=NOW)
