from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.udp.config import UdpConfig
from bridge.udp.keys import Aead, derive_session_keys
from bridge.udp.lone import LONE_BYTES, LONE_HEAD, Lone, seal_lone
from bridge.udp.session import Session
from bridge.udp.stamps import stamp_of
from bridge.udp.wire import DATA, DATA_HEADER_BYTES, MAX_DATAGRAM_BYTES, MAX_STATE_BYTES, STATE
from bridge.udp.workspace import RUN_ROWS, Workspace
from tests.support.datagrams import bare_sessions, single_datagrams

SIZES = st.integers(0, MAX_STATE_BYTES)


def alone(session: Session, *, now: float) -> list[bytes] | None:
    one = session.outbound.take_lone(stamp_of(now), now=now)
    return None if one is None else payloads([one])


def payloads(lone: list[Lone]) -> list[bytes]:
    return [datagram for datagram, _ in single_datagrams(seal_lone(lone, Workspace()))]


def together(session: Session, *, now: float) -> list[bytes]:
    return [datagram for datagram, _ in single_datagrams(session.datagrams_to_send(now=now))]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("state"), st.integers(0, 2), SIZES),
            st.tuples(st.just("reliable"), st.just(0), SIZES),
            st.tuples(st.just("unordered"), st.just(0), SIZES),
            st.tuples(st.just("ping"), st.just(0), st.just(0)),
            st.tuples(st.just("answer"), st.just(0), SIZES),
            st.tuples(st.just("pause"), st.sampled_from([1, 20, 5000]), st.just(0)),
            st.tuples(st.just("send"), st.just(0), st.just(0)),
        ),
        max_size=40,
    )
)
def test_a_lone_state_leaves_as_it_would_without_the_pass(steps: list[tuple[str, int, int]]) -> None:
    config = UdpConfig(rekey_after_datagrams=3, rekey_after=8.0, max_flight_datagrams=4, initial_rate=2e6)
    pairs = [bare_sessions(config=config), bare_sessions(config=config)]
    now = 100.0
    for verb, which, size in [*steps, ("send", 0, 0)]:
        out: list[list[bytes]] = []
        if verb == "pause":
            now += which / 1000
        for n, (session, peer) in enumerate(pairs):
            match verb:
                case "state":
                    session.send_state(bytes(size), stream=which)
                case "reliable":
                    session.send_reliable(bytes(size))
                case "unordered":
                    session.send_unordered(bytes(size))
                case "ping":
                    session.request_confirmation()
                case "answer":
                    peer.send_state(bytes(size))
                    for datagram in together(peer, now=now):
                        session.receive_datagram(datagram, session.address, now=now)
                case "send":
                    sent = alone(session, now=now) if n else None
                    out.append(together(session, now=now) if sent is None else sent)
                    for datagram in out[-1]:
                        peer.receive_datagram(datagram, peer.address, now=now)
                case _:
                    pass
        assert out[:1] == out[1:]
        assert pairs[0][0].statistics() == pairs[1][0].statistics()
        assert pairs[0][0].get_timer() == pairs[1][0].get_timer()


def test_the_pass_takes_what_a_server_sends_its_peers() -> None:
    session, _ = bare_sessions()
    session.send_state(bytes(MAX_STATE_BYTES))
    sent = alone(session, now=100.0)
    assert sent is not None
    assert [len(datagram) for datagram in sent] == [MAX_DATAGRAM_BYTES]
    assert together(session, now=100.0) == []


def test_a_session_that_is_over_sends_nothing_but_its_end() -> None:
    session, _ = bare_sessions()
    session.send_state(b"state")
    session.close()
    assert alone(session, now=100.0) is None


@given(st.lists(st.tuples(st.sampled_from([0, 5, 600, MAX_STATE_BYTES]), st.integers(0, 2**64 - 1))))
def test_each_is_sealed_with_its_own_key_and_sequence(wanted: list[tuple[int, int]]) -> None:
    # As many of one size as a run has and more, between those of all sizes.
    check_sealed(wanted + [(7, n) for n in range(RUN_ROWS + 3)] + wanted)
    check_sealed(wanted)


def check_sealed(wanted: list[tuple[int, int]]) -> None:
    lone = []
    for n, (size, sequence) in enumerate(wanted):
        keys = derive_session_keys(shared_secret=bytes(32), transcript=n.to_bytes(32, "big"))
        head = LONE_HEAD.pack(DATA, n, sequence, 1, 2, 3, STATE, 4, n, size)
        payload = (n % 256).to_bytes(1, "big") * size
        lone.append(Lone(head, payload, sequence, Aead(keys.initiator), ("192.0.2.1", n)))
    transmits = seal_lone(lone, Workspace())
    assert sorted(transmit.address[1] for transmit in transmits) == list(range(len(lone)))
    for transmit in transmits:
        head, payload, sequence, aead, address = lone[transmit.address[1]]
        datagram = bytes(transmit.payload)
        assert (len(datagram), address) == (transmit.segment, transmit.address)
        assert len(datagram) == LONE_BYTES + len(payload)
        header = datagram[:DATA_HEADER_BYTES]
        assert header + aead.open(sequence, datagram[DATA_HEADER_BYTES:], header) == head + payload
