import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import DecodeError
from bridge.replication.bits import (
    MAX_ORDER,
    BitReader,
    BitWriter,
    Ints,
    best_orders,
    bit_lengths,
    ramps,
    unzigzag,
    zigzag,
)


def ints(*values: int) -> Ints:
    return np.array(values, dtype=np.int64)


def reader(blocks: list[bytes]) -> BitReader:
    ends = np.cumsum([len(block) for block in blocks])
    starts = ends - [len(block) for block in blocks]
    return BitReader(np.frombuffer(b"".join(blocks), dtype=np.uint8), starts, ends)


numbers = st.integers(0, 2**33)
columns = st.lists(st.lists(numbers, max_size=8), min_size=1, max_size=4)


def flat(column: list[list[int]]) -> tuple[Ints, Ints]:
    owners = np.repeat(np.arange(len(column)), [len(block) for block in column])
    return owners, ints(*(value for block in column for value in block))


@given(st.integers(-(2**33), 2**33))
def test_zigzag_numbers_small_magnitudes_first(value: int) -> None:
    (folded,) = zigzag(ints(value)).tolist()
    assert folded == (2 * value if value >= 0 else -2 * value - 1)
    assert unzigzag(ints(folded)).tolist() == [value]


@given(st.lists(st.integers(0, 2**53 - 1)))
def test_bit_lengths_are_those_of_integers(values: list[int]) -> None:
    assert bit_lengths(ints(*values)).tolist() == [value.bit_length() for value in values]


@given(st.lists(st.integers(0, 9), max_size=9))
def test_ramps_count_from_zero_in_each(counts: list[int]) -> None:
    assert ramps(ints(*counts)).tolist() == [n for count in counts for n in range(count)]


@given(columns, st.integers(0, MAX_ORDER))
def test_columns_come_out_as_they_went_in(column: list[list[int]], order: int) -> None:
    owners, values = flat(column)
    orders = np.full(len(values), order)
    writer = BitWriter(len(column))
    writer.put(owners, values & 0x7F, 7)
    writer.put_golomb(owners, values, orders)
    writer.put_sparse(owners, values & 1)
    writer.put(np.arange(len(column)), np.arange(len(column)), 3)
    blocks = writer.blocks()
    assert [len(block) for block in blocks] == ((writer.sizes() + 7) // 8).tolist()
    back = reader(blocks)
    assert back.get(owners, 7).tolist() == (values & 0x7F).tolist()
    assert back.get_golomb(owners, orders).tolist() == values.tolist()
    assert back.get_sparse(owners).tolist() == (values & 1).tolist()
    assert back.get(np.arange(len(column)), 3).tolist() == list(range(len(column)))
    back.finish()


@given(st.lists(st.integers(0, 2**20), min_size=1, max_size=8))
def test_the_best_order_is_the_lowest_that_takes_the_fewest_bits(values: list[int]) -> None:
    def size(order: int) -> int:
        writer = BitWriter(1)
        writer.put_golomb(np.zeros(len(values), dtype=np.int64), ints(*values), np.full(len(values), order))
        return int(writer.sizes()[0])

    sizes = [size(order) for order in range(MAX_ORDER + 1)]
    best = best_orders(ints(*values), np.zeros(len(values), dtype=np.int64), 1)
    assert best.tolist() == [sizes.index(min(sizes))]


def test_zeros_nearly_everywhere_take_a_bit_for_the_whole_column() -> None:
    writer = BitWriter(1)
    writer.put_sparse(np.zeros(100, dtype=np.int64), np.zeros(100, dtype=np.int64))
    assert writer.sizes().tolist() == [1]


@given(st.binary(min_size=1, max_size=12), st.integers(0, 12), st.integers(0, MAX_ORDER))
def test_any_bytes_read_or_raise_decode_error(data: bytes, count: int, order: int) -> None:
    owners = np.zeros(count, dtype=np.int64)
    back = reader([data])
    try:
        back.get_sparse(owners)
        back.get_golomb(owners, np.full(count, order))
        back.get(owners, 9)
        back.finish()
    except DecodeError:
        return


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0", "ends inside a number"),
        (b"\x01", "ends inside a column"),
        (b"\0\0\0\0\x04", "more than 34 bits"),
        (b"\xff\0", "behind its end"),
        (b"\xff", "other than zeros"),
    ],
)
def test_what_no_writer_makes_is_refused(data: bytes, message: str) -> None:
    def read() -> None:
        back = reader([data])
        back.get_golomb(ints(0), ints(0))
        back.finish()

    with pytest.raises(DecodeError, match=message):
        read()


def test_a_number_does_not_reach_into_the_next_block() -> None:
    with pytest.raises(DecodeError):
        reader([b"\0", b"\x80"]).get_golomb(ints(0), ints(0))
    with pytest.raises(DecodeError):
        reader([b"\xff", b"\xff"]).get(ints(0), 9)


def test_more_exceptions_than_numbers_and_one_behind_the_last_are_refused() -> None:
    writer = BitWriter(1)
    writer.put_sparse(ints(0, 0, 0), ints(0, 0, 5))
    blocks = writer.blocks()
    assert reader(blocks).get_sparse(ints(0, 0, 0)).tolist() == [0, 0, 5]
    with pytest.raises(DecodeError, match="behind the last seat"):
        reader(blocks).get_sparse(ints(0, 0))
    with pytest.raises(DecodeError, match="more exceptions"):
        reader(blocks).get_sparse(ints())
