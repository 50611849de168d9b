from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bridge.errors import ConfigurationError, LimitExceededError
from bridge.jose import Jwk
from bridge.udp.conditions import NetworkConditions
from bridge.udp.config import UdpConfig
from bridge.udp.events import (
    MessageReceived,
    StateReceived,
)
from bridge.udp.frames import (
    MAX_STATE_BYTES,
)
from bridge.udp.lone import FEW
from bridge.udp.loss import REORDER_THRESHOLD
from bridge.udp.session import Session
from bridge.udp.statistics import DropReason
from tests.support.datagrams import (
    Host,
    Network,
    drops,
    established,
    introduce,
)


def crowd(
    count: int, *, config: UdpConfig | None = None, conditions: NetworkConditions | None = None
) -> tuple[Network, Host, list[Host], list[Session]]:
    """A server with a session with each of so many players."""
    network = Network()
    server = network.host("server", Jwk.generate(), config=config, conditions=conditions)
    players = [
        network.host(f"player {n}", Jwk.generate(), config=config, conditions=conditions)
        for n in range(count)
    ]
    for player in players:
        introduce(server, player)
        server.endpoint.connect(player.name, now=network.now)
    network.run(until=established(*players))
    network.run(until=lambda: len(server.endpoint.sessions()) == count)
    return network, server, players, [server.session(player.name) for player in players]


def states(host: Host) -> list[bytes]:
    return [bytes(state.payload) for event in host.of_type(StateReceived) for state in event.states()]


def rows(count: int, tick: int, *, size: int = 100) -> npt.NDArray[np.uint8]:
    """Of each session, a state that tells the tick and which row it is."""
    matrix = np.zeros((count, size), dtype=np.uint8)
    matrix[:, 0], matrix[:, 1] = tick, np.arange(count)
    return matrix


@pytest.mark.parametrize("count", [1, FEW - 1, FEW + 3])
@pytest.mark.parametrize("at_once", [True, False])
def test_each_of_a_crowd_gets_its_own_state(count: int, at_once: bool) -> None:
    network, server, players, sessions = crowd(count)
    for tick in range(3):
        sent = rows(count, tick)
        if at_once:
            numbers = server.endpoint.send_states(sessions, sent, stream=2).tolist()
        else:
            numbers = [
                session.send_state(row.tobytes(), stream=2)
                for session, row in zip(sessions, sent, strict=True)
            ]
        assert numbers == [tick] * count
        network.run(seconds=0.2)
    for n, player in enumerate(players):
        assert states(player) == [rows(count, tick)[n].tobytes() for tick in range(3)]
        assert {event.stream for event in player.of_type(StateReceived)} == {2}
    assert {session.acknowledged_state(2) for session in sessions} == {2}
    assert {session.states_unacknowledged for session in sessions} == {0}
    assert server.endpoint.statistics().datagrams_sent == sum(
        source == server.address for source, _, _ in network.log
    )


def test_states_of_a_crowd_may_be_empty_and_of_any_sizes() -> None:
    network, server, players, sessions = crowd(FEW + 2)
    for size in (0, MAX_STATE_BYTES, 1, 700, 40, 41):  # more sizes than are kept memory for
        server.endpoint.send_states(sessions, np.zeros((len(sessions), size), dtype=np.uint8))
        network.run(seconds=0.1)
        for session in sessions:
            session.send_state(bytes(size))
        network.run(seconds=0.1)
    for player in players:
        assert [len(payload) for payload in states(player)] == [
            size for size in (0, MAX_STATE_BYTES, 1, 700, 40, 41) for _ in range(2)
        ]


def test_a_crowd_on_a_bad_network_with_all_that_sessions_do_besides() -> None:
    """Keys change, players answer, messages go, some move: nothing that is sent is ever refused."""
    count = FEW + 4
    network, server, players, sessions = crowd(
        count,
        config=UdpConfig(rekey_after_datagrams=7, max_ack_delay=0.02),
        conditions=NetworkConditions(delay=0.03, jitter=0.01, loss=0.05),
    )
    for tick in range(60):
        for n, player in enumerate(players):
            if (tick + n) % 3 == 0:
                player.session("server").send_state(b"input")
            if (tick + n) % 20 == 0:
                sessions[n].send_reliable(b"message")
        if tick == 30:
            network.move(players[0], ("192.0.2.77", 7))
        server.endpoint.send_states(sessions[tick % 3 :], rows(count, tick)[tick % 3 :])
        network.run(seconds=1 / 60)
    network.run(seconds=5)
    for n, player in enumerate(players):
        got = [payload[0] for payload in states(player)]
        assert got == sorted(set(got))
        assert len(got) > (40 if n >= 2 else 12)  # the first two are left out of some ticks
        assert {payload[1] for payload in states(player)} == {n}
        assert len(player.of_type(MessageReceived)) == 3
        assert not drops(player, DropReason.FORGED)
        assert not drops(player, DropReason.REPLAYED)
        assert not drops(player, DropReason.KEY_PHASE)
    assert sessions[0].statistics().address_changes == 1
    for session in sessions:
        assert session.states_unacknowledged <= REORDER_THRESHOLD  # no later one tells of the last
        assert session.statistics().rekeys > 1


@pytest.mark.parametrize("size", [100, MAX_STATE_BYTES])
def test_acknowledgements_ride_with_the_states_of_a_crowd_where_there_is_room(size: int) -> None:
    network, server, players, sessions = crowd(2 * FEW + 3, config=UdpConfig(max_ack_delay=0.1))
    talkers = [*players[:FEW], *players[-2:]]  # as many as are done together, and a few with another length
    for _ in range(20):
        players[-1].session("server").send_state(b"input")
        network.run(seconds=0.2)
    for tick in range(4):
        for player in talkers:
            player.session("server").send_state(b"input")
        network.run(seconds=0.01)
        before = len(network.log)
        server.endpoint.send_states(sessions, rows(len(sessions), tick, size=size))
        network.run(seconds=0.003)
        sent = sum(source == server.address for source, _, _ in network.log[before:])
        assert sent == len(sessions) + (len(talkers) if size == MAX_STATE_BYTES else 0)
        network.run(seconds=0.01)
        for player in players:
            assert states(player)[-1][0] == tick
        for player in talkers:
            assert player.session("server").states_unacknowledged == 0


def test_what_a_session_may_not_send_yet_waits_in_it_and_is_superseded() -> None:
    network, server, players, sessions = crowd(3, config=UdpConfig(max_flight_datagrams=2))
    network.drop = lambda _datagram, source, _target: source == players[1].address
    for tick in range(6):
        server.endpoint.send_states(sessions, rows(3, tick))
        network.run(seconds=0.05)
    assert [session.states_waiting for session in sessions] == [0, 1, 0]
    assert [session.statistics().states_superseded for session in sessions] == [0, 3, 0]
    network.drop = lambda _datagram, _source, _target: False
    network.run(seconds=5)
    assert [len(states(player)) for player in players] == [6, 3, 6]
    assert states(players[1])[-1][0] == 5


def test_a_session_that_is_over_is_passed_over_and_the_others_get_theirs() -> None:
    network, server, players, sessions = crowd(3)
    sessions[0].close()
    server.endpoint.send_states(sessions, rows(3, 0))
    network.run(seconds=1)
    sessions[1].close()
    network.run(seconds=1)
    server.endpoint.send_states(sessions, rows(3, 1))
    network.run(seconds=1)
    assert [len(states(player)) for player in players] == [0, 1, 2]


def test_states_given_to_a_crowd_are_withdrawn_and_superseded_as_others_are() -> None:
    network, server, players, sessions = crowd(3)
    server.endpoint.send_states(sessions, rows(3, 0))
    assert [session.states_waiting for session in sessions] == [1, 1, 1]
    sessions[0].drop_states()
    sessions[1].send_state(b"newer")
    server.endpoint.part_states()
    assert [session.states_waiting for session in sessions] == [0, 1, 1]
    server.endpoint.send_states(sessions[2:], rows(1, 1))
    network.run(seconds=1)
    assert states(players[0]) == []
    assert states(players[1]) == [b"newer"]
    assert [payload[0] for payload in states(players[2])] == [1]
    assert [session.statistics().states_superseded for session in sessions] == [1, 1, 1]


def test_what_is_no_crowd_with_a_state_for_each_is_refused_and_nothing_is_sent() -> None:
    network, server, players, sessions = crowd(2)
    stranger = players[0].session("server")
    give = server.endpoint.send_states
    bad: list[tuple[list[Session], Any, int, type[Exception]]] = [
        (sessions, rows(1, 0), 0, ConfigurationError),
        ([sessions[0], sessions[0]], rows(2, 0), 0, ConfigurationError),
        ([sessions[0], stranger], rows(2, 0), 0, ConfigurationError),
        (sessions, [b"0", b"1"], 0, ConfigurationError),
        (sessions, np.zeros((2, 8)), 0, ConfigurationError),
        (sessions, rows(2, 0, size=MAX_STATE_BYTES + 1), 0, LimitExceededError),
        (sessions, rows(2, 0), -1, LimitExceededError),
        (sessions, rows(2, 0), UdpConfig().max_state_streams, LimitExceededError),
    ]
    for given, payloads, stream, error in bad:
        with pytest.raises(error):
            give(given, payloads, stream)
    assert give([], rows(0, 0)).tolist() == []
    before = len(network.log)
    network.run(seconds=0.01)
    assert len(network.log) == before
    assert give(sessions, rows(2, 0)).tolist() == [0, 0]


def test_in_a_signed_session_the_states_of_a_crowd_are_proven() -> None:
    network, server, players, sessions = crowd(3, config=UdpConfig(signed=True))
    with pytest.raises(LimitExceededError):
        server.endpoint.send_states(sessions, rows(3, 0, size=sessions[0].max_state_bytes + 1))
    server.endpoint.send_states(sessions, rows(3, 0))
    network.run(seconds=1)
    assert [payload[1] for player in players for payload in states(player)] == [0, 1, 2]
    assert server.endpoint.statistics().signatures_made == 1
