import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import ConfigurationError, DecodeError, InvalidStateError
from bridge.replication.bindings import Bindings
from bridge.replication.records import MAX_PAYLOAD_BYTES
from bridge.replication.seats import GROUP_SEATS, Rows, empty_rows, handles_of, rows_of, seen_states
from bridge.replication.snapshots import (
    MAX_BASELINE_AGE,
    MIN_ROOM_BYTES,
    Outgoing,
    SnapshotReceiver,
    SnapshotSender,
    Told,
    View,
)
from bridge.replication.world import EntityFlag, States

GROUPS = 3


class Scene:
    """Bodies that move at random, some of them at rest; the same for the same seed."""

    def __init__(self, count: int = 200, seed: int = 1) -> None:
        self.source = np.random.default_rng(seed)
        self.count = count
        self.position = self.source.uniform(-50, 50, (count, 3))
        self.velocity = np.zeros((count, 3))

    def step(self, moving: int = 20) -> Rows:
        self.velocity[:] = 0
        self.velocity[:moving] = self.source.normal(size=(moving, 3)) * 3
        self.position += self.velocity / 60
        flags = np.where((self.velocity == 0).all(axis=1), EntityFlag.AT_REST, 0).astype(np.uint8)
        rotations = np.tile((0.0, 0.0, 0.0, 1.0), (self.count, 1))
        rotations[:moving] = self.source.normal(size=(moving, 4))
        states = States(
            ticks=np.zeros(self.count, dtype=np.uint64),
            positions=self.position,
            rotations=rotations,
            velocities=self.velocity,
            angular_velocities=self.velocity,
            flags=flags,
        )
        rows = empty_rows(GROUPS * GROUP_SEATS)
        rows[: self.count] = rows_of(np.arange(self.count), 1, states)
        return rows


class Player:
    """A receiver at the end of a link, and what the sender knows of it."""

    def __init__(self, **options: object) -> None:
        self.view = View()
        self.receiver = SnapshotReceiver(**options)  # type: ignore[arg-type]
        self.shown = empty_rows(GROUPS * GROUP_SEATS)
        self.number = 0
        self.away: list[tuple[int, int]] = []

    def send(self, outgoing: list[Outgoing]) -> list[Outgoing]:
        for stream, one in enumerate(outgoing):
            self.number += 1
            self.view.sent(stream, self.number, one)
            self.away.append((stream, self.number))
        return outgoing

    def receive(self, outgoing: list[Outgoing]) -> None:
        for one in outgoing:
            received = self.receiver.receive_untrusted(one.payload)
            assert received.missing == ()
            self.shown[handles_of(received.rows)[0]] = received.rows

    def acknowledge(self) -> None:
        for stream, number in self.away:
            self.view.acknowledged(stream, number)
        self.away.clear()


def sender(**options: object) -> SnapshotSender:
    return SnapshotSender(**{"groups": GROUPS, "rate": 60} | options)  # type: ignore[arg-type]


@pytest.mark.parametrize("room", [MIN_ROOM_BYTES, 738, MAX_PAYLOAD_BYTES])
def test_a_player_sees_what_was_published_however_late_acknowledgements_come(room: int) -> None:
    scene, player, source = Scene(), Player(), np.random.default_rng(2)
    sending = sender(room=room)
    for tick in range(60):
        rows = scene.step()
        sending.publish(tick, rows)
        (outgoing,) = sending.payloads([player.view])
        assert max((len(one.payload) for one in outgoing), default=0) <= room
        player.receive(player.send(outgoing))
        assert np.array_equal(player.shown[:200], rows[:200])
        if source.random() < 0.3:
            player.acknowledge()


@settings(max_examples=10)
@given(st.integers(0, 1_000), st.floats(0.0, 0.6))
def test_loss_and_disorder_never_block_and_the_last_that_arrives_is_right(seed: int, loss: float) -> None:
    scene, player, source = Scene(40, seed), Player(), np.random.default_rng(seed)
    sending = sender(room=MIN_ROOM_BYTES)
    on_the_way: list[tuple[float, int, int, Outgoing]] = []
    rows = scene.step(0)
    for tick in range(2**32 - 15, 2**32 + 40):
        rows = scene.step(10) if tick < 2**32 + 20 else rows
        sending.publish(tick, rows)
        for stream, one in enumerate(sending.payloads([player.view])[0]):
            player.number += 1
            player.view.sent(stream, player.number, one)
            if source.random() >= loss or tick > 2**32 + 30:
                on_the_way.append((tick + source.uniform(0, 4), stream, player.number, one))
        on_the_way.sort(key=lambda entry: entry[0])
        while on_the_way and on_the_way[0][0] <= tick:
            _, stream, number, one = on_the_way.pop(0)
            player.receive([one])
            player.view.acknowledged(stream, number)
    assert np.array_equal(player.shown[:40], rows[:40])


def test_what_is_at_rest_costs_nothing_once_it_is_known_and_hardly_more_to_keep() -> None:
    scene, player, sending = Scene(), Player(), sender()
    rows = scene.step(0)
    sizes = []
    for tick in range(200):
        sending.publish(tick, rows)
        (outgoing,) = sending.payloads([player.view])
        sizes.append(sum(len(one.payload) for one in outgoing))
        player.receive(player.send(outgoing))
        player.acknowledge()
    assert sizes[0] > 200 * 8
    assert sizes[1:].count(0) >= 190
    assert max(sizes[1:]) <= 8 + GROUPS * 12


def test_what_moves_and_comes_back_before_it_was_acknowledged_is_shown_back() -> None:
    player, sending = Player(), sender()
    here, there = Scene(seed=1).step(0), Scene(seed=2).step(0)
    for tick, rows in enumerate((here, there, here)):
        sending.publish(tick, rows)
        player.receive(player.send(sending.payloads([player.view])[0]))
        if tick == 0:
            player.acknowledge()
    assert np.array_equal(player.shown[:200], here[:200])
    player.acknowledge()
    sending.publish(3, here)
    assert sending.payloads([player.view]) == [[]]


def test_peers_with_one_baseline_get_the_same_bytes_and_others_their_own() -> None:
    scene, sending = Scene(), sender()
    players = [Player() for _ in range(3)]
    for tick in range(10):
        rows = scene.step()
        sending.publish(tick, rows)
        made = sending.payloads([player.view for player in players])
        assert [one.payload for one in made[0]] == [one.payload for one in made[1]]
        for player, outgoing in zip(players, made, strict=True):
            player.receive(player.send(outgoing))
            assert np.array_equal(player.shown[:200], rows[:200])
        for player in players[: 2 if tick < 5 else 3]:
            player.acknowledge()


def test_a_section_of_several_parts_shows_each_part_and_is_a_baseline_once_whole() -> None:
    scene, player = Scene(120), Player()
    sending = sender(groups=GROUPS, room=MIN_ROOM_BYTES)
    sending.publish(0, scene.step(120))
    outgoing = player.send(sending.payloads([player.view])[0])
    assert len(outgoing) > 2
    assert max(told.parts for one in outgoing for told in one.told) > 2
    player.receive(outgoing[::2])
    for stream, number in player.away[::2]:
        player.view.acknowledged(stream, number)
    assert player.view.baseline(0) is None
    player.receive(outgoing[1::2])
    player.acknowledge()
    assert player.view.baseline(0) == 0
    rows = scene.step(120)
    sending.publish(1, rows)
    player.receive(player.send(sending.payloads([player.view])[0]))
    assert np.array_equal(player.shown[:120], rows[:120])


def test_a_player_that_lacks_a_baseline_says_so_and_is_told_everything() -> None:
    scene, player, sending = Scene(), Player(), sender()
    for tick in range(3):
        rows = scene.step()
        sending.publish(tick, rows)
        player.receive(player.send(sending.payloads([player.view])[0]))
        player.acknowledge()
    player.receiver = SnapshotReceiver()
    sending.publish(3, rows := scene.step())
    (outgoing,) = sending.payloads([player.view])
    missing = player.receiver.receive_untrusted(outgoing[0].payload).missing
    assert missing == (0,)
    player.send(outgoing)
    player.view.forget(range(GROUPS))
    player.acknowledge()
    assert player.view.baseline(0) is None
    sending.publish(4, rows := scene.step())
    player.receive(player.send(sending.payloads([player.view])[0]))
    assert np.array_equal(player.shown[:200], rows[:200])


def test_a_player_that_acknowledges_nothing_for_long_is_told_everything() -> None:
    scene, player, sending = Scene(), Player(), sender()
    sizes = []
    for tick in range(MAX_BASELINE_AGE + 3):
        sending.publish(tick, scene.step(5))
        (outgoing,) = sending.payloads([player.view])
        sizes.append(sum(len(one.payload) for one in outgoing))
        player.receive(player.send(outgoing))
        if tick == 0:
            player.acknowledge()
    assert sizes[MAX_BASELINE_AGE] < sizes[0] / 4 < sizes[MAX_BASELINE_AGE + 1]


def test_only_groups_of_interest_are_told_and_the_receiver_keeps_so_many() -> None:
    scene, player = Scene(300), Player(max_groups=1)
    sending = sender()
    sending.publish(0, scene.step())
    ((one, *_),) = sending.payloads([player.view], groups=[1])
    player.receive([one])
    assert {told.group for told in one.told} == {1}
    ((other, *_),) = sending.payloads([View()], groups=[0])
    with pytest.raises(DecodeError, match="more than 1 groups"):
        player.receiver.receive_untrusted(other.payload)


def test_a_view_and_a_receiver_stay_small() -> None:
    scene, player, sending = Scene(20), Player(), sender()
    for tick in range(400):
        sending.publish(tick, scene.step())
        player.receive(player.send(sending.payloads([player.view])[0]))
        if tick % 8 == 0:
            player.acknowledge()
    known = player.receiver._groups[0]
    assert len(known.whole) <= 20
    assert not known.partial
    assert sum(map(len, player.view._sent.values())) <= 16
    assert len(sending._snapshots) == MAX_BASELINE_AGE + 1


def test_a_sender_of_any_ticks_and_parts_does_not_make_a_receiver_grow() -> None:
    player, source = Player(), np.random.default_rng(1)
    scene = Scene(120)
    for number in range(150):
        sending = sender(room=MIN_ROOM_BYTES)
        sending.publish(int(source.integers(0, 2**32)), scene.step(120 if number % 2 else 5))
        for one in sending.payloads([View()])[0][: 2 if number % 2 else 20]:
            player.receiver.receive_untrusted(one.payload)
    for group in player.receiver._groups.values():
        assert len(group.whole) <= MAX_BASELINE_AGE + 1
        assert len(group.partial) <= 8


def test_snapshots_that_come_in_falling_order_do_not_pile_up() -> None:
    receiver, rows = SnapshotReceiver(), Scene(5).step(2)
    for tick in range(100, 0, -1):
        sending = sender()
        sending.publish(tick, rows)
        receiver.receive_untrusted(sending.payloads([View()])[0][0].payload)
    assert len(receiver._groups[0].whole) == MAX_BASELINE_AGE + 1


def test_a_peer_that_always_misses_one_part_does_not_make_its_view_grow() -> None:
    view = View()
    for tick in range(1_000):
        view.sent(0, tick, Outgoing(b"", (Told(group=0, tick=tick, age=0, part=0, parts=2),)))
        assert view.streams() == [0]
        view.acknowledged(0, tick)
        assert view.streams() == []
    assert view.baseline(0) is None
    assert len(view._parts) <= 8 * MAX_BASELINE_AGE


def test_parts_told_from_two_baselines_do_not_make_one_snapshot() -> None:
    """A tick is told twice, and between the two comes an acknowledgement: the second tells other seats."""
    scene, player = Scene(120), Player()
    sending = sender(room=MIN_ROOM_BYTES)
    sending.publish(0, scene.step(120))
    player.receive(player.send(sending.payloads([player.view])[0]))
    sending.publish(1, scene.step(120))
    whole = player.send(sending.payloads([player.view])[0])
    player.away, early = player.away[-len(whole) :], player.away[: -len(whole)]
    for stream, number in early:
        player.view.acknowledged(stream, number)
    assert player.view.baseline(0) == 0
    differences = player.send(sending.payloads([player.view])[0])
    assert max(one.told[0].parts for one in whole) > max(one.told[0].parts for one in differences) > 1
    player.receive(whole[:1] + differences[1:])
    for stream, number in player.away[:1] + player.away[len(whole) + 1 :]:
        player.view.acknowledged(stream, number)
    assert player.view.baseline(0) == 0
    assert list(player.receiver._groups[0].whole) == [0]
    sending.publish(2, rows := scene.step(120))
    player.receive(player.send(sending.payloads([player.view])[0]))
    assert np.array_equal(player.shown[:120], rows[:120])


@pytest.mark.parametrize("tick", [0, 2**32 - 1])
def test_a_tick_has_one_snapshot_and_ticks_do_not_go_back(tick: int) -> None:
    """Who acknowledged a tick would be told from rows that he never had."""
    scene, sending = Scene(), sender()
    sending.publish(tick, rows := scene.step())
    sending.publish(tick, rows.copy())
    with pytest.raises(InvalidStateError, match="other rows"):
        sending.publish(tick, scene.step())
    with pytest.raises(InvalidStateError, match="comes before"):
        sending.publish(tick - 1, rows)
    sending.publish(tick + 1, scene.step())
    with pytest.raises(InvalidStateError, match="comes before"):
        sending.publish(tick, rows)


def test_a_group_is_told_once_and_one_that_there_is_not_is_refused() -> None:
    scene, sending = Scene(300), sender()
    sending.publish(0, scene.step())
    (outgoing,) = sending.payloads([View()], groups=[1, 0, 1])
    assert list(dict.fromkeys(told.group for one in outgoing for told in one.told)) == [1, 0]
    assert len({told for one in outgoing for told in one.told}) == sum(len(one.told) for one in outgoing)
    for wrong in ([-1], [0, GROUPS], [70_000]):
        with pytest.raises(ConfigurationError, match="groups are 0 … 2"):
            sending.payloads([View()], groups=wrong)
    assert sending.payloads([View()], groups=[]) == [[]]


def test_in_signed_sessions_a_payload_of_other_bindings_is_refused() -> None:
    ours, theirs = Bindings(), Bindings()
    for handle in range(200):
        for side in (ours, theirs):
            side.bind(handle, f"e{handle}", 1, bytes(16))
    scene, player = Scene(), Player(bindings=theirs)
    sending = sender(bindings=ours)
    sending.publish(0, scene.step())
    player.receive(player.send(sending.payloads([player.view])[0]))
    player.acknowledge()
    theirs.bind(3, "e3", 1 + 2**16, bytes(16))
    sending.publish(1, scene.step())
    (outgoing,) = sending.payloads([player.view])
    assert max(len(one.payload) for one in outgoing) <= MAX_PAYLOAD_BYTES
    with pytest.raises(DecodeError, match="mean something else"):
        player.receive(outgoing)
    lacking = SnapshotReceiver(bindings=ours).receive_untrusted(outgoing[0].payload)
    assert lacking.missing == (0,)
    with pytest.raises(DecodeError, match="no snapshot"):
        SnapshotReceiver().receive_untrusted(outgoing[0].payload)


def test_rows_are_seen_as_states_and_memoryviews_are_read() -> None:
    scene, sending = Scene(5), sender()
    rows = scene.step(2)
    sending.publish(7, rows)
    ((one,),) = sending.payloads([View()])
    received = SnapshotReceiver().receive_untrusted(memoryview(one.payload))
    states = seen_states(received.rows, received.tick)
    assert (received.tick, len(states)) == (7, 5)
    assert np.abs(states.positions - scene.position).max() <= 0.001 + 1e-9
    assert dataclasses.is_dataclass(states)


@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_are_read_or_raise_decode_error(data: bytes, whole: bool) -> None:
    """R0-14."""
    receiver = SnapshotReceiver(max_groups=4)
    try:
        received = receiver.receive_untrusted(b"\x02\x03\x3c" + data if whole else data)
    except DecodeError:
        return
    assert received.rows.shape[1] == 15


HEADER = b"\x02\x03\x3c"
TICK = b"\0\0\0\x07"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        HEADER + b"\x01" + TICK + b"\0\0\0",
        HEADER + b"\x01" + TICK + b"\0\0\0\0\0\0",
        HEADER + b"\x01" + TICK + b"\0\0\0\x10\0\x01\0",
        HEADER + b"\x01" + TICK + b"\0\0\x41\0\0\x01\0",
        HEADER + b"\0" + TICK + b"\0",
        b"\x02\x03\0\0" + TICK,
        HEADER + b"\x02" + TICK + b"\0\0\0\0\0\x03\0\0\0" * 2,
        HEADER + bytes(1_150),
    ],
)
def test_headers_that_no_sender_makes_are_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        SnapshotReceiver().receive_untrusted(payload)


@pytest.mark.parametrize(
    "options", [{"groups": 0}, {"groups": 65_537}, {"rate": 0}, {"rate": 256}, {"room": MIN_ROOM_BYTES - 1}]
)
def test_a_sender_that_cannot_work_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError):
        sender(**options)


def test_rows_of_another_shape_and_payloads_of_nothing_are_refused() -> None:
    sender = SnapshotSender(groups=2, rate=60)
    with pytest.raises(InvalidStateError, match="publish"):
        sender.payloads([View()])
    with pytest.raises(ConfigurationError, match=r"empty_rows\(256\)"):
        sender.publish(1, empty_rows(GROUP_SEATS))
