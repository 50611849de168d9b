"""Which entities are nearest to each of many players. Pure, whole arrays, no loop per entity or per player.

Entities are sorted by cells of the ground plane, so that those of neighbouring cells of one row lie in one
run; a table of sums tells how many are in any rectangle of cells. For each player the smallest square of
cells with enough entities bounds how far the farthest of the nearest can be, and only runs within that are
looked at. Rejected: all pairs (a thousand players and 100,000 entities are 10^8 distances), and a tree, which
has to be built anew each tick and is walked entity by entity.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bridge.errors import ConfigurationError
from bridge.replication.world import Floats

MAX_CELLS: Final = 1 << 16
"""cells of a grid: their numbers sort as 16 bits, in one pass over the entities"""
_AT_ONCE: Final = 1 << 18
"""distances in one matrix: as many as a core's cache holds"""

_OUT_OF_ANY_WORLD: Final = 1e100
"""metres; squares of more than that are no numbers"""
_ROUNDING: Final = 1e-12
"""of a coordinate: some thousand times what doubles are off"""

Indices = npt.NDArray[np.intp]


class NearestGrid:
    """Entities where they are now; made anew when they have moved.

    Exact in any world, but for rounding; fast in one that is wide rather than high, and whose outermost
    entities are not far outside of all others.

    Args:
        positions: metres, shape (n, 3); the first two axes are the ground plane.
        side: metres of a cell; best where the entities wanted fill ten to fifty cells. Larger where the world
            would have more than ``MAX_CELLS``.

    Raises:
        ConfigurationError: no side, or a position that is no number or out of any world.
    """

    def __init__(self, positions: Floats, *, side: float) -> None:
        if not 0 < side < np.inf:
            raise ConfigurationError(f"a cell has a side of some metres, not {side}")
        _check_places(positions)
        x, y, _ = columns = np.ascontiguousarray(positions.T, dtype=np.float64)
        self._count = len(x)
        if not self._count:
            return
        self._low, high = columns.min(axis=1), columns.max(axis=1)
        self._heights = self._low[2], high[2]
        self._largest = float(np.abs(columns).max())
        extent = high[:2] - self._low[:2]
        self._side = side
        while np.prod(extent // self._side + 1) > MAX_CELLS:
            self._side *= 2
        across, down = (extent // self._side).astype(np.intp) + 1
        self._shape = across, down
        cells = self._cells(y, 1) * across + self._cells(x, 0)
        self._order = np.argsort(cells.astype(np.uint16), kind="stable")
        self._sorted = columns.take(self._order, axis=1)
        counts = np.bincount(cells, minlength=across * down)
        self._starts = np.append(0, np.cumsum(counts))
        self._sums = np.zeros((down + 1, across + 1), dtype=np.intp)
        self._sums[1:, 1:] = counts.reshape(down, across).cumsum(axis=0).cumsum(axis=1)

    def nearest(self, viewers: Floats, count: int, *, divide: int | None = None) -> Indices:
        """The nearest ``count`` entities to each viewer, or all there are.

        Args:
            viewers: metres, shape (m, 3).
            count: above zero.
            divide: the first so many of a row are no farther than the others.

        Returns:
            Indices into ``positions``, shape (m, min(count, n)), beside ``divide`` in no order.

        Raises:
            ConfigurationError: a viewer who is out of any world.
        """
        _check_places(viewers)
        count = min(count, self._count)
        found = np.empty((len(viewers), count), dtype=np.intp)
        if not found.size:
            return found
        last = sorted({count - 1, min(divide or count, count) - 1})
        begins, lengths, rows = self._runs(viewers, self._reach(viewers, count))
        first = np.cumsum(rows) - rows
        candidates = np.add.reduceat(lengths, first)
        # Those with as many candidates together, so that a matrix of them is nearly full.
        order = np.argsort(-candidates, kind="stable")
        done = 0
        while done < len(order):
            who = order[done : done + max(1, _AT_ONCE // int(candidates[order[done]]))]
            runs = _concatenated(first[who], rows[who])
            among = _concatenated(begins[runs], lengths[runs])
            found[who] = self._nearest_among(viewers[who], among, candidates[who], last)[:, :count]
            done += len(who)
        return found

    def _nearest_among(self, viewers: Floats, among: Indices, counts: Indices, last: list[int]) -> Indices:
        """Candidates of each viewer, one viewer's after another's, parted at the places ``last``."""
        squares = np.zeros(len(among))
        for own, theirs in zip(self._sorted, viewers.T, strict=True):
            away = own.take(among)
            away -= np.repeat(theirs, counts)
            away *= away
            squares += away
        matrix = np.full((len(viewers), int(counts.max())), np.inf)
        matrix[np.arange(matrix.shape[1]) < counts[:, None]] = squares
        picked = np.argpartition(matrix, last, axis=1)[:, : last[-1] + 1]
        picked += (np.cumsum(counts) - counts)[:, None]
        return self._order.take(among.take(picked))

    def _reach(self, viewers: Floats, count: int) -> Floats:
        """Metres within which each viewer has ``count`` entities at least, shape (m,)."""
        column, row = (self._cells(viewers[:, axis], axis) for axis in (0, 1))
        too_few = np.full(len(viewers), -1)
        enough = np.full(len(viewers), max(self._shape))
        while (enough - too_few > 1).any():
            rings = (too_few + enough) // 2
            is_enough = self._inside(*self._square(column, row, rings)) >= count
            enough = np.where(is_enough, rings, enough)
            too_few = np.where(is_enough, too_few, rings)
        left, right, top, bottom = self._square(column, row, enough)
        squares = _farthest(viewers[:, 2], self._heights[0], self._heights[1]) ** 2
        for axis, (low, high) in enumerate(((left, right), (top, bottom))):
            bounds = self._low[axis] + low * self._side, self._low[axis] + (high + 1) * self._side
            squares += _farthest(viewers[:, axis], *bounds) ** 2
        # More than all that rounding can make of it, here and in the numbers of cells.
        reach: Floats = np.sqrt(squares) + _ROUNDING * (np.abs(viewers).sum(axis=1) + self._largest)
        return reach

    def _square(self, column: Indices, row: Indices, rings: Indices) -> tuple[Indices, ...]:
        """Columns and rows, first and last, of so many rings of cells around one."""
        across, down = self._shape
        return (
            np.maximum(column - rings, 0),
            np.minimum(column + rings, across - 1),
            np.maximum(row - rings, 0),
            np.minimum(row + rings, down - 1),
        )

    def _inside(self, left: Indices, right: Indices, top: Indices, bottom: Indices) -> Indices:
        sums = self._sums
        found: Indices = (
            sums[bottom + 1, right + 1] - sums[top, right + 1] - sums[bottom + 1, left] + sums[top, left]
        )
        return found

    def _runs(self, viewers: Floats, reach: Floats) -> tuple[Indices, Indices, Indices]:
        """Where among the sorted entities those within reach may be: a run for each row of cells.

        Returns:
            Begins and lengths of runs, one viewer's after another's, and how many each viewer has.
        """
        x, y = viewers[:, 0], viewers[:, 1]
        top, bottom = self._cells(y - reach, 1), self._cells(y + reach, 1)
        rows = bottom - top + 1
        owner = np.repeat(np.arange(len(viewers)), rows)
        row = _concatenated(top, rows)
        # Of a row of cells only what the circle cuts.
        south = self._low[1] + row * self._side
        beside = np.maximum(np.maximum(south - y[owner], y[owner] - south - self._side), 0.0)
        half = np.sqrt(np.maximum(reach[owner] ** 2 - beside**2, 0.0))
        left, right = self._cells(x[owner] - half, 0), self._cells(x[owner] + half, 0)
        begins = self._starts[row * self._shape[0] + left]
        return begins, self._starts[row * self._shape[0] + right + 1] - begins, rows

    def _cells(self, values: Floats, axis: int) -> Indices:
        """Number of the column (axis 0) or row (axis 1) of cells, the outermost for what is outside."""
        inside = np.clip((values - self._low[axis]) // self._side, 0, self._shape[axis] - 1)
        cells: Indices = inside.astype(np.intp)
        return cells


def _check_places(places: Floats) -> None:
    if not (np.abs(places) < _OUT_OF_ANY_WORLD).all():
        raise ConfigurationError("a position is no number, or out of any world: leave that one out")


def _farthest(values: Floats, low: Floats | float, high: Floats | float) -> Floats:
    """From each value to the farther of two bounds."""
    farther: Floats = np.maximum(np.abs(values - low), np.abs(values - high))
    return farther


def _concatenated(begins: Indices, lengths: Indices) -> Indices:
    """``begins[0], begins[0] + 1, …``, so many as ``lengths[0]``, then those of the next."""
    ends = np.cumsum(lengths)
    found: Indices = np.arange(ends[-1]) + np.repeat(begins - (ends - lengths), lengths)
    return found
