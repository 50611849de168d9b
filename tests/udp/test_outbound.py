from __future__ import annotations

import pytest

from bridge.errors import ProtocolError
from bridge.udp.acknowledger import Acknowledger
from bridge.udp.config import UdpConfig
from bridge.udp.frames import (
    encode_ack,
)
from bridge.udp.keys import OpeningPhases, SealingPhases, derive_session_keys
from bridge.udp.outbound import Outbound
from bridge.udp.reliable import ReliableReceiver
from bridge.udp.replay import ReplayWindow
from bridge.udp.rtt import RttEstimator
from bridge.udp.sealing import Sealer
from bridge.udp.stamps import StampExchange
from bridge.udp.unordered import UnorderedReceiver
from bridge.udp.workspace import Workspace

NOW = 100.0


def outbound(config: UdpConfig | None = None, *, window: int = 1 << 18) -> Outbound:
    chosen = config or UdpConfig()
    keys = derive_session_keys(shared_secret=bytes(32), transcript=bytes(32)).initiator
    phases = SealingPhases(keys, after_datagrams=1 << 24, after_seconds=3600, now=NOW)
    rtt = RttEstimator(chosen.initial_rtt)
    return Outbound(
        chosen,
        session_id=bytes(16),
        sealer=Sealer(phases, remote_connection_id=1, workspace=Workspace()),
        stamps=StampExchange(rtt, longest=chosen.idle_timeout),
        rtt=rtt,
        address=("192.0.2.1", 1),
        remote_window=window,
        verifier=None,
        acknowledger=Acknowledger(
            chosen,
            replay=ReplayWindow(),
            reliable=ReliableReceiver(window=chosen.reliable_window_bytes),
            unordered=UnorderedReceiver(window=chosen.reliable_window_bytes),
        ),
        opening=OpeningPhases(keys),
        now=NOW,
    )


def sent(out: Outbound, *, now: float = NOW) -> int:
    out.send_frames(now=now, may_sign=True)
    return sum(transmit.datagram_count for transmit in out.drain())


def test_small_states_share_a_datagram() -> None:
    out = outbound()
    for stream in range(5):
        out.latest.put(stream, b"x" * 100)
    assert sent(out) == 1
    assert out.ledger.in_flight == 1


def test_both_kinds_of_messages_stop_where_credit_does() -> None:
    """R0-31: a sender stops at zero credit."""
    out = outbound(window=1000)
    out.messages.write_ordered(bytes(3000))
    out.messages.write_unordered(bytes(900))
    out.messages.write_unordered(bytes(900))
    assert sent(out) > 0
    assert sent(out) == 0
    assert (out.messages.reliable.available_credit, out.messages.unordered.available_credit) == (0, 100)
    assert out.probe_at(is_confirmed=True) is not None


def test_what_was_lost_goes_out_again_and_states_do_not() -> None:
    out = outbound()
    out.messages.write_ordered(b"message")
    assert sent(out) == 1
    out.latest.put(0, b"state")
    assert sent(out) == 1
    for _ in range(4):
        out.ping_wanted = True
        assert sent(out) == 1
    out.on_ack(5, 0b111, now=NOW + 1)
    assert out.ledger.lost == 2
    assert out.messages.reliable.has_pending
    assert not out.latest.waiting


def test_an_acknowledgement_of_what_was_never_sent_breaks_the_protocol() -> None:
    with pytest.raises(ProtocolError, match="never sent"):
        outbound().on_ack(0, 0, now=NOW)


def test_a_probe_asks_for_an_answer_where_there_is_nothing_to_repeat() -> None:
    out = outbound()
    assert out.probe_at(is_confirmed=True) is None
    due = out.probe_at(is_confirmed=False)
    assert due is not None
    out.probe(now=due)
    assert out.ping_wanted
    again = out.probe_at(is_confirmed=False)
    assert again is not None
    assert again - due > due - NOW


def test_a_key_that_may_not_seal_what_waits_is_exhausted() -> None:
    out = outbound(UdpConfig(max_datagrams_per_key=2, rekey_after_datagrams=1))
    assert not out.is_exhausted
    out.latest.put(0, b"x")
    out.latest.put(1, b"x")
    assert out.is_exhausted


def test_acknowledgements_leave_states_their_rate() -> None:
    out = outbound(UdpConfig(initial_rate=64e3, max_rate=64e3))
    answer = encode_ack(1 << 20, (1 << 1024) - 1)
    for tick in range(600):
        # 100 kB/s of answers to a peer that sends more than this side may.
        for _ in range(10):
            out.emit_frame(answer, now=NOW + tick / 60)
        out.latest.put(0, b"state")
        sent(out, now=NOW + tick / 60)
        assert not out.latest.waiting
