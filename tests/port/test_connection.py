"""What goes over a port, from bytes to events and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigurationError, DecodeError, HandshakeError, LimitExceededError, ProtocolError
from bridge.etf import Atom, Pid, decode_term, encode_term
from bridge.port.connection import Delivered, Hello, PortConfig, PortConnection, PortEvent, Replied

_MEMBERS = {Atom("version"): 1, Atom("node"): Atom("n@h"), Atom("store"): Atom("s"), Atom("otp"): b"25"}
_HELLO = (Atom("hello"), _MEMBERS)


def _packet(term: Any) -> bytes:
    raw = encode_term(term)
    return len(raw).to_bytes(4, "big") + raw


def _read(packet: bytes) -> Any:
    assert int.from_bytes(packet[:4], "big") == len(packet) - 4
    return decode_term(packet[4:])


def _greeted() -> PortConnection:
    connection = PortConnection()
    assert connection.receive_data(_packet(_HELLO)) == [Hello(node="n@h", store="s", otp="25")]
    return connection


def test_what_is_written_is_a_packet_with_one_term() -> None:
    connection = PortConnection()
    number, packet = connection.call("kb_khepri", "get", [Atom("s"), b"/:a", {}])
    request = (Atom("call"), number, Atom("kb_khepri"), Atom("get"), [Atom("s"), b"/:a", {}])
    assert _read(packet) == request
    assert _read(connection.cast("m", "f", [1])) == (Atom("cast"), Atom("m"), Atom("f"), [1])
    assert _read(connection.cancel(number)) == (Atom("cancel"), number)
    pid, packet = connection.open()
    assert _read(packet) == (Atom("open"), pid)
    assert _read(connection.close(pid)) == (Atom("close"), pid)


def test_calls_and_inboxes_never_share_a_number() -> None:
    connection = PortConnection()
    assert len({connection.call("m", "f", [])[0] for _ in range(50)}) == 50
    assert len({connection.open()[0] for _ in range(50)}) == 50


@given(
    events=st.lists(
        st.one_of(
            st.tuples(st.just("reply"), st.integers(0, 2**63), st.binary(max_size=20)),
            st.tuples(st.just("message"), st.integers(1, 100), st.lists(st.integers(), max_size=3)),
        ),
        max_size=8,
    ),
    piece=st.integers(1, 40),
)
def test_events_come_in_order_however_the_bytes_are_cut(
    events: list[tuple[str, int, Any]], piece: int
) -> None:
    terms: list[Any] = []
    expected: list[PortEvent] = []
    for kind, number, value in events:
        if kind == "reply":
            terms.append((Atom("reply"), number, (Atom("ok"), value)))
            expected.append(Replied(id=number, value=value))
        else:
            pid = Pid(Atom("port@nohost"), number, 0, 1)
            terms.append((Atom("message"), pid, value))
            expected.append(Delivered(pid=pid, message=value))
    data = b"".join(map(_packet, terms))
    connection = _greeted()
    seen: list[PortEvent] = []
    for start in range(0, len(data), piece):
        seen += connection.receive_data(data[start : start + piece])
    assert seen == expected


@pytest.mark.parametrize("kind", ["error", "exit", "throw"])
def test_what_a_call_raised_is_told_with_its_class(kind: str) -> None:
    stack: list[Any] = []
    reply = (Atom("reply"), 1, (Atom(kind), Atom("boom"), stack))
    assert _greeted().receive_data(_packet(reply)) == [Replied(id=1, raised=(Atom(kind), Atom("boom")))]


@pytest.mark.parametrize(
    "term",
    [
        Atom("hello"),
        (Atom("reply"), Atom("one"), (Atom("ok"), 1)),
        (Atom("message"), b"pid", 1),
        _HELLO,
        (Atom("reply"), 1),
        [],
    ],
)
def test_what_is_no_message_or_out_of_turn_is_refused(term: Any) -> None:
    with pytest.raises(ProtocolError):
        _greeted().receive_data(_packet(term))


def test_nothing_comes_before_the_greeting() -> None:
    with pytest.raises(ProtocolError):
        PortConnection().receive_data(_packet((Atom("reply"), 1, (Atom("ok"), 1))))


@pytest.mark.parametrize("outcome", [Atom("ok"), (Atom("maybe"), 1), (Atom("error"), 1)])
def test_a_reply_that_is_neither_value_nor_exception_is_refused(outcome: Any) -> None:
    with pytest.raises(DecodeError):
        _greeted().receive_data(_packet((Atom("reply"), 1, outcome)))


def test_another_version_is_named() -> None:
    with pytest.raises(HandshakeError, match="version 2"):
        PortConnection().receive_data(_packet((Atom("hello"), {**_MEMBERS, Atom("version"): 2})))


def test_a_greeting_without_its_members_is_refused() -> None:
    with pytest.raises(DecodeError):
        PortConnection().receive_data(_packet((Atom("hello"), {Atom("version"): 1})))


def test_a_packet_beyond_the_limit_is_refused_by_its_length_alone() -> None:
    connection = PortConnection(PortConfig(max_packet_bytes=100))
    with pytest.raises(LimitExceededError, match="max_packet_bytes"):
        connection.receive_data((101).to_bytes(4, "big"))
    with pytest.raises(LimitExceededError, match="max_packet_bytes"):
        connection.call("m", "f", [bytes(200)])


def test_limits_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigurationError):
        PortConfig(max_packet_bytes=0)
    with pytest.raises(ConfigurationError):
        PortConfig(hello_timeout=0.0)
