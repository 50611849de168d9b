"""Everything a session carries, through everything a network does; and that the check would see a fault."""

from __future__ import annotations

import pytest

from bridge.udp import MessageReceived, NetworkConditions, SessionClosed, StateReceived, UdpConfig
from bridge.udp.events import CloseReason, SessionEstablished, UdpEvent
from tests.support.datagrams import Host, Network, bare_sessions, introduce, single_datagrams, sorted_keys
from tests.support.soak import Soak, run_soak
from tests.support.talker import STREAMS, Talker, compare, message, missing

BAD = "loss=5%,burst=4,delay=20ms,jitter=50ms,duplicate=2%,reorder=2%"


class Pair:
    """Two talkers on a network in memory."""

    def __init__(self, network: str, config: UdpConfig | None = None) -> None:
        self.network = Network(seed=7)
        conditions = NetworkConditions.parse(network)
        self.hosts: list[Host] = [
            self.network.host(name, key, conditions=conditions, config=config)
            for name, key in zip("ab", sorted_keys(), strict=False)
        ]
        introduce(*self.hosts)
        self.talkers = [Talker(), Talker()]

    def tick(self, *, messages: int) -> None:
        self.network.run(seconds=1 / 60)
        # What was carried is not to be looked at; a minute of it is many.
        self.network.log.clear()
        for host, talker in zip(self.hosts, self.talkers, strict=True):
            for event in host.events:
                talker.receive(event, now=self.network.now)
            host.events.clear()
            talker.send(now=self.network.now, messages=messages)
        if self.talkers[0].session is None:
            self.hosts[0].endpoint.connect("b", now=self.network.now)

    def run(self, *, seconds: float) -> list[str]:
        for n in range(int(seconds * 60)):
            self.tick(messages=n % 2)
        ends = self.network.now + 120
        talks = [talker.talk for talker in self.talkers]
        while self.network.now < ends and missing(talks):
            self.tick(messages=0)
        return compare(talks)


@pytest.mark.slow
def test_nothing_is_missing_disordered_or_stale_after_bursts_of_loss_jitter_and_a_partition() -> None:
    pair = Pair(f"{BAD},partition=6s+5s,seed=3")
    assert pair.run(seconds=14) == []
    for talker in pair.talkers:
        assert talker.talk.sessions == 1
        assert 5 < talker.talk.longest_silence < 8
        assert talker.talk.overtaken > 0


@pytest.mark.slow
def test_a_session_that_a_partition_ends_is_made_again_and_nothing_is_missing() -> None:
    pair = Pair(f"{BAD},partition=4s+4s,seed=4", UdpConfig(idle_timeout=2, keepalive_interval=0.5))
    assert pair.run(seconds=12) == []
    for talker in pair.talkers:
        assert talker.talk.sessions > 1


@pytest.mark.slow
def test_two_processes_pass_a_short_soak() -> None:
    """The long one is `scripts/soak udp`."""
    network = NetworkConditions.parse(f"{BAD},partition=5s+5s,seed=5")
    told: list[float] = []
    soak = Soak(seconds=12, network=network, warm_up=4, growth_kib=32 << 10)
    verdict = run_soak(soak, lambda at, _reports: told.append(at))
    assert verdict.violations == []
    assert len(told) > 2
    for report in verdict.reports:
        assert report.network.cut > 0
        assert report.network.lost > 0
        assert report.talk.longest_silence > 4


def talker() -> Talker:
    one = Talker()
    one.receive(SessionEstablished(peer="b", session=bare_sessions()[0]), now=0)
    return one


def states() -> list[StateReceived]:
    """What a talker sends in three ticks, as its peer would get it."""
    sender, receiver = bare_sessions()
    one = Talker()
    one.receive(SessionEstablished(peer="b", session=sender), now=100)
    found = []
    for tick in range(3):
        now = 100 + tick / 60
        one.send(now=now, messages=0)
        for datagram, address in single_datagrams(sender.datagrams_to_send(now=now)):
            receiver.inbound.receive_datagram(datagram, address, now=now)
        while (event := receiver.next_event()) is not None:
            assert isinstance(event, StateReceived)
            found.append(event)
    assert len(found) == 3 * STREAMS
    return found


def seen(one: Talker, *events: UdpEvent) -> list[str]:
    for event in events:
        one.receive(event, now=101)
    return one.talk.violations


def unordered(*numbers: int) -> list[MessageReceived]:
    return [
        MessageReceived(peer="a", payload=message(number, ordered=False), ordered=False) for number in numbers
    ]


def ordered(*numbers: int) -> list[MessageReceived]:
    return [MessageReceived(peer="a", payload=message(number)) for number in numbers]


def test_states_in_the_order_they_were_sent_are_fine_and_so_are_gaps() -> None:
    assert seen(talker(), *states()) == []
    assert seen(talker(), *states()[2 * STREAMS :]) == []


def test_a_state_older_than_the_one_before_is_seen_and_so_is_the_same_again() -> None:
    first, *_, last = (state for state in states() if state.stream == 3)
    assert seen(talker(), last, first) == ["stream 3 showed state 1 after 3"]
    assert seen(talker(), last, last) == ["stream 3 showed state 3 after 3"]


def test_a_state_of_another_stream_is_seen() -> None:
    state = states()[0]
    moved = StateReceived(
        peer="a",
        stream=9,
        number=state.number,
        payload=state.payload,
        received_at=state.received_at,
        echo_age=None,
    )
    assert "stream 9 brought something else" in seen(talker(), moved)[0]


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ((0, 2), "ordered message 2 came where 1 was due"),
        ((0, 1, 1), "ordered message 1 came where 2 was due"),
        ((1,), "ordered message 1 came where 0 was due"),
    ],
)
def test_a_message_that_is_missing_repeated_or_early_is_seen(numbers: tuple[int, ...], says: str) -> None:
    assert seen(talker(), *ordered(*numbers)) == [says]


def test_messages_without_an_order_may_come_in_any_but_once() -> None:
    one = talker()
    assert seen(one, *unordered(3, 0, 2, 1)) == []
    assert (one.talk.unordered_seen, one.talk.overtaken) == (4, 3)
    assert seen(one, *unordered(2)) == ["unordered message 2 came again"]


def test_a_changed_message_is_seen_and_so_is_one_of_the_other_kind() -> None:
    changed = MessageReceived(peer="a", payload=message(0) + b"x")
    assert seen(talker(), changed) == ["ordered message 0 was changed"]
    mixed_up = MessageReceived(peer="a", payload=message(0), ordered=False)
    assert seen(talker(), mixed_up) == ["unordered message 0 was changed"]


def test_only_a_new_session_may_repeat_and_only_before_what_is_new() -> None:
    one = talker()
    closed = SessionClosed(peer="b", reason=CloseReason.IDLE, by_peer=False, detail="", undelivered=())
    again = SessionEstablished(peer="b", session=bare_sessions()[0])
    assert seen(one, *ordered(0, 1, 2), closed, again, *ordered(1, 2, 3)) == []
    assert seen(one, *unordered(0, 2), closed, again, *unordered(2, 1, 3)) == []
    assert one.talk.repeated == 3
    assert seen(one, *ordered(4, 3), *unordered(3)) == [
        "ordered message 3 came where 5 was due",
        "unordered message 3 came again",
    ]


def test_messages_that_never_arrive_are_told() -> None:
    sender, receiver = talker(), talker()
    sender.send(now=100, messages=2)
    seen(receiver, *ordered(0), *unordered(1), *states()[:1])
    assert missing([sender.talk, receiver.talk]) == [
        "a: no state arrived",
        "b: 1 of 2 ordered messages arrived",
        "b: 1 of 2 unordered messages arrived",
    ]
