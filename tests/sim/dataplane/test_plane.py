from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from bridge.authority import (
    Acceptance,
    Accepted,
    Act,
    Bind,
    Entry,
    Granted,
    HandOver,
    check,
    decode_message_untrusted,
    encode_message,
)
from bridge.errors import BoxError, BridgeError, InvalidStateError
from bridge.jose import Jwk
from bridge.replication import EntityFlag, Payloads, World, decode_records_untrusted, decode_state_untrusted
from bridge.sim.dataplane.messages import Credited, Event, FirstAccepted, PeerMessageReceived, WentSilent
from bridge.sim.dataplane.noting import MAX_ENTRIES
from bridge.sim.dataplane.plane import DataPlane

MS = 1_000_000
UNIX_MS = 1_800_000_000_000


@dataclass
class Wire:
    """A session in memory: what is sent arrives when the test says so."""

    sender: str
    receiver: "Server"
    reliable: list[bytes] = field(default_factory=list)
    states: dict[int, bytes] = field(default_factory=dict)
    echo_age: float | None = 0.0
    is_signed: bool = False
    max_state_bytes: int = 1_152
    reliable_end: int = 0
    reliable_taken: int = 0

    def send_state(self, payload: Payloads, stream: int = 0) -> None:
        for row, one in enumerate(payload):
            self.states[stream + row] = one.tobytes()

    def drop_states(self) -> None:
        self.states.clear()

    def send_reliable(self, message: bytes) -> None:
        self.reliable.append(message)
        self.reliable_end += len(message)

    def deliver(self, now_ns: int) -> None:
        for message in self.reliable:
            self.receiver.plane.receive_message(self.sender, message, now_ns=now_ns)
        for payload in self.states.values():
            self.receiver.receive(self.sender, payload, echo_age=self.echo_age, now_ns=now_ns)
        self.reliable.clear()
        self.states.clear()


class Server:
    def __init__(self, name: str) -> None:
        self.name = name
        self.session = name.encode() * 16
        self.key = Jwk.generate("P-256")
        self.world = World(bytearray(World.size(8)), 8)
        self.events: list[Event] = []
        self.may_seal = True
        self.plane = DataPlane(
            server=name,
            run=name.encode() * 16,
            key=self.key,
            world=self.world,
            may_seal=lambda: self.may_seal,
            emit=self.events.append,
        )
        self.plane.begin_session(self.session)
        self.wire: Wire

    def hold(self, entity: str, epoch: int, slot: int, *, now_ns: int) -> None:
        self.plane.hold(entity, epoch, slot, now_ns=now_ns)
        self.plane.send_begun(now_ns=now_ns)

    def meet(self, other: "Server") -> None:
        self.plane.add_peer(server=other.name, key=other.key.public(), session=other.session)
        self.wire = Wire(self.name, other)
        self.plane.link_up(other.name, self.wire)

    def receive(self, sender: str, payload: bytes, *, now_ns: int = 0, echo_age: float | None = 0.0) -> None:
        row = np.frombuffer(payload, dtype=np.uint8)[None, :]
        self.plane.receive_states(sender, row, echo_age=echo_age, now_ns=now_ns)

    def stop(self, entity: str, to: str, *, now: int, linger: int = 0) -> str:
        box = self.plane.stop(entity, to, linger_ns=linger * MS, now_ns=now * MS, now_ms=UNIX_MS)
        assert box is not None
        return box

    def open(self, box: str, giver: str, *, entity: str = "ball", previous: int = 1) -> bytes:
        return self.plane.open_release(entity=entity, giver=giver, previous=previous, box=box, now_ms=UNIX_MS)


@pytest.fixture
def pair() -> tuple[Server, Server]:
    a, b = Server("a"), Server("b")
    a.meet(b)
    b.meet(a)
    return a, b


def entries(*servers: Server) -> list[Entry]:
    return [entry for server in servers for entry in server.plane.entries()]


def of_type(kind: Any, items: list[Any]) -> list[Any]:
    return [item for item in items if isinstance(item, kind)]


def test_a_held_entity_is_bound_and_its_first_state_goes_out_at_once(pair: tuple[Server, Server]) -> None:
    """R0-34: one hop, one way."""
    a, b = pair
    a.world.write(3, tick=9, position=[1, 2, 3])
    b.plane.raise_fence("ball", 1, "a", now_ns=0)
    a.hold("ball", 1, 3, now_ns=MS)
    a.wire.deliver(2 * MS)
    assert of_type(FirstAccepted, b.events) == [
        FirstAccepted(server="a", entity="ball", epoch=1, at_ns=2 * MS)
    ]
    assert b.plane.verdicts == {"accepted": 1}


def test_first_states_of_many_go_together_and_put_none_of_the_last_tick_aside(
    pair: tuple[Server, Server],
) -> None:
    """R0-52: those of a world that is made; what a rate held back of the tick goes on waiting."""
    a, b = pair
    a.hold("ball", 1, 0, now_ns=0)
    a.wire.states.clear()
    a.plane.tick(now_ns=MS)
    waiting = dict(a.wire.states)
    for number in range(40):
        b.plane.raise_fence(f"e{number}", 2, "a", now_ns=0)
        a.plane.hold(f"e{number}", 2, number % 8, now_ns=2 * MS)
    a.plane.send_begun(now_ns=2 * MS)
    assert waiting.items() <= a.wire.states.items()
    assert len(a.wire.states) == 3
    a.wire.deliver(3 * MS)
    assert {event.entity for event in of_type(FirstAccepted, b.events)} == {f"e{n}" for n in range(40)}


def test_state_before_the_homeservers_word_is_early_and_dropped(pair: tuple[Server, Server]) -> None:
    a, b = pair
    b.plane.raise_fence("ball", 1, "b", now_ns=0)
    a.hold("ball", 2, 0, now_ns=MS)
    a.wire.deliver(2 * MS)
    assert b.plane.verdicts == {"early": 1}
    assert of_type(FirstAccepted, b.events) == []


def test_an_early_record_is_accepted_when_the_homeservers_word_names_its_sender(
    pair: tuple[Server, Server],
) -> None:
    a, b = pair
    b.plane.raise_fence("ball", 1, "b", now_ns=0)
    a.hold("ball", 2, 0, now_ns=MS)
    a.wire.deliver(2 * MS)
    b.plane.raise_fence("ball", 2, "a", now_ns=3 * MS)
    assert of_type(FirstAccepted, b.events) == [
        FirstAccepted(server="a", entity="ball", epoch=2, at_ns=3 * MS)
    ]


def test_an_early_record_is_dropped_when_the_homeservers_word_names_another(
    pair: tuple[Server, Server],
) -> None:
    a, b = pair
    b.plane.raise_fence("ball", 1, "b", now_ns=0)
    a.hold("ball", 2, 0, now_ns=MS)
    a.wire.deliver(2 * MS)
    b.plane.raise_fence("ball", 2, "b", now_ns=3 * MS)
    assert of_type(FirstAccepted, b.events) == []
    assert of_type(Acceptance, entries(b)) == []


def test_a_hand_over_moves_the_state_and_fences_the_late_ex_owner(pair: tuple[Server, Server]) -> None:
    """R0-27, R0-33, R0-41: release, state, refusal of what still comes, and the records that prove it."""
    a, b = pair
    for server in pair:
        server.plane.raise_fence("ball", 1, "a", now_ns=0)
    a.world.write(0, tick=7, position=[1.5, 0, 0], velocity=[2, 0, 0])
    a.hold("ball", 1, 0, now_ns=1 * MS)
    a.wire.deliver(2 * MS)
    box = a.stop("ball", "b", now=3, linger=200)
    state = decode_state_untrusted(b.open(box, "a"))
    assert (state.tick, state.position[0], state.velocity[0]) == (7, 1.5, 2.0)
    for server in pair:
        server.plane.raise_fence("ball", 2, "b", now_ns=0)
    b.world.write(1, tick=state.tick, position=state.position, velocity=state.velocity)
    b.hold("ball", 2, 1, now_ns=5 * MS)
    a.plane.tick(now_ns=6 * MS)
    a.wire.deliver(7 * MS)
    b.wire.deliver(8 * MS)
    assert b.plane.verdicts == {"accepted": 1, "late": 1}
    assert a.plane.verdicts == {"accepted": 1}
    verdict = check(entries(a, b))
    assert verdict.violations == []
    assert verdict.acts == 2
    assert len(of_type(HandOver, entries(a, b))) == 2
    assert len(of_type(Acceptance, entries(a, b))) == 2


def test_what_is_followed_is_kept_in_its_slot_until_it_is_taken_over(pair: tuple[Server, Server]) -> None:
    a, b = pair
    b.plane.raise_fence("ball", 1, "a", now_ns=0)
    b.plane.follow("ball", 5)
    a.world.write(0, tick=7, position=[1.5, 0, 0], velocity=[2, 0, 0])
    a.hold("ball", 1, 0, now_ns=0)
    a.wire.deliver(MS)
    followed = b.world.read(5)
    assert (followed.tick, followed.position[0], followed.velocity[0]) == (7, 1.5, 2.0)
    b.open(a.stop("ball", "b", now=2, linger=200), "a")
    a.world.write(0, tick=9, position=[9, 9, 9])
    a.plane.tick(now_ns=3 * MS)
    a.wire.deliver(4 * MS)
    assert b.plane.verdicts == {"accepted": 2}
    assert b.world.read(5).tick == 7


def test_an_older_state_does_not_replace_a_newer_one_and_ticks_wrap(pair: tuple[Server, Server]) -> None:
    a, b = pair
    b.plane.raise_fence("ball", 1, "a", now_ns=0)
    b.plane.follow("ball", 5)
    a.hold("ball", 1, 0, now_ns=0)
    a.wire.deliver(0)
    for tick in (2**30, 2**31, 3 * 2**30, 2**32 - 1):
        a.world.write(0, tick=tick, position=[0, 0, 0])
        a.plane.tick(now_ns=MS)
        a.wire.deliver(MS)
        assert b.world.read(5).tick == tick
    for tick, kept in ((2**32 - 3, 2**32 - 1), (4, 4)):
        a.world.write(0, tick=tick, position=[0, 0, 0])
        a.plane.tick(now_ns=MS)
        a.wire.deliver(MS)
        assert b.world.read(5).tick == kept


def test_what_is_followed_no_more_stays_as_it_was(pair: tuple[Server, Server]) -> None:
    a, b = pair
    b.plane.raise_fence("ball", 1, "a", now_ns=0)
    b.plane.follow("ball", 5)
    a.world.write(0, tick=7, position=[1.5, 0, 0])
    a.hold("ball", 1, 0, now_ns=0)
    a.wire.deliver(0)
    b.plane.unfollow("ball")
    a.world.write(0, tick=9, position=[2.5, 0, 0])
    a.plane.tick(now_ns=MS)
    a.wire.deliver(MS)
    assert b.plane.verdicts == {"accepted": 2}
    assert b.world.read(5).tick == 7


def test_what_is_held_here_is_not_followed(pair: tuple[Server, Server]) -> None:
    a, _ = pair
    a.world.write(0, tick=3, position=[1, 1, 1])
    a.hold("ball", 1, 0, now_ns=0)
    a.plane.follow("ball", 0)
    a.plane.raise_fence("ball", 2, "b", now_ns=0)
    assert a.world.read(0).tick == 3


def test_who_stops_withdraws_what_was_not_sealed_yet(pair: tuple[Server, Server]) -> None:
    """A slow path would seal it after the release, with an echo that is young."""
    a, _ = pair
    a.hold("ball", 1, 0, now_ns=0)
    a.plane.tick(now_ns=MS)
    assert a.wire.states
    a.stop("ball", "b", now=2)
    assert a.wire.states == {}


def test_who_cannot_seal_a_release_acts_on(pair: tuple[Server, Server]) -> None:
    a, _ = pair
    a.plane.add_peer(server="c", key=Jwk.generate("P-384").public(), session=b"c" * 16)
    a.hold("ball", 1, 0, now_ns=0)
    with pytest.raises(BoxError, match="P-256"):
        a.stop("ball", "c", now=1)
    a.plane.tick(now_ns=2 * MS)
    (act,) = of_type(Act, entries(a))
    assert act.last_ns == 2 * MS
    assert of_type(HandOver, entries(a)) == []
    assert a.stop("ball", "b", now=3)


def test_a_release_signed_again_carries_the_state_of_the_first(pair: tuple[Server, Server]) -> None:
    a, b = pair
    a.world.write(0, tick=3, position=[1, 1, 1])
    a.hold("ball", 1, 0, now_ns=0)
    first = b.open(a.stop("ball", "b", now=1), "a")
    a.world.write(0, tick=4, position=[2, 2, 2])
    assert b.open(a.stop("ball", "b", now=2), "a") == first


def test_what_is_stopped_for_nobody_is_released_later_with_its_last_state(
    pair: tuple[Server, Server],
) -> None:
    a, b = pair
    a.world.write(0, tick=3, position=[1, 1, 1])
    a.hold("ball", 1, 0, now_ns=0)
    assert a.plane.stop("ball", None, linger_ns=0, now_ns=MS, now_ms=UNIX_MS) is None
    a.wire.states.clear()
    a.world.write(0, tick=4, position=[2, 2, 2])
    a.plane.tick(now_ns=2 * MS)
    assert a.wire.states == {}
    assert decode_state_untrusted(b.open(a.stop("ball", "b", now=3), "a")).position.tolist() == [1, 1, 1]


def test_lingering_ends_by_itself(pair: tuple[Server, Server]) -> None:
    a, _ = pair
    a.hold("ball", 1, 0, now_ns=0)
    a.stop("ball", "b", now=1, linger=200)
    a.wire.states.clear()
    a.plane.tick(now_ns=200 * MS)
    assert len(a.wire.states) == 1
    a.wire.states.clear()
    a.plane.tick(now_ns=201 * MS)
    assert a.wire.states == {}
    (act,) = of_type(Act, a.plane.entries())
    assert act.last_ns == 0


def test_a_release_opens_for_its_receiver_its_entity_and_its_giver_only(pair: tuple[Server, Server]) -> None:
    """R0-20, R0-21."""
    a, b = pair
    c = Server("c")
    c.meet(a)
    a.hold("ball", 1, 0, now_ns=0)
    box = a.stop("ball", "b", now=1)
    with pytest.raises(BridgeError):
        c.open(box, "a")
    with pytest.raises(BoxError):
        b.open(box, "a", previous=2)
    with pytest.raises(BoxError):
        b.open(box, "a", entity="cup")
    b.plane.add_peer(server="thief", key=Jwk.generate("P-256").public(), session=None)
    with pytest.raises(BoxError, match="another sender"):
        b.open(box, "thief")
    assert b.open(box, "a")


def test_what_is_stopped_can_be_released_again_to_who_pulled_it(pair: tuple[Server, Server]) -> None:
    a, _ = pair
    c = Server("c")
    c.meet(a)
    a.plane.add_peer(server="c", key=c.key.public(), session=c.session)
    a.hold("ball", 1, 0, now_ns=0)
    a.stop("ball", "b", now=1)
    assert c.open(a.stop("ball", "c", now=2), "a")
    assert len(of_type(Act, a.plane.entries())) == 1


def test_what_is_not_held_cannot_be_stopped(pair: tuple[Server, Server]) -> None:
    a, _ = pair
    with pytest.raises(InvalidStateError, match="not held"):
        a.stop("ball", "b", now=1)
    with pytest.raises(InvalidStateError, match="has not told the key"):
        a.stop("ball", "stranger", now=1)


def test_a_message_reaches_the_control_plane_decoded_and_encoded_anew(pair: tuple[Server, Server]) -> None:
    a, b = pair
    message = encode_message(Accepted(trace=bytes(16), hop=2, entity="ball", epoch=4))
    a.plane.send_message("b", message)
    a.wire.deliver(MS)
    assert b.events == [PeerMessageReceived(server="a", message=message, at_ns=MS)]
    assert (a.plane.sent(), b.plane.received()) == ({"b": 1}, {"a": 1})


def test_what_a_session_did_not_deliver_goes_with_the_next_one(pair: tuple[Server, Server]) -> None:
    a, _ = pair
    lost = encode_message(Accepted(trace=bytes(16), hop=2, entity="ball", epoch=4))
    later = encode_message(Accepted(trace=bytes(16), hop=2, entity="ball", epoch=5))
    bind = encode_message(Bind(handle=0, entity="ball", epoch=4))
    a.plane.send_message("b", lost)
    a.plane.link_down("b", [bind, lost])
    a.plane.send_message("b", later)
    assert a.plane.waiting() == 2
    a.hold("cup", 9, 0, now_ns=0)
    wire = Wire("a", a)
    a.plane.link_up("b", wire)
    assert a.plane.waiting() == 0
    assert [decode_message_untrusted(m) for m in wire.reliable] == [
        Bind(handle=0, entity="cup", epoch=9),
        decode_message_untrusted(lost),
        decode_message_untrusted(later),
    ]


def test_junk_of_an_authenticated_peer_is_counted_and_dropped(pair: tuple[Server, Server]) -> None:
    """R0-14."""
    _, b = pair
    b.receive("a", b"junk")
    b.plane.receive_message("a", b"junk", now_ns=0)
    assert b.plane.malformed == 2
    assert b.events == []


def test_a_record_with_an_unbound_handle_is_unknown(pair: tuple[Server, Server]) -> None:
    a, b = pair
    a.hold("ball", 1, 0, now_ns=0)
    (payload,) = a.wire.states.values()
    assert decode_records_untrusted(payload).records.shape == (1, 1)
    b.receive("a", payload)
    assert b.plane.verdicts == {"unknown": 1}


def test_more_entities_than_one_datagram_holds_go_in_several_streams(pair: tuple[Server, Server]) -> None:
    a, _ = pair
    for number in range(50):
        a.hold(f"e{number}", number + 1, number % 8, now_ns=0)
    a.wire.states.clear()
    a.plane.tick(now_ns=MS)
    assert [decode_records_untrusted(p).records.size for p in a.wire.states.values()] == [31, 19]


def test_state_that_echoes_nothing_recent_is_counted_and_dropped(pair: tuple[Server, Server]) -> None:
    a, b = pair
    b.plane.raise_fence("ball", 1, "a", now_ns=0)
    a.wire.echo_age = 0.501
    a.hold("ball", 1, 0, now_ns=0)
    a.wire.deliver(MS)
    assert b.plane.verdicts == {"stale": 1}
    assert of_type(Acceptance, entries(b)) == []


def test_what_lingers_is_marked_as_a_ghost(pair: tuple[Server, Server]) -> None:
    a, _ = pair
    a.hold("ball", 1, 0, now_ns=0)
    a.hold("cup", 2, 1, now_ns=0)
    a.stop("ball", "b", now=1, linger=200)
    a.plane.tick(now_ns=2 * MS)
    sent = decode_records_untrusted(a.wire.states[0])
    assert sorted(zip(sent.records["handle"][0].tolist(), sent.states().flags.tolist(), strict=True)) == [
        (0, EntityFlag.GHOST),
        (1, 0),
    ]


def test_what_has_stood_still_since_another_clock_goes_with_its_own_tick(pair: tuple[Server, Server]) -> None:
    a, b = pair
    for number, tick in enumerate((5, 70_000)):
        b.plane.raise_fence(f"e{number}", 1, "a", now_ns=0)
        b.plane.follow(f"e{number}", number)
        a.world.write(number, tick=tick, position=[0, 0, 0])
        a.hold(f"e{number}", 1, number, now_ns=0)
    a.plane.tick(now_ns=MS)
    a.wire.deliver(MS)
    assert [b.world.read(slot).tick for slot in range(2)] == [5, 70_000]


def test_a_signed_session_has_a_digest_of_the_bindings_in_each_payload() -> None:
    a, b = Server("a"), Server("b")
    for one, other in ((a, b), (b, a)):
        one.plane.add_peer(server=other.name, key=other.key.public(), session=other.session)
        one.wire = Wire(one.name, other, is_signed=True, max_state_bytes=700)
        one.plane.link_up(other.name, one.wire)
    for number in range(20):
        b.plane.raise_fence(f"e{number}", number + 1, "a", now_ns=0)
        a.plane.hold(f"e{number}", number + 1, number % 8, now_ns=0)
    a.plane.tick(now_ns=MS)
    assert [decode_records_untrusted(p).records.size for p in a.wire.states.values()] == [18, 2]
    assert max(map(len, a.wire.states.values())) <= 700
    a.wire.deliver(MS)
    assert b.plane.verdicts == {"accepted": 20}
    # A bind that came to mean something else between sender and receiver.
    b.plane.receive_message("a", encode_message(Bind(handle=0, entity="e0", epoch=1 + 2**16)), now_ns=0)
    a.plane.tick(now_ns=2 * MS)
    a.wire.deliver(2 * MS)
    assert b.plane.verdicts == {"accepted": 22, "unknown": 18}


def test_a_server_known_no_more_is_no_giver_and_no_taker(pair: tuple[Server, Server]) -> None:
    a, b = pair
    a.hold("ball", 1, 3, now_ns=MS)
    box = a.stop("ball", "b", now=2)
    b.plane.remove_peer("a")
    b.plane.remove_peer("a")
    with pytest.raises(InvalidStateError):
        b.open(box, "a")
    with pytest.raises(InvalidStateError):
        b.plane.send_message("a", b"x")


def test_credit_is_told_once_when_the_peer_has_taken_the_message(
    pair: tuple[Server, Server],
) -> None:
    """R0-31: the credit is the acknowledgement."""
    a, _ = pair
    a.plane.send_message("b", b"plain")
    a.plane.send_message("b", b"watched", credited=True)
    a.wire.reliable_taken = a.wire.reliable_end - 1
    a.plane.tick(now_ns=MS)
    assert of_type(Credited, a.events) == []
    a.wire.reliable_taken = a.wire.reliable_end
    for now in (2, 3):
        a.plane.tick(now_ns=now * MS)
    assert of_type(Credited, a.events) == [Credited(server="b", message=b"watched", at_ns=2 * MS)]


def test_credit_is_told_whatever_becomes_of_the_session(pair: tuple[Server, Server]) -> None:
    a, b = pair
    arrived, lost = (
        encode_message(Accepted(trace=bytes(16), hop=0, entity="ball", epoch=epoch)) for epoch in (1, 2)
    )
    for message in (arrived, lost):
        a.plane.send_message("b", message, credited=True)
    a.plane.link_down("b", [lost])
    a.plane.tick(now_ns=MS)
    assert [event.message for event in of_type(Credited, a.events)] == [arrived]
    again = Wire("a", b)
    a.plane.link_up("b", again)
    assert again.reliable == [lost]
    again.reliable_taken = again.reliable_end
    a.plane.tick(now_ns=2 * MS)
    assert [event.message for event in of_type(Credited, a.events)] == [arrived, lost]


def acting(pair: tuple[Server, Server]) -> tuple[Server, Server]:
    """The first server acts for the ball, and the second one has heard of it."""
    a, b = pair
    a.world.write(0, tick=1, position=[1, 2, 3])
    b.plane.raise_fence("ball", 1, "a", now_ns=0)
    b.plane.follow("ball", 4)
    a.hold("ball", 1, 0, now_ns=MS)
    a.wire.deliver(2 * MS)
    return a, b


def test_past_its_deadline_it_seals_nothing_says_so_once_and_its_act_ends_there(
    pair: tuple[Server, Server],
) -> None:
    a, _ = acting(pair)
    a.plane.tick(now_ns=10 * MS)
    a.wire.deliver(10 * MS)
    a.may_seal = False
    for now in (20, 30, 40):
        a.plane.tick(now_ns=now * MS)
        assert a.wire.states == {}
    assert of_type(WentSilent, a.events) == [WentSilent(entities=1, at_ns=20 * MS)]
    assert [act.last_ns for act in of_type(Act, a.plane.entries())] == [10 * MS]


def test_it_goes_on_when_the_lease_was_renewed_and_tells_again_when_it_falls_silent_again(
    pair: tuple[Server, Server],
) -> None:
    a, b = acting(pair)
    for now, may_seal in ((10, False), (20, True), (30, False)):
        a.may_seal = may_seal
        a.plane.before_sealing(now_ns=now * MS)
        a.plane.tick(now_ns=now * MS)
        a.wire.deliver(now * MS)
    assert [event.at_ns for event in of_type(WentSilent, a.events)] == [10 * MS, 30 * MS]
    assert b.plane.verdicts == {"accepted": 2}


def test_what_waits_unsealed_when_the_deadline_passes_is_never_sealed(pair: tuple[Server, Server]) -> None:
    """ECHO_AFTER_CHECK: it would go out with an echo received after the lease, and be accepted."""
    a, _ = acting(pair)
    a.plane.tick(now_ns=10 * MS)
    assert a.wire.states
    a.may_seal = False
    a.plane.before_sealing(now_ns=20 * MS)
    assert a.wire.states == {}


def test_a_grant_past_the_deadline_is_noted_and_nothing_is_sealed_for_it(pair: tuple[Server, Server]) -> None:
    a, _ = pair
    a.may_seal = False
    a.hold("ball", 1, 0, now_ns=MS)
    assert a.wire.states == {}
    assert of_type(Act, a.plane.entries()) == []


def test_a_server_without_entities_falls_silent_without_a_word(pair: tuple[Server, Server]) -> None:
    a, _ = pair
    a.may_seal = False
    a.plane.before_sealing(now_ns=MS)
    a.plane.tick(now_ns=MS)
    assert a.events == []


def test_with_its_session_everything_it_held_is_let_go(pair: tuple[Server, Server]) -> None:
    a, _ = acting(pair)
    a.plane.tick(now_ns=10 * MS)
    a.plane.end_session()
    assert a.wire.states == {}
    a.plane.tick(now_ns=20 * MS)
    assert a.wire.states == {}
    with pytest.raises(InvalidStateError, match="not held"):
        a.stop("ball", "b", now=30)
    assert [act.last_ns for act in of_type(Act, a.plane.entries())] == [10 * MS]


def test_a_new_session_acts_under_its_own_name(pair: tuple[Server, Server]) -> None:
    a, _ = acting(pair)
    a.plane.begin_session(b"n" * 16)
    a.hold("ball", 2, 0, now_ns=20 * MS)
    acts = of_type(Act, a.plane.entries())
    assert [(act.session, act.epoch) for act in acts] == [(a.session, 1), (b"n" * 16, 2)]


def test_a_release_that_was_acted_on_since_takes_nothing_back(pair: tuple[Server, Server]) -> None:
    """A successor may be given one that the session that ended had acted on already."""
    a, b = acting(pair)
    box = a.stop("ball", "b", now=10)
    a.world.write(0, tick=9, position=[7, 8, 9])
    b.plane.raise_fence("ball", 2, "a", now_ns=20 * MS)
    a.hold("ball", 2, 0, now_ns=20 * MS)
    a.wire.deliver(21 * MS)
    state = decode_state_untrusted(b.open(box, "a", previous=1))
    assert state.position.tolist() == [7, 8, 9]
    assert check(entries(a, b)).violations == []


def test_who_sealed_last_has_the_newest_state_until_another_one_seals(pair: tuple[Server, Server]) -> None:
    """Who took the entity may die before it acts."""
    a, b = acting(pair)
    a.plane.tick(now_ns=10 * MS)
    assert a.plane.streamed(["ball"], max_age_ns=10 * MS, now_ns=10 * MS) == ()
    a.stop("ball", "b", now=11)
    assert a.plane.streamed(["ball"], max_age_ns=10 * MS, now_ns=20 * MS) == ("ball",)
    assert a.plane.streamed(["ball"], max_age_ns=10 * MS, now_ns=21 * MS) == ()
    # It is not followed here, so that the newest state lies with others from now on.
    a.plane.raise_fence("ball", 2, "b", now_ns=12 * MS)
    b.hold("ball", 2, 4, now_ns=12 * MS)
    b.wire.deliver(12 * MS)
    assert a.plane.streamed(["ball"], max_age_ns=10 * MS, now_ns=13 * MS) == ()
    a.plane.follow("ball", 0)
    b.plane.tick(now_ns=14 * MS)
    b.wire.deliver(14 * MS)
    assert a.plane.streamed(["ball"], max_age_ns=10 * MS, now_ns=15 * MS) == ("ball",)


def test_streamed_is_what_is_followed_and_came_lately(pair: tuple[Server, Server]) -> None:
    a, b = acting(pair)
    a.hold("sack", 2, 1, now_ns=3 * MS)
    b.plane.raise_fence("sack", 2, "a", now_ns=3 * MS)
    a.wire.deliver(3 * MS)
    names = ["ball", "sack", "gun"]
    # The sack is accepted, but nowhere kept.
    assert b.plane.streamed(names, max_age_ns=10 * MS, now_ns=12 * MS) == ("ball",)
    assert b.plane.streamed(names, max_age_ns=10 * MS, now_ns=13 * MS) == ()


def test_nothing_grows_with_the_number_of_transfers(pair: tuple[Server, Server]) -> None:
    """Records are bounded too: what happens is written to a file as it happens, where one is kept."""
    a, b = pair
    wires = {"a": a.wire, "b": b.wire}
    kept: list[tuple[int, int]] = []
    written: list[Entry] = []
    a.plane._notes._record = written.append
    giver, taker = a, b
    for number in range(1, MAX_ENTRIES):
        now = number * 10
        taker.plane.raise_fence("ball", number, giver.name, now_ns=now * MS)
        giver.hold("ball", number, 0, now_ns=now * MS)
        giver.plane.tick(now_ns=now * MS)
        wires[giver.name].deliver(now * MS)
        taker.plane.follow("ball", 0)
        box = giver.stop("ball", taker.name, now=now + 1)
        accepted = Accepted(trace=number.to_bytes(16, "big"), hop=2, entity="ball", epoch=number)
        taker.open(box, giver.name, previous=number)
        giver.plane.send_message(taker.name, encode_message(accepted))
        wires[giver.name].deliver(now * MS)
        kept.append((a.plane.kept(), b.plane.kept()))
        giver, taker = taker, giver
    assert max(kept[4:]) <= max(kept[:4])
    assert len(a.plane.entries()) <= MAX_ENTRIES + 2
    assert a.plane.dropped > 0
    assert len(of_type(Granted, written)) == MAX_ENTRIES // 2
    assert {entry.epoch for entry in of_type(Acceptance, written)} >= set(range(2, MAX_ENTRIES - 3, 2))
    assert (a.plane.sent()["b"], b.plane.received()["a"]) == (MAX_ENTRIES // 2, MAX_ENTRIES // 2)


def test_a_hold_that_is_told_again_is_another_act_and_not_a_lost_one() -> None:
    a = Server("a")
    a.hold("ball", 1, 0, now_ns=1)
    a.plane.tick(now_ns=2)
    a.hold("ball", 1, 0, now_ns=3)
    assert [(act.first_ns, act.last_ns) for act in of_type(Act, a.plane.entries())] == [(1, 2), (3, 3)]


def test_of_an_entity_that_is_no_more_nothing_is_sealed_signed_or_kept(pair: tuple[Server, Server]) -> None:
    a, b = pair
    before = (a.plane.kept(), b.plane.kept())
    for entity, slot in (("ball", 0), ("gun", 1)):
        a.hold(entity, 1, slot, now_ns=0)
        b.plane.raise_fence(entity, 1, "a", now_ns=0)
        b.plane.follow(entity, slot)
    a.stop("gun", "b", now=1, linger=1_000)
    a.wire.deliver(MS)
    for server in (a, b):
        for entity in ("ball", "gun"):
            server.plane.forget(entity)
    a.plane.tick(now_ns=3 * MS)
    assert (a.wire.states, of_type(Act, a.plane.entries())[-1].entity) == ({}, "ball")
    for entity in ("ball", "gun"):
        with pytest.raises(InvalidStateError, match="not held"):
            a.stop(entity, "b", now=4)
    assert a.plane.kept() == before[0]
    assert b.plane.kept() == before[1]
