"""The order and the portions of what is written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.dist.outbox import LARGE, PORTION, Address, Outbox
from bridge.etf import Atom, Pid, Reference

_P = Pid(Atom("b@h"), 1, 0, 5)
_Q = Pid(Atom("b@h"), 2, 0, 5)
_NAME = Atom("name")
_ALIAS = Reference(Atom("b@h"), 5, (1, 2, 3))


def _fragments(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Tag, sequence and number of each fragment, and what it brings."""
    found = []
    while data:
        size = 4 + int.from_bytes(data[:4], "big")
        packet, data = data[4:size], data[size:]
        numbers = int.from_bytes(packet[2:10], "big"), int.from_bytes(packet[10:18], "big")
        assert packet[0] == 131
        found.append((packet[1], *numbers, packet[18:]))
    return found


@given(st.integers(LARGE + 1, 5 * LARGE + 3))
def test_a_large_message_is_cut_into_fragments_that_count_down_to_one(size: int) -> None:
    outbox = Outbox()
    payload = bytes(range(256)) * (size // 256 + 1)
    payload = payload[:size]
    outbox.put_large(b"control", payload, None)
    found = _fragments(b"".join(outbox.take(None)))
    count = -(-size // LARGE)
    assert [(tag, sequence, number) for tag, sequence, number, _ in found] == [
        (69 if number == count else 70, 1, number) for number in range(count, 0, -1)
    ]
    first, *rest = [data for *_, data in found]
    assert first.startswith(b"\0control")
    assert first[8:] + b"".join(rest) == payload
    assert not outbox.waiting
    assert outbox.bytes_at_once == 0


def test_small_messages_go_before_a_portion_of_a_large_one() -> None:
    outbox = Outbox()
    outbox.put_large(b"", bytes(3 * PORTION), None)
    assert outbox.bytes_at_once == PORTION
    outbox.put(b"small")
    assert outbox.take(0) == [b"small"]
    portions = 0
    while outbox.waiting:
        outbox.put(b"small")
        small, portion = outbox.take()
        assert small == b"small"
        assert PORTION <= len(portion) < PORTION + 1_000
        portions += 1
    assert portions == 3
    assert outbox.take() == []


def test_large_messages_go_one_after_another() -> None:
    outbox = Outbox()
    for _ in range(3):
        outbox.put_large(b"", bytes(LARGE + 1), None)
    found = _fragments(b"".join(outbox.take(None)))
    assert [(sequence, number) for _, sequence, number, _ in found] == [
        (1, 2), (1, 1), (2, 2), (2, 1), (3, 2), (3, 1),
    ]  # fmt: skip


def test_a_message_waits_for_a_large_one_to_the_same_process() -> None:
    addresses: list[Address] = [_P, _Q, _NAME, Atom("other"), _ALIAS]
    for held in addresses:
        outbox = Outbox()
        outbox.put_large(b"", bytes(LARGE + 1), held)
        for to in addresses:
            # A pid, a name and an alias may be one process.
            assert outbox.must_wait(to) == (to == held or type(to) is not type(held))


def test_what_waits_behind_a_large_message_is_waited_for_too() -> None:
    outbox = Outbox()
    outbox.put_large(b"", bytes(LARGE + 1), _P)
    outbox.put_behind(b"behind", _P)
    outbox.put_behind(b"behind", _P)
    written = b""
    for _ in range(4):
        assert outbox.must_wait(_P)
        written += b"".join(outbox.take(1))
    assert written.endswith(b"behindbehind")
    assert not outbox.must_wait(_P)
    assert not outbox.waiting


def test_what_later_messages_may_overtake_holds_nobody_up() -> None:
    outbox = Outbox()
    outbox.put_large(b"", bytes(LARGE + 1), None)
    assert not outbox.must_wait(_P)


def test_nothing_waits_after_the_end() -> None:
    outbox = Outbox()
    outbox.put_large(b"", bytes(LARGE + 1), _P)
    outbox.put(b"last word")
    outbox.clear()
    assert outbox.take() == [b"last word"]
    assert not outbox.must_wait(_P)
