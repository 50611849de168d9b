"""Port mapper requests and answers, byte for byte as in the Erlang documentation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.dist import (
    NAMES_REQUEST,
    Registered,
    encode_alive2,
    encode_port_please,
    parse_alive2,
    parse_names,
    parse_port_please,
)
from bridge.errors import DecodeError


def test_a_registration_names_port_kind_versions_and_name() -> None:
    assert encode_alive2("sim1", 0x1234, hidden=True) == (
        b"\x00\x11"  # 17 bytes follow
        b"x\x12\x34"  # ALIVE2_REQ, port
        b"H\x00"  # a hidden node, over TCP
        b"\x00\x06\x00\x06"  # highest and lowest version
        b"\x00\x04sim1"
        b"\x00\x00"  # no extra data
    )
    assert encode_alive2("sim1", 1, hidden=False)[5:6] == b"M"


def test_a_name_is_utf_8() -> None:
    request = encode_alive2("språk", 1, hidden=True)
    assert request[11:] == b"\x00\x06spr\xc3\xa5k\x00\x00"
    assert int.from_bytes(request[:2], "big") == len(request) - 2


def test_the_creation_has_two_bytes_or_four_by_the_kind_of_the_answer() -> None:
    assert parse_alive2(b"v\x00\x01\x02\x03\x04") == 0x01020304
    assert parse_alive2(b"y\x00\x00\x03") == 3


def test_a_taken_name_has_no_creation() -> None:
    assert parse_alive2(b"v\x01\x00\x00\x00\x00") is None
    assert parse_alive2(b"y\x01\x00\x00") is None


def test_a_look_up_is_one_byte_and_the_name() -> None:
    assert encode_port_please("hs1") == b"\x00\x04zhs1"


def test_an_answer_tells_port_kind_and_version() -> None:
    answer = b"w\x00\x12\x34H\x00\x00\x06\x00\x05\x00\x03hs1\x00\x00"
    assert parse_port_please(answer) == Registered(port=0x1234, hidden=True, highest_version=6)
    visible = parse_port_please(answer.replace(b"H", b"M"))
    assert visible is not None
    assert not visible.hidden


def test_an_unknown_name_is_none() -> None:
    assert parse_port_please(b"w\x01") is None


@pytest.mark.parametrize("data", [b"", b"w", b"x\x00", b"w\x00\x12", b"w\x00\x12\x34H\x00\x00\x06\x00"])
def test_a_look_up_refuses_what_is_no_answer(data: bytes) -> None:
    with pytest.raises(DecodeError, match="port mapper"):
        parse_port_please(data)


@pytest.mark.parametrize("data", [b"", b"v", b"v\x00\x00\x01", b"y\x00\x00\x00\x00\x01", b"w\x00\x00\x01"])
def test_a_registration_refuses_what_is_no_answer(data: bytes) -> None:
    with pytest.raises(DecodeError, match="port mapper"):
        parse_alive2(data)


@given(st.binary(max_size=20))
def test_any_bytes_raise_only_what_is_promised(data: bytes) -> None:
    for parse in (parse_alive2, parse_port_please):
        try:
            parse(data)
        except DecodeError:
            continue


def test_names_come_as_lines_after_the_port_mappers_own_port() -> None:
    assert NAMES_REQUEST == b"\x00\x01n"
    assert parse_names(b"\x00\x00\x11\x11") == {}
    lines = b"name hs1 at port 4711\nname spr\xc3\xa5k at port 1\n"
    assert parse_names(b"\x00\x00\x11\x11" + lines) == {"hs1": 4711, "språk": 1}


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00\x00\x11", b"\x00\x00\x11\x11hello", b"\x00\x00\x11\x11name a at port b\n", b"HTTP\xff"],
)
def test_what_is_no_list_of_names_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        parse_names(data)
