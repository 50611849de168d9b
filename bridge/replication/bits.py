"""Numbers of varying width in a string of bits, many at a time. Pure array code, no loop per number.

A *block* is one of several strings of bits that are written or read side by side, each beginning on a byte.
Columns go into every block in the same order, so that all blocks advance together.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bridge.errors import DecodeError

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

MAX_CLASS: Final = 34
"""A residual of 32-bit numbers has at most 34 bits: a longer unary prefix is no sender's."""
MAX_ORDER: Final = 15
"""of an Exp-Golomb code; 4 bits"""


def ramps(counts: Ints) -> Ints:
    """0 … counts[0]-1, 0 … counts[1]-1, and so on."""
    ends = np.cumsum(counts)
    ramp: Ints = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - counts, counts)
    return ramp


def zigzag(values: Ints) -> Ints:
    """Number 0, -1, 1, -2, … as 0, 1, 2, 3, … and so on."""
    return (values << 1) ^ (values >> 63)


def unzigzag(values: Ints) -> Ints:
    """Inverse of ``zigzag``."""
    return (values >> 1) ^ -(values & 1)


def bit_lengths(values: Ints) -> Ints:
    """Like ``int.bit_length``, of numbers from 0 to 2**53."""
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)


def best_orders(values: Ints, blocks: Ints, count: int) -> Ints:
    """The order of Exp-Golomb code that takes the fewest bits for each block's values, the lowest of equals.

    Args:
        values: not negative.
        blocks: of each value, 0 … count-1.
    """
    orders = np.arange(MAX_ORDER + 1)
    lengths = 2 * bit_lengths(values[None, :] + (1 << orders)[:, None]) - orders[:, None]
    sizes = np.stack([np.bincount(blocks, weights=row, minlength=count) for row in lengths])
    best: Ints = sizes.argmin(axis=0)
    return best


_GAP_ORDER: Final = 2
"""of the code for gaps between exceptions, which are some seats apart"""


class BitWriter:
    """Writes columns into ``count`` blocks."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._used = np.zeros(count, dtype=np.int64)
        self._pieces: list[tuple[Ints, Ints, Ints, Ints]] = []

    def put(self, blocks: Ints, values: Ints, widths: npt.ArrayLike) -> None:
        """Append numbers of 0 … 56 bits; ``blocks`` ascending."""
        widths = np.broadcast_to(np.asarray(widths, dtype=np.int64), values.shape)
        totals = np.bincount(blocks, weights=widths, minlength=self._count).astype(np.int64)
        within = np.cumsum(widths) - widths - (np.cumsum(totals) - totals)[blocks]
        self._pieces.append((blocks, values, widths, self._used[blocks] + within))
        self._used = self._used + totals

    def put_golomb(self, blocks: Ints, values: Ints, orders: Ints) -> None:
        """Append Exp-Golomb codes, each of its order: all unary prefixes first, then all suffixes.

        Prefixes together make their ends findable by one look for the ones among the bits.
        """
        shifted = values + (1 << orders)
        widths = bit_lengths(shifted) - 1
        self.put(blocks, np.ones_like(values), widths - orders + 1)
        self.put(blocks, shifted - (1 << widths), widths)

    def put_sparse(self, blocks: Ints, values: Ints) -> None:
        """Append numbers nearly all zero: how many are not, how far apart these are, what they are."""
        found = np.flatnonzero(values)
        owners = blocks[found]
        counts = np.bincount(owners, minlength=self._count)
        self.put_golomb(np.arange(self._count), counts, np.zeros_like(counts))
        places = ramps(np.bincount(blocks, minlength=self._count))[found]
        gaps = np.diff(places, prepend=-1)
        first = np.flatnonzero(np.diff(owners, prepend=-1))
        gaps[first] = places[first] + 1
        self.put_golomb(owners, gaps - 1, np.full_like(gaps, _GAP_ORDER))
        self.put_golomb(owners, values[found] - 1, np.zeros_like(gaps))

    def sizes(self) -> Ints:
        """Bits of each block so far."""
        return self._used

    def blocks(self) -> list[bytes]:
        """The bytes of each block, the last filled with zeros."""
        sizes = (self._used + 7) // 8
        ends = np.cumsum(sizes)
        starts = ends - sizes
        owners, values, widths, places = (np.concatenate(part) for part in zip(*self._pieces, strict=True))
        # A byte for each bit: a few thousand of them for a datagram, and every step is one array operation.
        bits = np.zeros(int(ends[-1]) * 8, dtype=np.uint8)
        ramp = ramps(widths)
        shifts = np.repeat(widths, widths) - 1 - ramp
        bits[np.repeat(places + starts[owners] * 8, widths) + ramp] = np.repeat(values, widths) >> shifts & 1
        data = np.packbits(bits).tobytes()
        return [data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


class BitReader:
    """Reads columns from blocks of untrusted bytes.

    Args:
        data: all blocks.
        starts: first byte of each block.
        ends: byte behind each block.
    """

    def __init__(self, data: npt.NDArray[np.uint8], starts: Ints, ends: Ints) -> None:
        self._data = np.concatenate((data, np.zeros(8, dtype=np.uint8)))
        self._ones = np.flatnonzero(np.unpackbits(data))
        self._at = starts * 8
        self._ends = ends * 8

    def get(self, blocks: Ints, widths: npt.ArrayLike) -> Ints:
        """Numbers of 0 … 56 bits; ``blocks`` ascending.

        Raises:
            DecodeError: a block has no more.
        """
        widths = np.broadcast_to(np.asarray(widths, dtype=np.int64), blocks.shape)
        totals = np.bincount(blocks, weights=widths, minlength=len(self._at)).astype(np.int64)
        at = self._at[blocks] + np.cumsum(widths) - widths - (np.cumsum(totals) - totals)[blocks]
        self._advance(self._at + totals)
        window = self._data[(at >> 3)[:, None] + np.arange(8)].view(">u8").reshape(-1).astype(np.uint64)
        window = window << (at & 7).astype(np.uint64)
        # A shift by 64 is undefined: take the top bit first.
        values: Ints = (window >> np.uint64(1) >> (63 - widths).astype(np.uint64)).astype(np.int64)
        return values

    def get_golomb(self, blocks: Ints, orders: Ints) -> Ints:
        """Inverse of ``BitWriter.put_golomb``, as many as ``blocks`` has elements.

        Raises:
            DecodeError: a block has no more, or a number is longer than any that is sent.
        """
        if not len(blocks):
            return np.zeros(0, dtype=np.int64)
        counts = np.bincount(blocks, minlength=len(self._at))
        index = np.searchsorted(self._ones, self._at)[blocks] + ramps(counts)
        if int(index.max()) >= len(self._ones):
            raise DecodeError("a state payload ends inside a number")
        marks = self._ones[index]
        before = np.concatenate(([0], marks[:-1]))
        first = np.flatnonzero(np.diff(blocks, prepend=-1))
        before[first] = self._at[blocks[first]] - 1
        classes = marks - before - 1
        if int(classes.max()) > MAX_CLASS:
            raise DecodeError("a state payload has a number of more than 34 bits")
        at = self._at.copy()
        at[blocks] = marks + 1
        self._advance(at)
        values: Ints = self.get(blocks, orders + classes) + (1 << orders + classes) - (1 << orders)
        return values

    def get_sparse(self, blocks: Ints) -> Ints:
        """Inverse of ``BitWriter.put_sparse``, as many as ``blocks`` has elements.

        Raises:
            DecodeError: a block has no more, or more numbers that are not zero than numbers.
        """
        sizes = np.bincount(blocks, minlength=len(self._at))
        counts = self.get_golomb(np.arange(len(self._at)), np.zeros(len(self._at), dtype=np.int64))
        if (counts > sizes).any():
            raise DecodeError("a state payload has more exceptions than there are seats")
        owners = np.repeat(np.arange(len(self._at)), counts)
        gaps = self.get_golomb(owners, np.full(len(owners), _GAP_ORDER)) + 1
        sums = np.cumsum(gaps)
        places = sums - np.concatenate(([0], sums))[np.cumsum(counts) - counts][owners] - 1
        if (places >= sizes[owners]).any():
            raise DecodeError("a state payload has an exception behind the last seat")
        values = np.zeros(len(blocks), dtype=np.int64)
        values[(np.cumsum(sizes) - sizes)[owners] + places] = (
            self.get_golomb(owners, np.zeros(len(owners), dtype=np.int64)) + 1
        )
        return values

    def finish(self) -> None:
        """The blocks end here.

        Raises:
            DecodeError: there is more than the zeros that fill a byte.
        """
        rest = self._ends - self._at
        if int(rest.max(initial=0)) > 7:
            raise DecodeError("a state payload has bytes behind its end")
        if self.get(np.arange(len(rest)), rest).any():
            raise DecodeError("a state payload is filled with other than zeros")

    def _advance(self, at: Ints) -> None:
        if (at > self._ends).any():
            raise DecodeError("a state payload ends inside a column")
        self._at = at
