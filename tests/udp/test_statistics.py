from __future__ import annotations

from bridge.udp.events import StateReceived
from bridge.udp.statistics import DropReason
from tests.support.datagrams import connected_pair


def test_what_one_side_counts_as_sent_the_other_counts_as_received() -> None:
    network, a, b = connected_pair()
    for n in range(20):
        a.session("b").send_state(bytes([n]))
        network.run(seconds=0.05)
    network.run(until=lambda: len(b.of_type(StateReceived)) == 20)
    network.run(seconds=1)
    sent, received = a.session("b").statistics(), b.session("a").statistics()
    assert sent.datagrams_sent == received.datagrams_received
    assert sent.bytes_sent == received.bytes_received
    assert sent.datagrams_lost == 0
    assert sent.rtt is not None
    assert sent.rtt_minimum is not None
    assert 0.009 < sent.rtt_minimum <= sent.rtt < 0.012
    assert a.endpoint.statistics().datagrams_sent == b.endpoint.statistics().datagrams_received


def test_drops_are_counted_by_reason_and_datagrams_by_number() -> None:
    network, a, _ = connected_pair()
    before = a.endpoint.statistics()
    for junk in (b"", b"junk", bytes([0x40]) + bytes(60)):
        network.inject(junk, ("198.51.100.7", 7), a)
    after = a.endpoint.statistics()
    assert after.datagrams_received - before.datagrams_received == 3
    assert after.drops == {DropReason.MALFORMED: 2, DropReason.UNKNOWN_CONNECTION: 1}
