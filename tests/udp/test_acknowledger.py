from __future__ import annotations

from bridge.udp.acknowledger import ACK_AT_ONCE, Acknowledger
from bridge.udp.config import UdpConfig
from bridge.udp.frames import (
    Ack,
    Credit,
    Message,
    MessageCredit,
    parse_frames_untrusted,
)
from bridge.udp.reliable import ReliableReceiver, ReliableSender
from bridge.udp.replay import ReplayWindow
from bridge.udp.unordered import UnorderedReceiver

CONFIG = UdpConfig()


class Receiving:
    """What an acknowledger tells of."""

    def __init__(self) -> None:
        self.replay = ReplayWindow()
        self.reliable = ReliableReceiver(window=CONFIG.reliable_window_bytes)
        self.unordered = UnorderedReceiver(window=CONFIG.reliable_window_bytes)
        self.acknowledger = Acknowledger(
            CONFIG, replay=self.replay, reliable=self.reliable, unordered=self.unordered
        )


def test_nothing_is_told_before_anything_came() -> None:
    assert Receiving().acknowledger.frames() == b""


def test_one_datagram_waits_for_company_until_its_time() -> None:
    acknowledger = Receiving().acknowledger
    assert not acknowledger.note(urgent=False, now=5.0)
    acknowledger.handle_timer(now=5.0 + CONFIG.max_ack_delay - 0.001)
    assert not acknowledger.is_due
    acknowledger.handle_timer(now=5.0 + CONFIG.max_ack_delay)
    assert acknowledger.is_due


def test_company_or_urgency_ends_the_wait_and_a_long_batch_is_told_of_on_the_way() -> None:
    acknowledger = Receiving().acknowledger
    acknowledger.note(urgent=True, now=5.0)
    due = [acknowledger.is_due]
    acknowledger.frames()
    due.append(acknowledger.is_due)
    acknowledger.note(urgent=False, now=5.0, count=CONFIG.acknowledge_every)
    due.append(acknowledger.is_due)
    assert due == [True, False, True]
    assert acknowledger.note(urgent=False, now=5.0, count=ACK_AT_ONCE)


def test_an_acknowledgement_rides_along_once_it_waited_a_millisecond_or_is_due() -> None:
    acknowledger = Receiving().acknowledger
    rides = [acknowledger.rides(now=5.0)]
    acknowledger.note(urgent=False, now=5.0)
    rides += [acknowledger.rides(now=now) for now in (5.0, 5.0009, 5.0011, 5.02)]
    acknowledger.frames()
    rides.append(acknowledger.rides(now=6.0))
    acknowledger.note(urgent=True, now=6.0)
    rides.append(acknowledger.rides(now=6.0))
    assert rides == [False, False, False, True, True, False, True]


def test_an_acknowledgement_names_what_came_and_the_credit_for_more() -> None:
    receiving = Receiving()
    for sequence in (0, 1, 3):
        receiving.replay.mark(sequence)
    receiving.unordered.insert(Message(0, 3, 0, b"abc"))
    assert parse_frames_untrusted(receiving.acknowledger.frames()) == [
        Ack(3, 0b110),
        Credit(0, CONFIG.reliable_window_bytes),
        MessageCredit(0, CONFIG.reliable_window_bytes),
    ]


def test_credit_is_given_back_at_once_when_half_of_it_was_used_and_taken() -> None:
    receiving = Receiving()
    sender = ReliableSender(credit=CONFIG.reliable_window_bytes, buffer_limit=1 << 20)
    told = 0
    for _ in range(4):
        sender.write(bytes(60_000))
        taken = sender.take(1 << 20)
        assert taken is not None
        receiving.reliable.insert(*taken)
        receiving.acknowledger.note(urgent=False, now=0.0)
        assert receiving.reliable.next_message() is not None
        told += receiving.acknowledger.message_taken()
    assert told == 2


def test_credit_goes_by_itself_where_the_acknowledgement_of_its_message_has_gone_already() -> None:
    """Its application may take a message after that, and nothing more may come that wants an answer."""
    receiving = Receiving()
    receiving.replay.mark(0)
    receiving.reliable.insert(0, b"\x00\x00\x00\x01a")
    receiving.acknowledger.note(urgent=False, now=0.0)
    receiving.acknowledger.frames()
    assert not receiving.acknowledger.is_due
    assert receiving.reliable.next_message() == b"a"
    assert receiving.acknowledger.message_taken()
    _, credit = parse_frames_untrusted(receiving.acknowledger.frames())
    assert credit == Credit(5, CONFIG.reliable_window_bytes + 5)
