"""Messages in fragments, and the limits of what is held."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.dist.fragments import Assembler, FragmentedMessage
from bridge.errors import DecodeError, LimitExceededError
from bridge.etf import DEFAULT_LIMITS, Atom, TermLimits, encode_bare


def _assembler(**limits: int) -> Assembler:
    options = {"max_message_bytes": 1_000, "max_sequences": 4, "max_held_bytes": 2_000}
    return Assembler(**(options | limits))


def _message(fragment: int, data: bytes, limits: TermLimits = DEFAULT_LIMITS) -> FragmentedMessage:
    return FragmentedMessage("control", (Atom("cached"),), fragment, data, limits)


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


_TERMS: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.integers(0, 300), st.binary(max_size=80), st.just(Atom("a"))),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.lists(inner, max_size=4).map(tuple)),
    max_leaves=12,
)


@given(st.lists(_TERMS, min_size=1, max_size=4), st.integers(1, 30), st.randoms(use_true_random=False))
def test_payloads_cut_anywhere_and_mixed_come_together(terms: list[Any], size: int, random: Any) -> None:
    assembler = _assembler()
    queues = [_cut(encode_bare(term), size) for term in terms]
    starts = [len(queue) for queue in queues]
    seen: dict[int, Any] = {}
    while any(queues):
        sequence = random.choice([index for index, queue in enumerate(queues) if queue])
        queue = queues[sequence]
        number = len(queue)
        data = queue.pop(0)
        if number == starts[sequence]:
            whole = assembler.start(sequence, _message(number, data))
        else:
            whole = assembler.add(sequence, number, memoryview(data))
        if whole is not None:
            assert whole.size == len(encode_bare(terms[sequence]))
            seen[sequence] = whole.payload_untrusted()
    assert [seen[index] for index in range(len(terms))] == terms
    assert (len(assembler), assembler.held_bytes) == (0, 0)


@pytest.mark.parametrize("head", [(), (1,), (Atom("ok"), [2]), ((3, b"x"), b"y")])
def test_a_large_binary_at_the_end_of_tuples_is_itself_and_has_its_length(head: tuple[Any, ...]) -> None:
    term: Any = (*head, (Atom("inner"), bytes(range(250)) * 2))
    data = encode_bare(term)
    first, *rest = _cut(data, 100)
    for change in (-1, 0, 1):
        assembler = _assembler()
        message = _message(len(rest) + 1, first)
        assert message.expected == len(data)
        assert assembler.start(1, message) is None
        assert assembler.held_bytes == len(data)
        for number in range(len(rest), 1, -1):
            assembler.add(1, number, memoryview(rest[-number]))
        last = memoryview((rest[-1] + b"+")[: len(rest[-1]) + change])
        if change > 0:
            with pytest.raises(DecodeError, match=f"of {len(data)} bytes comes with {len(data) + 1}"):
                assembler.add(1, 1, last)
            continue
        whole = assembler.add(1, 1, last)
        assert whole is message
        assert assembler.held_bytes == 0
        if change:
            with pytest.raises(DecodeError, match=f"of {len(data)} bytes came with {len(data) - 1}"):
                message.payload_untrusted()
        else:
            assert message.payload_untrusted() == term


def test_a_binary_that_is_announced_counts_before_it_comes() -> None:
    for size, passes in ((994, True), (995, True), (996, False)):
        announced = encode_bare(bytes(size))[:10]
        if passes:
            assert _assembler().start(1, _message(2, announced)) is None
        else:
            with pytest.raises(LimitExceededError, match="max_packet_bytes"):
                _assembler().start(1, _message(2, announced))
    assembler = _assembler(max_held_bytes=1_999)
    assembler.start(1, _message(2, encode_bare(bytes(995))[:10]))
    with pytest.raises(LimitExceededError, match="max_held_bytes"):
        assembler.start(2, _message(2, encode_bare(bytes(995))[:10]))


def test_references_to_atoms_count_in_every_fragment() -> None:
    data = b"\x68\x02R\x00" + encode_bare(bytes(50))
    message = _message(2, data[:20])
    message.add(memoryview(data[20:]))
    assert message.payload_untrusted() == (Atom("cached"), bytes(50))
    listed = b"\x6c\x00\x00\x00\x02R\x00" + encode_bare(bytes(50)) + b"j"
    message = _message(2, listed[:20])
    message.add(memoryview(listed[20:]))
    assert message.payload_untrusted() == [Atom("cached"), bytes(50)]


@pytest.mark.parametrize("data", [b"", b"\x68", b"\x68\x02", b"\x6d\x00", b"\x68\x02\xff", b"\x68\x01\x6d"])
def test_a_first_fragment_that_ends_anywhere_is_waited_for(data: bytes) -> None:
    message = _message(2, data)
    message.add(memoryview(b""))
    with pytest.raises(DecodeError):
        message.payload_untrusted()


def test_nested_tuples_are_followed_no_deeper_than_terms_may_be() -> None:
    data = b"\x68\x01" * 40 + encode_bare(bytes(100))
    for depth, passes in ((39, False), (40, True), (41, True)):
        message = _message(2, data[:90], TermLimits(max_depth=depth))
        message.add(memoryview(data[90:]))
        if passes:
            value = message.payload_untrusted()
            for _ in range(40):
                (value,) = value
            assert value == bytes(100)
        else:
            with pytest.raises(LimitExceededError, match="max_depth"):
                message.payload_untrusted()


def test_what_follows_a_payload_is_refused() -> None:
    message = _message(2, b"jj"[:1])
    message.add(memoryview(b"j"))
    with pytest.raises(DecodeError, match="follow"):
        message.payload_untrusted()


def test_fragments_out_of_turn_are_refused() -> None:
    assembler = _assembler()
    with pytest.raises(DecodeError, match="counted down"):
        assembler.start(1, _message(0, b"j"))
    with pytest.raises(DecodeError, match="did not start"):
        assembler.add(1, 1, memoryview(b"j"))
    assert assembler.start(1, _message(3, b"l")) is None
    with pytest.raises(DecodeError, match="starts again"):
        assembler.start(1, _message(3, b"l"))
    for fragment in (3, 1, 0):
        with pytest.raises(DecodeError, match="where 2 belongs"):
            assembler.add(1, fragment, memoryview(b""))
    assembler.clear()
    assert (len(assembler), assembler.held_bytes) == (0, 0)


def test_a_message_may_have_so_many_bytes_and_no_more() -> None:
    for size, passes in ((999, True), (1_000, True), (1_001, False)):
        assembler = _assembler()
        assert assembler.start(1, _message(2, bytes(500))) is None
        if passes:
            assert assembler.add(1, 1, memoryview(bytes(size - 500))) is not None
        else:
            with pytest.raises(LimitExceededError, match="max_packet_bytes=1000"):
                assembler.add(1, 1, memoryview(bytes(size - 500)))
    with pytest.raises(LimitExceededError, match="max_packet_bytes"):
        _assembler().start(1, _message(1, bytes(1_001)))


def test_a_number_of_fragments_that_no_message_can_have_is_refused_at_once() -> None:
    assert _assembler().start(1, _message(991, bytes(10))) is None
    with pytest.raises(LimitExceededError, match="max_packet_bytes"):
        _assembler().start(1, _message(992, bytes(10)))


def test_so_many_sequences_are_held_and_no_more() -> None:
    assembler = _assembler()
    for sequence in range(4):
        assert assembler.start(sequence, _message(2, b"j")) is None
    assert assembler.start(9, _message(1, b"j")) is not None  # whole at once, so never held
    with pytest.raises(LimitExceededError, match="max_sequences=4"):
        assembler.start(4, _message(2, b"j"))


@pytest.mark.parametrize(("size", "passes"), [(99, True), (100, True), (101, False)])
def test_held_bytes_count_over_all_sequences(size: int, passes: bool) -> None:
    assembler = _assembler(max_held_bytes=1_000)
    assembler.start(1, _message(3, bytes(500)))
    assembler.start(2, _message(3, bytes(400)))
    if passes:
        assembler.add(1, 2, memoryview(bytes(size)))
        assert assembler.held_bytes == 900 + size
    else:
        with pytest.raises(LimitExceededError, match="max_held_bytes=1000"):
            assembler.add(1, 2, memoryview(bytes(size)))
