from __future__ import annotations

import numpy as np
import pytest

from bridge.errors import ConfigurationError, InvalidStateError
from bridge.udp.events import (
    CloseReason,
    MessageReceived,
    SessionClosed,
    SessionEstablished,
    StateReceived,
)
from bridge.udp.frames import PathChallenge, encode_frame
from bridge.udp.peers import Peer
from bridge.udp.statistics import DropReason
from tests.support.datagrams import (
    Network,
    connected_pair,
    drops,
    established,
    introduce,
    make_pair,
    single_datagrams,
    sorted_keys,
)

STRANGER = ("198.51.100.7", 7)


def test_states_and_messages_cross_both_ways() -> None:
    network, a, b = connected_pair()
    a.session("b").send_state(b"here", stream=7)
    b.session("a").send_reliable(b"hello")
    network.run(until=lambda: bool(b.of_type(StateReceived) and a.of_type(MessageReceived)))
    (state,) = b.of_type(StateReceived)
    assert (state.peer, state.stream, state.payload) == ("a", 7, b"here")
    assert state.echo_age is not None
    assert 0 < state.echo_age < 1
    assert a.of_type(MessageReceived)[0].payload == b"hello"


def test_every_sampled_flipped_bit_of_a_sealed_datagram_is_refused() -> None:
    network, a, b = connected_pair()
    a.conditioner.cut()
    a.session("b").send_state(b"state")
    network.settle(a)
    sealed = network.log[-1][2]
    for position in range(len(sealed)):
        altered = bytearray(sealed)
        altered[position] ^= 1 << position % 8
        network.inject(bytes(altered), a.address, b)
    assert not b.of_type(StateReceived)
    network.inject(sealed, a.address, b)
    assert len(b.of_type(StateReceived)) == 1


def test_a_replayed_sealed_datagram_is_dropped_and_counted() -> None:
    """R0-24: replay refused."""
    network, a, b = connected_pair()
    a.session("b").send_state(b"once")
    network.run(until=lambda: bool(b.of_type(StateReceived)))
    sealed = [datagram for source, _, datagram in network.log if source == a.address][-1]
    network.inject(sealed, a.address, b)
    assert len(b.of_type(StateReceived)) == 1
    assert drops(b, DropReason.REPLAYED) == 1


def test_a_restarted_peer_displaces_its_old_session_after_confirmation() -> None:
    network, a, b = connected_pair()
    network.crash(a)
    b.session("a").send_reliable(b"never arrived")
    network.run(seconds=0.5)
    again = network.host("a", a.key, port=2000)
    introduce(b, again)
    again.endpoint.connect("b", now=network.now)
    network.run(until=lambda: bool(b.of_type(SessionClosed)))
    (closed,) = b.of_type(SessionClosed)
    assert closed.reason is CloseReason.DISPLACED
    assert closed.undelivered == (b"never arrived",)
    kinds = [type(event) for event in b.events]
    assert kinds.index(SessionClosed) < len(kinds) - 1 - kinds[::-1].index(SessionEstablished)
    network.run(until=established(again))
    assert b.session("a").session_id == again.session("b").session_id


def test_an_address_change_is_followed_once_the_new_address_is_proven() -> None:
    network, a, b = connected_pair()
    network.move(a, ("203.0.113.9", 9))
    a.session("b").send_state(b"moved, in a datagram longer than a challenge")
    network.run(until=lambda: b.session("a").address == ("203.0.113.9", 9))
    b.session("a").send_reliable(b"found you")
    network.run(until=lambda: bool(a.of_type(MessageReceived)))
    assert b.session("a").statistics().address_changes == 1


def test_a_datagram_relayed_from_elsewhere_moves_nothing() -> None:
    """The address is not proven by the datagram: an onlooker can send a copy first."""
    network, a, b = connected_pair()
    a.conditioner.cut()
    a.session("b").send_state(b"intercepted and sent on from another address")
    network.settle(a)
    relayed = network.log[-1][2]
    a.conditioner.mend()
    sent = len(network.log)
    network.inject(relayed, STRANGER, b)
    to_stranger = [datagram for _, target, datagram in network.log[sent:] if target == STRANGER]
    assert sum(map(len, to_stranger)) <= len(relayed)
    network.run(seconds=3)
    assert b.session("a").address == a.address
    assert len(b.of_type(StateReceived)) == 1


def test_closing_tells_the_peer_and_empties_the_tables() -> None:
    network, a, b = connected_pair()
    a.session("b").close(detail="done here")
    network.run(until=lambda: bool(b.of_type(SessionClosed)))
    (closed,) = b.of_type(SessionClosed)
    assert (closed.reason, closed.by_peer, closed.detail) == (CloseReason.APPLICATION, True, "done here")
    assert a.endpoint.statistics().sessions == b.endpoint.statistics().sessions == 0
    assert a.endpoint.get_timer() is None


def test_closing_an_endpoint_closes_its_sessions() -> None:
    network, a, b = connected_pair()
    a.endpoint.close()
    network.run(until=lambda: bool(b.of_type(SessionClosed)))
    assert b.of_type(SessionClosed)[0].reason is CloseReason.SHUTDOWN
    with pytest.raises(InvalidStateError):
        a.endpoint.connect("b", now=network.now)


def test_a_vanished_peer_is_noticed_by_the_idle_time_out() -> None:
    network, a, b = connected_pair()
    network.crash(b)
    network.run(until=lambda: bool(a.of_type(SessionClosed)))
    assert a.of_type(SessionClosed)[0].reason is CloseReason.IDLE


def test_keepalives_hold_an_idle_session_open() -> None:
    network, a, b = connected_pair()
    network.run(seconds=60)
    assert a.session("b").session_id == b.session("a").session_id


def test_another_key_for_a_peer_ends_the_session_of_the_old_one() -> None:
    """R0-24: revocation takes effect at once."""
    network, a, b = connected_pair()
    a.endpoint.add_peer(Peer(name="b", public_key=sorted_keys()[2].public(), address=b.address))
    network.run(until=lambda: bool(a.of_type(SessionClosed)))
    assert a.of_type(SessionClosed)[0].reason is CloseReason.PEER_REMOVED


def test_a_removed_peer_is_a_stranger() -> None:
    network, a, b = connected_pair()
    b.endpoint.remove_peer("a")
    network.run(until=lambda: bool(a.of_type(SessionClosed)))
    a.endpoint.connect("b", now=network.now)
    network.run(until=lambda: drops(b, DropReason.STRANGER) > 0)
    with pytest.raises(ConfigurationError):
        b.endpoint.connect("a", now=network.now)


def test_three_hosts_hold_three_sessions() -> None:
    network = Network()
    hosts = [network.host(name, key) for name, key in zip("abc", sorted_keys(), strict=True)]
    introduce(*hosts)
    for host in hosts:
        for other in hosts:
            if other is not host:
                host.endpoint.connect(other.name, now=network.now)
    network.run(until=lambda: all(host.endpoint.statistics().sessions == 2 for host in hosts))
    network.run(seconds=15)
    assert all(len(host.of_type(SessionEstablished)) == 2 for host in hosts)


def test_an_identity_without_a_private_key_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        Network().host("a", sorted_keys()[0].public())


def test_an_endpoint_is_not_its_own_peer() -> None:
    _, a, _ = make_pair()
    with pytest.raises(ConfigurationError):
        a.endpoint.add_peer(Peer(name="me", public_key=a.key.public(), address=a.address))


def test_a_fault_in_one_session_ends_that_session_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    network = Network()
    a, b, c = (network.host(name, key) for name, key in zip("abc", sorted_keys(), strict=True))
    introduce(a, b, c)
    for name in "bc":
        a.endpoint.connect(name, now=network.now)
    network.run(until=lambda: len(a.of_type(SessionEstablished)) == 2 and established(b, c)())
    rows = np.zeros((2, 8), dtype=np.uint8)
    a.session("b").send_state(rows)
    rows.shape = (16,)  # what was given is not copied, and must not become something else
    a.session("c").send_state(b"state")
    network.run(until=lambda: bool(b.of_type(SessionClosed) and c.of_type(StateReceived)))
    (closed,) = a.of_type(SessionClosed)
    assert (closed.peer, closed.reason, closed.by_peer) == ("b", CloseReason.FAULT, False)
    assert "IndexError" in closed.detail
    assert b.of_type(SessionClosed)[0].reason is CloseReason.UNKNOWN
    assert "session with b failed" in caplog.text
    assert [session.peer for session in a.endpoint.sessions()] == ["c"]


def test_what_goes_past_all_that_waits_does_not_wait_for_what_comes_next() -> None:
    """A session with nothing to send, challenged, answers at once, not with its next acknowledgement."""
    network, a, b = connected_pair()
    network.run(seconds=0.5)
    begun = network.now
    a.session("b").outbound.emit_frame(encode_frame(PathChallenge(bytes(8))), now=begun)
    for datagram, _ in single_datagrams(a.session("b").datagrams_to_send(now=begun)):
        b.endpoint.receive_datagram(datagram, a.address, now=begun)
    assert b.endpoint.datagrams_to_send(now=begun)
