import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import DecodeError
from bridge.sim.dataplane.messages import (
    AddPeer,
    BeginSession,
    CatchUp,
    CaughtUp,
    Command,
    Credited,
    EndSession,
    Event,
    Fatal,
    FindStreamed,
    FirstAccepted,
    Follow,
    Forget,
    Hold,
    MakeReport,
    Measure,
    Measured,
    Opened,
    OpenRelease,
    PeerDown,
    PeerMessageReceived,
    PeerUp,
    RaiseFence,
    Ready,
    Refused,
    RemovePeer,
    Report,
    Sealed,
    SendMessage,
    SessionEnded,
    Shutdown,
    Start,
    Stop,
    Streamed,
    Unfollow,
    WentSilent,
    decode_command,
    decode_event,
    encode_frame,
)

COMMANDS: list[Command] = [
    Start(
        server="sim1",
        run=b"r" * 16,
        host="127.0.0.1",
        port=0,
        capacity=8,
        rate_hz=60.0,
        network="loss=5%,seed=7",
    ),
    BeginSession(session=b"s" * 16),
    EndSession(id=4),
    FindStreamed(id=5, entities=("ball",), max_age_ns=6_000_000_000),
    AddPeer(server="sim2", session=None, key=b"{}", thumbprint="t", host="127.0.0.1", port=4000),
    RemovePeer(server="sim2"),
    RaiseFence(entity="ball", epoch=2**64 - 1, server=""),
    Hold(entity="ball", epoch=1, slot=3),
    Follow(entity="ball", slot=4),
    Unfollow(entity="ball"),
    Forget(entity="ball"),
    CatchUp(id=6),
    Stop(id=1, entity="ball", to="sim2"),
    OpenRelease(id=2, entity="ball", giver="sim2", previous=1, box="a.b"),
    SendMessage(to="sim2", message=b"\x00\xff"),
    MakeReport(id=3, drain_seconds=0.5),
    Measure(id=7),
    Shutdown(),
]
EVENTS: list[Event] = [
    Ready(key=b"{}", thumbprint="t", host="127.0.0.1", port=4000),
    Sealed(id=1, box="a.b"),
    Opened(id=1, state=bytes(26)),
    Refused(id=1, error="BoxError: no"),
    SessionEnded(id=4),
    Streamed(id=5, entities=("ball",)),
    CaughtUp(id=6),
    WentSilent(entities=1, at_ns=1),
    PeerUp(server="sim2"),
    PeerDown(server="sim2", reason="idle"),
    PeerMessageReceived(server="sim2", message=b"\x00", at_ns=1),
    Credited(server="sim2", message=b"\x00", at_ns=1),
    FirstAccepted(server="sim2", entity="ball", epoch=1, at_ns=1),
    Fatal(error="no"),
    Report(id=1, history=[b"{}"], verdicts={"late": 1}, sent={"sim2": 1}, received={}, malformed=0),
    Measured(id=7, udp="# HELP", verdicts={"late": 1}, malformed=0, kept=3),
]


def body(frame: bytes) -> bytes:
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    return frame[4:]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: type(c).__name__)
def test_a_command_survives_its_frame(command: Command) -> None:
    assert decode_command(body(encode_frame(command))) == command


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_an_event_survives_its_frame(event: Event) -> None:
    assert decode_event(body(encode_frame(event))) == event


def test_the_examples_are_all_there_is() -> None:
    assert {type(command) for command in COMMANDS} == set(Command.__args__)
    assert {type(event) for event in EVENTS} == set(Event.__args__)


def test_a_command_is_no_event_and_an_event_no_command() -> None:
    with pytest.raises(DecodeError):
        decode_event(body(encode_frame(Shutdown())))
    with pytest.raises(msgspec.ValidationError):
        decode_command(body(encode_frame(PeerUp(server="sim2"))))


@given(st.one_of(st.binary(max_size=60), st.just(b"\x91" * 100_000)))
def test_any_bytes_of_a_data_plane_decode_or_raise_decode_error(data: bytes) -> None:
    """The process that reads strangers' bytes is the one that may be taken over."""
    with contextlib.suppress(DecodeError):
        decode_event(data)
    with pytest.raises(DecodeError):
        decode_event(encode_frame(EVENTS[3])[4:].replace(b"BoxError", b"Box\xffrror"))
