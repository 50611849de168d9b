from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bridge.udp.columns import Columns
from bridge.udp.config import UdpConfig
from bridge.udp.frames import (
    MAX_STATE_BYTES,
    STATE,
)
from bridge.udp.keys import Aead, derive_session_keys
from bridge.udp.latest import Matrix
from bridge.udp.lone import LONE_BYTES, LONE_HEAD, Lone, has_to_tell, may_go, seal_lone
from bridge.udp.session import Session
from bridge.udp.stamps import stamp_of
from bridge.udp.wire import (
    DATA,
    DATA_HEADER_BYTES,
    MAX_DATAGRAM_BYTES,
    NO_ECHO,
)
from bridge.udp.workspace import RUN_ROWS, RunBuffers, Sheet
from tests.support.datagrams import bare_sessions, single_datagrams

CONFIG = UdpConfig(
    rekey_after_datagrams=3, rekey_after=8.0, max_flight_datagrams=20, initial_rate=2e6, idle_timeout=1e5
)
SIZES = st.integers(0, MAX_STATE_BYTES)


def singly(session: Session, *, now: float) -> list[bytes] | None:
    one = session.outbound.seal_lone(stamp_of(now), now=now)
    return None if one is None else [bytes(one.payload)]


def alone(session: Session, *, now: float) -> list[bytes] | None:
    state = session.outbound.lone_state()
    if state is None or not isinstance(state.payload, bytes):
        return None
    lone = Lone(
        np.array([session.row.index]),
        state.stream,
        np.array([state.number]),
        np.frombuffer(state.payload, dtype=np.uint8).reshape(1, -1),
    )
    columns = session.row.columns
    if has_to_tell(lone, columns, now=now).all():
        frames = session.acknowledger.peek()
        if lone.size + len(frames) > MAX_DATAGRAM_BYTES:
            return None
        lone = lone.only(np.array([0]), [frames])
    if not may_go(lone, columns, max_flight=CONFIG.max_flight_datagrams, now=now).all():
        return None
    if lone.frames:
        session.acknowledger.told()
    session.outbound.lone_went()
    return payloads(lone, columns, now=now)


def payloads(lone: Lone, columns: Columns, *, now: float) -> list[bytes]:
    sheet = Sheet(lone.size, len(lone.rows))
    transmits = seal_lone(lone, columns, RunBuffers(lone.size), sheet, now=now)
    return [datagram for datagram, _ in single_datagrams(transmits)]


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
            st.tuples(st.just("send"), st.sampled_from([0, 0, 1]), st.just(0)),
            st.tuples(st.just("tick"), st.sampled_from([0, 0, 1]), SIZES),
            st.tuples(st.just("probe"), st.just(0), st.just(0)),
        ),
        max_size=60,
    )
)
def test_a_lone_state_leaves_as_it_would_without_the_pass(steps: list[tuple[str, int, int]]) -> None:
    """With its acknowledgement or without, lost or not: the same bytes, counters and timers at every step."""
    pairs = [bare_sessions(config=CONFIG) for _ in range(3)]
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
                        session.inbound.receive_datagram(datagram, session.address, now=now)
                case "probe":
                    session.handle_timer(now=now)
                case "send" | "tick":
                    if verb == "tick":
                        session.send_state(bytes(size))
                    sent = None
                    if n:
                        sent = (alone if n == 1 else singly)(session, now=now)
                    out.append(together(session, now=now) if sent is None else sent)
                    for datagram in () if which else out[-1]:
                        peer.inbound.receive_datagram(datagram, peer.address, now=now)
                case _:
                    pass
        assert not out or out[0] == out[1] == out[2]
        first, *others = (session for session, _ in pairs)
        for other in others:
            assert first.statistics() == other.statistics()
            assert first.get_timer() == other.get_timer()
            assert first.states_unacknowledged == other.states_unacknowledged
            assert first.acknowledged_state() == other.acknowledged_state()


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


@given(st.integers(0, MAX_STATE_BYTES), st.lists(st.integers(0, 2**62), min_size=1), st.booleans())
def test_each_is_sealed_with_its_own_key_and_sequence(size: int, wanted: list[int], aligned: bool) -> None:
    """As many as a run has and more, in any order of rows."""
    sequences = wanted + list(range(RUN_ROWS + 3)) if aligned else wanted
    columns = Columns()
    rows = np.array([columns.take() for _ in sequences])[::-1]
    aeads = []
    for n, (at, sequence) in enumerate(zip(rows.tolist(), sequences, strict=True)):
        keys = derive_session_keys(shared_secret=bytes(32), transcript=n.to_bytes(32, "big"))
        aeads.append(Aead(keys.initiator))
        columns.sequence[at], columns.connection_id[at], columns.first_byte[at] = sequence, n, DATA
        columns.ciphers[at], columns.addresses[at] = aeads[-1].cipher, ("192.0.2.1", n)
        columns.iv_head[at], columns.iv_tail[at] = aeads[-1].iv
    states: Matrix = np.random.default_rng(0).integers(0, 256, (len(rows), size), dtype=np.uint8)
    lone = Lone(rows, 4, np.arange(len(rows)), states)
    whole = LONE_BYTES + size
    transmits = seal_lone(lone, columns, RunBuffers(whole), Sheet(whole, len(rows) + 1), now=100.0)
    assert [transmit.address[1] for transmit in transmits] == list(range(len(rows)))
    for n, (transmit, aead, sequence) in enumerate(zip(transmits, aeads, sequences, strict=True)):
        head = LONE_HEAD.pack(DATA, n, sequence, stamp_of(100.0), 0, NO_ECHO, STATE, 4, n, size)
        datagram = bytes(transmit.payload)
        assert len(datagram) == transmit.segment == LONE_BYTES + size
        header = datagram[:DATA_HEADER_BYTES]
        assert (
            header + aead.open(sequence, datagram[DATA_HEADER_BYTES:], header) == head + states[n].tobytes()
        )
