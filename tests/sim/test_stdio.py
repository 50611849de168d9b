"""Commands in, events out, one JSON object a line."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.authority import Message
from bridge.errors import DecodeError
from bridge.registry import Rule
from bridge.sim.events import EntityDeleted, EntityUpdated, Problem
from bridge.sim.stdio import (
    AnswerAsk,
    Command,
    Delete,
    Done,
    Enter,
    Failed,
    Kick,
    Line,
    MakeReport,
    PushAbroad,
    Quit,
    Reported,
    RequestEntity,
    Spawn,
    Started,
    Take,
    Update,
    decode_command,
    decode_line,
    encode_line,
    refusal,
)

MESSAGE = Message(trace=bytes(16), hop=0, kind="push", sender="sim1", receiver="home", at_ns=1)
COMMANDS: list[Command] = [
    Spawn(id=1, entity="ball", owner="P", position=(1.0, 2.0, 3.0), rule=Rule.ASK),
    Kick(id=2, entity="ball", owner="P", to="sim2", position=(0.0, 0.0, 0.0), velocity=(1.0, 0.0, 0.0)),
    Take(id=3, entity="ball", owner="P"),
    Enter(id=5, player="P"),
    PushAbroad(id=7, entity="ball", owner="P", instance="ruby", to="sim2"),
    RequestEntity(id=7, entity="gun", player="P", authority=False, seconds=1.5),
    Delete(id=9, entity="ball", by="P"),
    AnswerAsk(id=8, entity="gun", player="P", by="M", grant=True),
    Update(id=6, entity="ball", by="P", velocity=(0.0, 1.0, 0.0), owner="Q"),
    MakeReport(id=4),
    Quit(),
]
LINES: list[Line] = [
    Started(server="sim1", node="sim1@127.0.0.1"),
    Done(id=1, epoch=2**64 - 1),
    Failed(id=1, error="ConflictError: no"),
    Reported(
        id=1,
        history=[b"{}"],
        messages=[MESSAGE],
        verdicts={"late": 1},
        sent={"sim2": 1},
        received={},
        malformed=0,
    ),
    EntityUpdated(entity="ball", by="P", owner="Q", at_ns=1),
    EntityDeleted(entity="ball", at_ns=1),
    Problem(text="no", fatal=False),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: type(c).__name__)
def test_a_command_survives_its_line(command: Command) -> None:
    line = encode_line(command)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_command(line) == command


@pytest.mark.parametrize("told", LINES, ids=lambda line: type(line).__name__)
def test_what_a_server_tells_survives_its_line(told: Line) -> None:
    assert decode_line(encode_line(told)) == told


def test_a_driver_in_another_language_writes_plain_json() -> None:
    line = json.dumps({"type": "spawn", "id": 1, "entity": "ball", "owner": "P", "position": [1, 2, 3]})
    assert decode_command(line.encode()) == Spawn(id=1, entity="ball", owner="P", position=(1.0, 2.0, 3.0))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b'{"type":"fly"}',
        b'{"type":"take","id":-1,"entity":"b","owner":"P"}',
        b'{"type":"spawn","id":1,"entity":"b","owner":"P","position":[1,2]}',
        b'{"type":"spawn","id":1,"entity":"b","owner":"P","position":[1,2,3],"rule":"whim"}',
        b'{"type":"take","id":1,"entity":"\xff","owner":"P"}',
        b'{"type":"take","id":1,"x":' + b"[" * 100_000,
    ],
    ids=["empty", "no type", "type", "id", "position", "rule", "no UTF-8", "deep"],
)
def test_a_line_that_is_no_command_is_refused(line: bytes) -> None:
    with pytest.raises(DecodeError, match="no command"):
        decode_command(line)


@pytest.mark.parametrize("line", [b'{"type":"spwn","id":3}', b'{"id":3}'], ids=["unknown", "none"])
def test_who_names_no_command_is_told_which_there_are(line: bytes) -> None:
    with pytest.raises(DecodeError, match=r"; commands: spawn, .*, quit$"):
        decode_command(line)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"type":"kick","id":4,"entity":"ball"}', Failed(id=4, error="why")),
        (b'{"type":"spwn","id":3}', Failed(id=3, error="why")),
        (b'{"type":"spwn"}', Problem(text="why", fatal=False)),
        (b'{"type":"kick","id":-4}', Problem(text="why", fatal=False)),
        (b'{"type":"kick","id":"4"}', Problem(text="why", fatal=False)),
        (b"hello", Problem(text="why", fatal=False)),
        (b"\xff", Problem(text="why", fatal=False)),
    ],
    ids=["a member lacks", "no such type", "no number", "below zero", "text", "no JSON", "no UTF-8"],
)
def test_a_refused_line_with_a_number_is_answered(line: bytes, told: Failed | Problem) -> None:
    assert refusal(line, DecodeError("why")) == told


@given(st.binary(max_size=100))
def test_any_bytes_decode_or_raise_decode_error(data: bytes) -> None:
    for decode in (decode_command, decode_line):
        with contextlib.suppress(DecodeError):
            decode(data)


def test_the_examples_are_all_commands() -> None:
    assert {type(command) for command in COMMANDS} == set(Command.__args__)
