from __future__ import annotations

import json

from bridge.etf import Atom
from bridge.homeserver.rest.events import event_of, inbox_json, snapshot_events
from bridge.khepri import Deleted, Snapshot, Updated
from bridge.registry import AskEnded, EntityRecord, Grant, Outcome, Recall, Rule, Step

STEP = Step(trace=bytes(16), hop=2)
SCENE = {
    Atom("scene"): b"pitch",
    Atom("servers"): [b"sim1"],
    Atom("hand_out"): True,
    Atom("version"): 1,
}
SERVER = {
    Atom("server"): b"sim1",
    Atom("session"): Atom("undefined"),
    Atom("key"): b"{}",
    Atom("thumbprint"): b"t",
    Atom("address"): (b"192.0.2.7", 4000),
}
AT_SERVER = (Atom("bridge"), Atom("servers"), b"sim1")


def test_each_kind_of_record_is_an_event_of_its_own() -> None:
    assert event_of(Updated((Atom("scenes"), b"pitch"), SCENE), ()) == (
        "scene",
        {"scene": "pitch", "servers": ["sim1"], "hand_out": True, "version": 1},
    )
    assert event_of(Deleted((Atom("scenes"), b"pitch")), ()) == ("scene-gone", {"scene": "pitch"})
    assert event_of(Deleted((Atom("bridge"), Atom("entities"), b"ball")), ()) == (
        "entity-gone",
        {"entity": "ball"},
    )
    assert event_of(Deleted((Atom("bridge"), Atom("asks"), b"Player1")), ()) == ("asks", {"asks": []})


def test_an_address_that_is_hidden_is_hidden_here_too() -> None:
    for hidden, address in (((), {"host": "192.0.2.7", "port": 4000}), ({"sim1"}, None)):
        event = event_of(Updated(AT_SERVER, SERVER), hidden)
        assert event is not None
        assert event[1]["address"] == address


def test_what_nobody_here_knows_is_passed_over() -> None:
    assert (
        event_of(Updated((Atom("bridge"), Atom("inbox"), b"s", b"e"), {Atom("type"): Atom("new")}), ())
        is None
    )
    assert event_of(Updated((Atom("bridge"), Atom("keys"), b"k"), {}), ()) is None
    assert event_of(Updated((Atom("scenes"),), None), ()) is None
    assert event_of(Deleted((Atom("bridge"), Atom("inbox"), b"s", b"e")), ()) is None


def test_a_snapshot_begins_and_ends() -> None:
    events = list(snapshot_events(Snapshot({AT_SERVER: SERVER}, "hs1@h", gap=True), ()))
    assert [name for name, _ in events] == ["snapshot", "server", "complete"]
    assert events[0][1] == {"gap": True, "member": "hs1@h"}


def test_inbox_messages_are_json_with_all_their_bits() -> None:
    record = EntityRecord(
        entity="ball",
        owner="a",
        master="b",
        rule=Rule.ASK,
        session=None,
        server=None,
        epoch=1 << 60,
        awaiting=None,
        home="emerald",
        version=3,
    )
    grant = Grant(entity="ball", epoch=1 << 60, previous=7, giver="sim1", owner="a", box="x.y", step=STEP)
    recall = Recall(entity="ball", epoch=7, granted=1 << 60, taker="sim2", owner="a", step=STEP, unread=grant)
    ended = AskEnded(
        entity="ball", player="a", outcome=Outcome.GRANTED, record=record, asked=bytes(16), step=STEP
    )
    told = json.loads(json.dumps([inbox_json(message) for message in (recall, ended)]))
    assert told[0]["unread"]["epoch"] == str(1 << 60)
    assert (told[0]["type"], told[0]["step"]) == ("recall", {"trace": "00" * 16, "hop": 2})
    assert (told[1]["outcome"], told[1]["record"]["epoch"]) == ("granted", str(1 << 60))
