import numpy as np
import pytest

from bridge.authority import Acceptance, Fence
from bridge.replication import (
    Bindings,
    Payloads,
    States,
    World,
    WorldState,
    compact_records,
    encode_records,
    full_records,
)
from bridge.sim.dataplane.messages import FirstAccepted
from bridge.sim.dataplane.receiving import MAX_ECHO_AGE_SECONDS, Receiving

A, SESSION = "thumbprint of a", bytes(16)


class Receiver:
    """Server b, which follows entities of server a: handle n is ``e<n>`` at epoch n + 1."""

    def __init__(self, count: int, *, signed: bool = False) -> None:
        self.world = World(bytearray(World.size(count)), count)
        self.fence = Fence()
        self.first: list[FirstAccepted] = []
        self.over: list[Acceptance] = []
        self.receiving = Receiving(
            server="b",
            session=bytes(16),
            world=self.world,
            fence=self.fence,
            on_first=self.first.append,
            on_over=self.over.append,
        )
        self.receiving.add_sender("a", thumbprint=A, session=SESSION, signed=signed)
        for number in range(count):
            self.fence.raise_to(f"e{number}", number + 1, A)
            self.receiving.follow(f"e{number}", number)
            self.receiving.bind("a", number, f"e{number}", number + 1)

    def receive(self, payloads: Payloads, *, echo_age: float | None = 0.0, now_ns: int = 0) -> None:
        self.receiving.receive("a", payloads, echo_age=echo_age, now_ns=now_ns)


def states(count: int, tick: int, x: float = 0.0) -> States:
    one = States.of(WorldState(tick=tick, position=np.array([x, 0, 0]), velocity=np.zeros(3)))
    return one.select(np.zeros(count, dtype=np.intp))


def batch(count: int, tick: int, *, x: float = 0.0, bindings: Bindings | None = None) -> list[Payloads]:
    numbers = np.arange(count)
    records = full_records(numbers, numbers + 1, states(count, tick, x))
    return encode_records(records, tick=tick, digests=None if bindings is None else bindings.digests)


def test_a_thousand_records_are_judged_and_kept_in_a_few_calls() -> None:
    b = Receiver(1_000)
    for payloads in batch(1_000, 5, x=2.0):
        b.receive(payloads, now_ns=7)
    assert b.receiving.verdicts == {"accepted": 1_000}
    assert len(b.first) == 1_000
    kept = b.world.gather(np.arange(1_000))
    assert set(kept.ticks.tolist()) == {5}
    assert set(kept.positions[:, 0].tolist()) == {2.0}
    assert {(a.first_ns, a.last_ns) for a in b.receiving.acceptances()} == {(7, 7)}


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_of_payloads_that_come_together_the_newest_state_is_kept(order: list[int]) -> None:
    b = Receiver(3)
    start = 2**32 - 1
    rows = [batch(3, (start + n) % 2**32, x=n)[0] for n in range(3)]
    b.receive(np.concatenate([rows[n] for n in order]))
    assert [b.world.read(slot).position[0] for slot in range(3)] == [2.0, 2.0, 2.0]
    b.receive(rows[1])
    assert b.world.read(0).tick == 1


@pytest.mark.parametrize("echo_age", [None, MAX_ECHO_AGE_SECONDS + 0.001])
def test_state_of_a_sender_that_may_have_been_frozen_is_stale(echo_age: float | None) -> None:
    """R0-40: what a server sealed before it was frozen is not shown when it arrives late."""
    b = Receiver(2)
    b.receive(batch(2, 5)[0], echo_age=echo_age)
    assert b.receiving.verdicts == {"stale": 2}
    assert b.first == []
    assert b.world.read(0).tick == 0
    b.receive(batch(2, 5)[0], echo_age=MAX_ECHO_AGE_SECONDS)
    assert b.receiving.verdicts == {"stale": 2, "accepted": 2}


def test_the_homeservers_word_changes_what_bound_handles_are_worth() -> None:
    b = Receiver(3)
    b.fence.raise_to("e1", 9, "another's")
    b.receiving.fence_raised("e1", "c", 9, now_ns=0)
    b.fence.raise_to("e2", 3, "another's")
    b.receiving.fence_raised("e2", "c", 3, now_ns=0)
    b.receive(batch(3, 5)[0])
    assert b.receiving.verdicts == {"accepted": 1, "late": 1, "foreign": 1}


def test_a_handle_bound_anew_stands_for_the_new_entity_alone() -> None:
    b = Receiver(2)
    b.receiving.bind("a", 0, "e1", 2)
    b.receive(batch(2, 5)[0])
    # The record still names the low bits of the epoch that the handle had.
    assert b.receiving.verdicts == {"unknown": 1, "accepted": 1}
    b.receiving.fence_raised("e0", "a", 1, now_ns=0)


def test_what_is_no_longer_followed_is_accepted_and_not_written() -> None:
    b = Receiver(2)
    b.receiving.unfollow("e0")
    b.receive(batch(2, 5)[0])
    assert [b.world.read(slot).tick for slot in range(2)] == [0, 5]
    b.receiving.follow("e0", 0)
    b.receive(batch(2, 6)[0])
    b.receiving.unfollow("e1")
    b.receive(batch(2, 7)[0])
    assert [b.world.read(slot).tick for slot in range(2)] == [7, 6]
    assert b.receiving.verdicts == {"accepted": 6}


def test_a_server_without_a_session_or_after_it_is_unknown() -> None:
    b = Receiver(2)
    b.receiving.forget_handles("a")
    b.receiving.bind("a", 0, "e0", 1)
    b.receive(batch(2, 5)[0])
    assert b.receiving.verdicts == {"unknown": 2}
    b.receiving.add_sender("a", thumbprint=A, session=SESSION, signed=False)
    b.receive(batch(2, 5)[0])
    assert b.receiving.verdicts == {"unknown": 4}


def test_ticks_go_on_over_a_new_session() -> None:
    b = Receiver(1)
    b.receive(batch(1, 5, x=5)[0])
    b.receiving.add_sender("a", thumbprint=A, session=SESSION, signed=False)
    b.receiving.bind("a", 0, "e0", 1)
    b.receive(batch(1, 4, x=4)[0])
    assert b.world.read(0).position[0] == 5
    assert len(b.first) == 1


def test_compact_records_are_kept_too() -> None:
    b = Receiver(4)
    numbers = np.arange(4)
    for payloads in encode_records(compact_records(numbers, numbers + 1, states(4, 3, 1.5)), tick=3):
        b.receive(payloads)
    assert b.world.read(3).position[0] == 1.5


def test_a_handle_beyond_every_bound_one_is_unknown() -> None:
    b = Receiver(1)
    records = full_records([65_535, 64], [1, 1], states(2, 5))
    b.receive(encode_records(records, tick=5)[0])
    assert b.receiving.verdicts == {"unknown": 2}


def test_a_signed_payload_counts_only_with_the_digest_of_the_same_bindings() -> None:
    b = Receiver(2, signed=True)
    ours = Bindings()
    for number in range(2):
        ours.bind(number, f"e{number}", number + 1, SESSION)
    b.receive(batch(2, 5)[0])
    assert b.receiving.verdicts == {"unknown": 2}
    b.receive(batch(2, 5, bindings=ours)[0])
    assert b.receiving.verdicts == {"unknown": 2, "accepted": 2}
    # The same low 16 bits, another epoch.
    ours.bind(1, "e1", 2 + 2**16, SESSION)
    b.receive(batch(2, 6, bindings=ours)[0])
    assert b.receiving.verdicts == {"unknown": 4, "accepted": 2}
    assert b.world.read(0).tick == 5


def test_a_session_that_the_homeserver_tells_later_counts_for_handles_bound_before() -> None:
    b = Receiver(1, signed=True)
    ours = Bindings()
    ours.bind(0, "e0", 1, b"another session!")
    b.receive(batch(1, 5, bindings=ours)[0])
    b.receiving.session_told("a", b"another session!")
    b.receiving.session_told("nobody", b"another session!")
    b.receive(batch(1, 5, bindings=ours)[0])
    assert b.receiving.verdicts == {"unknown": 1, "accepted": 1}


def test_junk_is_counted() -> None:
    b = Receiver(1)
    b.receive(np.zeros((3, 44), dtype=np.uint8))
    assert b.receiving.malformed == 3


def test_however_many_grants_were_early_each_is_accepted_with_the_homeservers_word() -> None:
    """The arrays behind acceptances grow while one of them is being made."""
    b = Receiver(300)
    for number in range(300):
        b.receiving.bind("a", number, f"e{number}", number + 1_000)
    records = full_records(np.arange(300), np.arange(300) + 1_000, states(300, 5))
    for payloads in encode_records(records, tick=5, digests=None):
        b.receive(payloads, now_ns=7)
    assert b.receiving.verdicts == {"early": 300}
    for number in range(300):
        b.fence.raise_to(f"e{number}", number + 1_000, A)
        b.receiving.fence_raised(f"e{number}", "a", number + 1_000, now_ns=9)
    assert [(a.first_ns, a.last_ns) for a in b.receiving.acceptances()] == [(9, 9)] * 300


def test_what_was_accepted_under_an_older_epoch_is_told_once_there_is_a_newer_one_and_takes_no_room() -> None:
    b = Receiver(1)
    b.receive(batch(1, 5)[0], now_ns=3)
    before = b.receiving.kept()
    for epoch in range(2, 200):
        b.receiving.bind("a", epoch, "e0", epoch)
        b.fence.raise_to("e0", epoch, A)
        b.receiving.fence_raised("e0", "a", epoch, now_ns=epoch)
        records = full_records(np.array([epoch]), np.array([epoch]), states(1, 5 + epoch, x=epoch))
        b.receive(encode_records(records, tick=5 + epoch)[0], now_ns=epoch)
    assert b.receiving.verdicts == {"accepted": 199}
    assert [(over.epoch, over.first_ns) for over in b.over[:2]] == [(1, 3), (2, 2)]
    assert [over.epoch for over in b.over] == list(range(1, 199))
    assert [(now.epoch, now.last_ns) for now in b.receiving.acceptances()] == [(199, 199)]
    assert b.receiving.kept() == before
    assert b.world.read(0).position[0] == 199.0
    assert b.receiving.streamed(["e0"], since_ns=199) == ("e0",)
    # Late, or of a handle that stands for nothing now: it changes nothing of the newer one.
    b.receive(batch(1, 9_000)[0], now_ns=200)
    assert b.world.read(0).position[0] == 199.0


def test_nothing_is_kept_or_accepted_of_an_entity_that_is_no_more() -> None:
    b = Receiver(3)
    b.receive(batch(3, 5)[0])
    b.receiving.bind("a", 9, "e1", 7)  # The next one of its name, told of before its end.
    b.receiving.forget("e1")
    b.fence.forget("e1")
    assert [over.entity for over in b.over] == ["e1"]
    assert b.receiving.streamed(["e0", "e1", "e2"], since_ns=0) == ("e0", "e2")
    b.receive(batch(3, 6)[0])
    assert b.receiving.verdicts == {"accepted": 5, "unknown": 1}
    assert b.world.read(1).tick == 5
    # One of its name is another one, and what is free is used again.
    b.fence.raise_to("e1", 7, A)
    b.receiving.fence_raised("e1", "a", 7, now_ns=0)
    b.receiving.follow("e1", 1)
    b.receive(encode_records(full_records(np.array([9]), np.array([7]), states(1, 7)), tick=7)[0])
    assert b.world.read(1).tick == 7
    assert len(b.first) == 4
    assert sorted(a.entity for a in b.receiving.acceptances()) == ["e0", "e1", "e2"]


def test_an_early_record_of_a_handle_that_stands_for_nothing_any_more_is_kept_nowhere() -> None:
    b = Receiver(1)
    before = b.receiving.kept()
    b.fence.raise_to("made up", 1, "another's")
    b.receiving.bind("a", 7, "made up", 40)
    records = full_records(np.array([7]), np.array([40]), states(1, 5))
    b.receive(encode_records(records, tick=5)[0])
    assert b.receiving.verdicts == {"early": 1}
    b.receiving.bind("a", 7, "e0", 2)
    assert b.receiving.kept() == before
