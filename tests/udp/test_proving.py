from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import LimitExceededError
from bridge.udp.conditions import NetworkConditions
from bridge.udp.config import UdpConfig
from bridge.udp.events import MessageReceived, SessionEstablished, StateReceived, StatesReceived
from bridge.udp.evidence import Evidence, evidence_to_json, parse_evidence_untrusted
from bridge.udp.evidence.proof import PATH_AT, parse_proof_untrusted
from bridge.udp.proving import SigningPace
from bridge.udp.session import Session
from bridge.udp.statistics import DropReason
from bridge.udp.transmit import Transmit
from bridge.udp.workspace import Matrix
from tests.support.datagrams import Host, Network, connected_pair, introduce, sorted_keys

SIGNED = UdpConfig(signed=True, keep_evidence=True, initial_rate=1e9)
PAYLOAD_AT = 19


def rows_of(count: int, size: int, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).integers(0, 256, (count, size), dtype=np.uint8)


def states_of(host: Host) -> dict[int, StateReceived]:
    """The newest state of each stream, alone."""
    events = [event for event in host.events if isinstance(event, StateReceived | StatesReceived)]
    return {state.stream: state for event in events for state in event.states()}


def deliver(
    transmits: list[Transmit], network: Network, source: Host, target: Host, alter: Callable[[Matrix], None]
) -> None:
    """Hand runs over as the socket does."""
    for transmit in transmits:
        whole = np.frombuffer(transmit.payload, dtype=np.uint8).copy()
        alter(whole.reshape(-1, transmit.segment))
        target.endpoint.receive_run(
            memoryview(whole.tobytes()), transmit.segment, source.address, now=network.now
        )
    network.settle(target)


@pytest.mark.parametrize(("ours", "theirs"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_session_is_signed_if_either_side_wants_it(ours: bool, theirs: bool) -> None:
    network = Network()
    low, high, _ = sorted_keys()
    a = network.host("a", low, config=UdpConfig(signed=ours))
    b = network.host("b", high, config=UdpConfig(signed=theirs))
    introduce(a, b)
    a.endpoint.connect("b", now=network.now)
    network.run(until=lambda: bool(a.of_type(SessionEstablished) and b.of_type(SessionEstablished)))
    expected = ours or theirs
    assert a.session("b").is_signed == b.session("a").is_signed == expected
    for host, other in ((a, "b"), (b, "a")):
        assert host.session(other).max_state_bytes == (738 if expected else 1152)


def test_states_and_batches_arrive_with_evidence_that_holds_for_anybody() -> None:
    network, a, b = connected_pair(config=SIGNED)
    rows = rows_of(40, 738)
    a.session("b").send_state(rows, 10)
    a.session("b").send_state(b"alone", 3)
    a.session("b").send_state(b"", 4)
    network.run(until=lambda: len(states_of(b)) == 42)
    assert a.endpoint.statistics().signatures_made == 1
    assert b.session("a").statistics().signatures_checked == 1
    for stream, state in states_of(b).items():
        expected = rows[stream - 10].tobytes() if stream >= 10 else (b"alone" if stream == 3 else b"")
        assert state.payload == expected
        assert state.evidence is not None
        kept = parse_evidence_untrusted(evidence_to_json(state.evidence))
        assert kept.check(a.key).size == 41
        assert kept.recipient == b.key.thumbprint_bytes()
        assert kept.session_id == a.session("b").session_id
        assert expected in kept.plaintext


def test_evidence_is_kept_only_where_it_is_asked_for() -> None:
    network, a, b = connected_pair(config=replace(SIGNED, keep_evidence=False))
    a.session("b").send_state(b"alone", 3)
    a.session("b").send_state(rows_of(20, 100), 10)
    network.run(until=lambda: len(states_of(b)) == 21)
    assert all(state.evidence is None for state in states_of(b).values())


def test_one_signature_covers_the_states_of_all_peers() -> None:
    network = Network()
    keys = sorted_keys()
    hosts = [network.host(name, key, config=SIGNED) for name, key in zip("abc", keys, strict=True)]
    a, b, c = hosts
    introduce(*hosts)
    for name in "bc":
        a.endpoint.connect(name, now=network.now)
    network.run(until=lambda: len(a.of_type(SessionEstablished)) == 2)
    a.session("b").send_state(rows_of(5, 50))
    a.session("c").send_state(b"for c")
    network.run(until=lambda: len(states_of(b)) == 5 and len(states_of(c)) == 1)
    assert a.endpoint.statistics().signatures_made == 1
    evidence = states_of(c)[0].evidence
    assert evidence is not None
    assert parse_proof_untrusted(evidence.proof)[:2] == (6, 5)
    # What c was sent is no evidence of anything sent to b.
    with pytest.raises(Exception, match="does not hold"):
        replace(evidence, recipient=b.key.thumbprint_bytes()).check(a.key)


@settings(deadline=None, max_examples=30)
@given(st.integers(5, 100), st.randoms(use_true_random=False))
def test_what_is_lost_takes_nothing_else_with_it(count: int, chance: Any) -> None:
    network, a, b = connected_pair(config=SIGNED)
    rows = rows_of(count, 60)
    a.session("b").send_state(rows)
    lost: set[int] = set()
    number = iter(range(count))

    def drop(datagram: bytes, source: Any, _target: Any) -> bool:
        if source != a.address or len(datagram) < 200:
            return False
        row = next(number)
        if chance.random() < 0.3:
            lost.add(row)
        return row in lost

    network.drop = drop
    network.run(until=lambda: len(states_of(b)) == count - len(lost), seconds=1)
    assert set(states_of(b)) == set(range(count)) - lost
    assert DropReason.UNPROVEN not in b.session("a").statistics().drops
    for stream, state in states_of(b).items():
        assert state.payload == rows[stream].tobytes()
        assert isinstance(state.evidence, Evidence)
        state.evidence.check(a.key)


def test_runs_are_proven_whatever_the_kernel_merged() -> None:
    network, a, b = connected_pair(config=SIGNED)
    rows = rows_of(230, 700)
    a.session("b").send_state(rows)
    transmits = a.endpoint.datagrams_to_send(now=network.now)
    assert max(transmit.datagram_count for transmit in transmits) > 100
    deliver(transmits, network, a, b, lambda _datagrams: None)
    assert len(b.of_type(StatesReceived)) <= 4
    states = states_of(b)
    assert [states[stream].payload for stream in range(230)] == [row.tobytes() for row in rows]
    for state in states.values():
        assert state.evidence is not None
        state.evidence.check(a.key)
    assert b.session("a").statistics().signatures_checked == 1


def test_a_run_whose_tick_was_signed_by_nobody_is_acknowledged_and_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A sealed session's rightful peer that makes up proofs."""
    monkeypatch.setattr("bridge.udp.evidence.signer.sign_raw", lambda *_: bytes([1] * 64))
    network, a, b = connected_pair(config=SIGNED)
    a.session("b").send_state(rows_of(32, 700))
    a.session("b").send_state(b"alone", 40)
    deliver(a.endpoint.datagrams_to_send(now=network.now), network, a, b, lambda _datagrams: None)
    network.run(seconds=0.5)
    assert states_of(b) == {}
    assert b.session("a").statistics().drops[DropReason.UNPROVEN] == 33
    assert b.session("a").statistics().signatures_checked == 1
    assert a.session("b").states_unacknowledged == 0
    assert not b.session("a").is_closed


def test_states_without_a_proof_are_dropped_and_the_rest_of_the_datagram_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The peer agreed on a signed session and then does not sign."""
    network, a, b = connected_pair(config=SIGNED)
    monkeypatch.setattr(a.session("b").outbound, "_verifier", None)
    a.session("b").send_state(b"unsigned")
    a.session("b").send_reliable(b"a message")
    a.session("b").send_state(rows_of(20, 50), 10)
    deliver(a.endpoint.datagrams_to_send(now=network.now), network, a, b, lambda _datagrams: None)
    assert states_of(b) == {}
    assert b.session("a").statistics().drops[DropReason.UNPROVEN] == 21
    assert [event.payload for event in b.of_type(MessageReceived)] == [b"a message"]


def test_a_false_row_of_a_run_is_dropped_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    network, a, b = connected_pair(config=SIGNED)
    seal_proven = Session.seal_proven

    def spoil(session: Session, unproven: Any, proofs: list[Matrix], *, now: float) -> list[Transmit]:
        proofs[0][3, PATH_AT + 40] ^= 1
        return seal_proven(session, unproven, proofs, now=now)

    monkeypatch.setattr(Session, "seal_proven", spoil)
    a.session("b").send_state(rows_of(32, 50))
    deliver(a.endpoint.datagrams_to_send(now=network.now), network, a, b, lambda _datagrams: None)
    assert set(states_of(b)) == set(range(32)) - {3}
    assert b.session("a").statistics().drops[DropReason.UNPROVEN] == 1
    for stream, state in states_of(b).items():
        assert state.evidence is not None, stream
        state.evidence.check(a.key)


def test_states_older_than_the_newest_are_dropped_from_a_proven_run() -> None:
    network, a, b = connected_pair(config=SIGNED)
    runs = []
    for seed in range(2):
        a.session("b").send_state(rows_of(16, 50, seed), 4 * seed)
        runs.append(a.endpoint.datagrams_to_send(now=network.now))
    # The same streams with an older number come later, as new datagrams: the sealed order is turned round.
    for run in reversed(runs):
        for transmit in run:
            for datagram in transmit.datagrams():
                b.endpoint.receive_datagram(datagram, a.address, now=network.now)
    network.settle(b)
    states = states_of(b)
    assert set(states) == set(range(20))
    assert states[5].payload == rows_of(16, 50, 1)[1].tobytes()
    assert states[5].evidence is not None
    states[5].evidence.check(a.key)


def test_a_state_leaves_room_for_the_deepest_proof() -> None:
    network, a, b = connected_pair(config=SIGNED)
    a.session("b").send_state(rows_of(1024, 738))
    with pytest.raises(LimitExceededError):
        a.session("b").send_state(bytes(739))
    longest = 0
    for transmit in a.endpoint.datagrams_to_send(now=network.now):
        longest = max(longest, transmit.segment)
        deliver([transmit], network, a, b, lambda _datagrams: None)
    assert longest == 1200
    assert len(states_of(b)) == 1024


def test_small_states_share_a_datagram_and_its_proof() -> None:
    network, a, b = connected_pair(config=SIGNED)
    for stream in range(30):
        a.session("b").send_state(bytes([stream]) * 60, stream)
    a.session("b").send_reliable(bytes(3000))
    network.run(until=lambda: len(states_of(b)) == 30 and bool(b.of_type(MessageReceived)))
    evidence = states_of(b)[29].evidence
    assert evidence is not None
    assert evidence.check(a.key).size == 3


def test_a_sender_with_too_many_ticks_makes_fewer_and_larger_ones() -> None:
    config = UdpConfig(signed=True, signatures_per_second=100, signature_burst=2)
    network, a, b = connected_pair(config=config)
    for number in range(20):
        a.session("b").send_state(bytes([number]), number)
        network.settle(a)
    assert a.endpoint.statistics().signatures_made == 2
    network.run(until=lambda: len(states_of(b)) == 20, seconds=1)
    assert a.endpoint.statistics().signatures_made == 3
    assert DropReason.UNPROVEN not in b.session("a").statistics().drops


def test_a_session_that_ends_while_its_states_wait_is_forgotten() -> None:
    config = UdpConfig(signed=True, signatures_per_second=1, signature_burst=1)
    network, a, _ = connected_pair(config=config)
    for number in range(2):
        a.session("b").send_state(bytes([number]))
        network.settle(a)
    a.session("b").close()
    network.run(seconds=3)
    assert a.endpoint.statistics().sessions == 0
    assert a.endpoint.statistics().signatures_made == 1


def test_a_bad_network_brings_every_newest_state_with_its_proof() -> None:
    conditions = NetworkConditions(delay=0.02, jitter=0.02, loss=0.2, duplicate=0.05)
    network, a, b = connected_pair(config=SIGNED, conditions=conditions, seed=4)
    for tick in range(40):
        a.session("b").send_state(rows_of(12, 60, tick))
        network.run(seconds=0.05)
    network.run(seconds=0.5)
    assert len(states_of(b)) == 12
    assert DropReason.UNPROVEN not in b.session("a").statistics().drops
    for state in states_of(b).values():
        assert state.evidence is not None
        state.evidence.check(a.key)


def test_the_pace_allows_a_burst_and_then_its_rate() -> None:
    pace = SigningPace(per_second=10, burst=3)
    moments: list[float] = []
    now = 100.0
    while len(moments) < 8:
        if now >= pace.due_at:
            moments.append(now)
            pace.signed(1, now=now)
        else:
            now = pace.due_at
    assert moments == pytest.approx([100.0] * 3 + [100.1, 100.2, 100.3, 100.4, 100.5])
    pace.signed(5, now=200.0)
    assert pace.due_at == pytest.approx(200.3)
