"""Groups of seats as differences from an older snapshot that the receiver has.

Layout in ``docs/protocol.md`` §6. A *section* tells the seats of one group that are not as in its baseline;
what has not changed, and nearly everything at rest has not, is not there at all. What moves is told as the
difference from where it is expected (``predict``), in Exp-Golomb codes of an order that each section chooses
for each field.
Source: G. Fiedler, "Snapshot Compression", 2015, for relative indices and differences of smallest threes.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bridge.errors import DecodeError
from bridge.replication.bits import MAX_ORDER, BitReader, BitWriter, Ints, best_orders, unzigzag, zigzag
from bridge.replication.predict import (
    largest_of,
    predicted_positions,
    predicted_rotations,
    standing,
    without,
)
from bridge.replication.seats import (
    COLUMNS,
    FLAGS,
    GROUP_SEATS,
    LARGEST,
    NOBODY,
    OCCUPANT,
    POSITION,
    ROTATION,
    SEEN_ROTATION_BITS,
    SPIN,
    VELOCITY,
    Rows,
)
from bridge.replication.world import EntityFlag, Floats

_SAME, _REPLACED, _EMPTIED = 0, 1, 2
"""what became of a seat's occupant"""
_COUNT_BITS: Final = GROUP_SEATS.bit_length()
_ORDER_BITS: Final = 4
_ORDERED: Final = ("velocity", "spin", "position", "rotation")
_OCCUPANT_BITS: Final = 32
_FLAGS: Final = int(EntityFlag.AT_REST | EntityFlag.GHOST | EntityFlag.TELEPORT)
_ROTATION_LIMIT: Final = (1 << (SEEN_ROTATION_BITS - 1)) - 1
_LIMITS: Final = ((POSITION, 31), (VELOCITY, 15), (SPIN, 15))
"""bits of magnitude"""

Seats = npt.NDArray[np.bool_]


class FieldBits(NamedTuple):
    """Bits that sections took, by field; for benchmarks."""

    seats: int
    occupants: int
    flags: int
    velocity: int
    angular_velocity: int
    position: int
    rotation: int


class Differences(NamedTuple):
    """What sections say, as whole numbers that are not negative, before it becomes bits.

    Attributes:
        told: which seats, shape (k, GROUP_SEATS).
        owner: section of each seat told, shape (n,); ``seat`` and ``kinds`` are of that shape.
        live: section of each seat that is taken now, shape (m,); ``flags`` and ``turned`` are of that shape.
        new: section of each occupant that was not in the baseline; ``occupants`` is of that shape.
        fields: by name, section of each vector, shape (j,), and the vectors, shape (j, 3).
    """

    told: Seats
    owner: Ints
    seat: Ints
    kinds: Ints
    live: Ints
    flags: Ints
    turned: Ints
    new: Ints
    occupants: Ints
    fields: dict[str, tuple[Ints, Ints]]


def differences(now: Rows, base: Rows, told: Seats, *, ages: Ints, rate: int) -> Differences:
    """What to say of groups; arguments as of ``encode_sections``."""
    owner, seat = np.nonzero(told)
    after, before = now[owner, seat].astype(np.int64), base[owner, seat].astype(np.int64)
    kinds = _kinds(after, before)
    live = kinds != _EMPTIED
    owner_live, kinds_live, age = owner[live], kinds[live], ages[owner[live]]
    after, before = after[live], _expected(before[live], kinds_live)
    moving = after[:, FLAGS] & EntityFlag.AT_REST == 0
    new = kinds_live == _REPLACED
    rotations = _expected_rotations(after, before, kinds_live, age, rate)
    fields = {
        "velocity": (after - before)[moving, VELOCITY],
        "spin": (after - before)[moving, SPIN],
        "position": _position_differences(after, before, owner_live, kinds_live, age, rate),
        "rotation": after[:, ROTATION] - without(rotations, after[:, LARGEST]),
    }
    return Differences(
        told=told,
        owner=owner,
        seat=seat,
        kinds=kinds,
        live=owner_live,
        flags=after[:, FLAGS] ^ before[:, FLAGS],
        turned=(after[:, LARGEST] - largest_of(rotations)) & 3,
        new=owner_live[new],
        occupants=after[new, OCCUPANT] & 0xFFFFFFFF,
        fields={
            name: (owner_live if len(values) == len(after) else owner_live[moving], zigzag(values))
            for name, values in fields.items()
        },
    )


def encode_sections(
    now: Rows, base: Rows, told: Seats, *, ages: Ints, rate: int
) -> tuple[list[bytes], FieldBits]:
    """Bodies of sections, one for each group given.

    Args:
        now: rows of the groups, shape (k, GROUP_SEATS, 15).
        base: of the snapshots to differ from, of the same shape; empty seats where there is none.
        told: which seats to tell, shape (k, GROUP_SEATS).
        ages: ticks from the baselines to now, shape (k,).
        rate: ticks a second.
    """
    said = differences(now, base, told, ages=ages, rate=rate)
    count = len(told)
    writer = BitWriter(count)
    sizes = [0]

    def done() -> None:
        sizes.append(int(writer.sizes().sum()))

    every = np.arange(count)
    changed = told.sum(axis=1)
    writer.put(every, changed, _COUNT_BITS)
    orders = {name: _orders(*said.fields[name], count) for name in _ORDERED}
    all_orders = np.concatenate([orders[name] for name in _ORDERED], axis=1).reshape(-1)
    writer.put_golomb(np.repeat(every, 3 * len(_ORDERED)), all_orders, np.zeros_like(all_orders))
    gaps = _gaps(said.owner, said.seat)
    gap_orders = best_orders(gaps, said.owner, count)
    writer.put(every, gap_orders, _ORDER_BITS)
    writer.put_golomb(said.owner, gaps, gap_orders[said.owner])
    done()
    writer.put_sparse(said.owner, said.kinds)
    writer.put(said.new, said.occupants, _OCCUPANT_BITS)
    done()
    writer.put_sparse(said.live, said.flags)
    done()
    for name in ("velocity", "spin", "position"):
        _put_vectors(writer, *said.fields[name], orders[name])
        done()
    writer.put_sparse(said.live, said.turned)
    _put_vectors(writer, *said.fields["rotation"], orders["rotation"])
    done()
    return writer.blocks(), FieldBits(*np.diff(sizes).tolist())


def decode_sections_untrusted(
    data: npt.NDArray[np.uint8], starts: Ints, ends: Ints, base: Rows, *, ages: Ints, rate: int
) -> tuple[Rows, Seats]:
    """Inverse of ``encode_sections``.

    Args:
        data: bytes that hold all bodies.
        starts: first byte of each body.
        ends: byte behind each body.
        base: as it was given to the encoder.

    Returns:
        Rows of the groups: as in their baselines where nothing was told; and which seats were told.

    Raises:
        DecodeError: no encoder makes this.
    """
    count = len(starts)
    reader = BitReader(data, starts, ends)
    every = np.arange(count)
    changed = reader.get(every, _COUNT_BITS)
    if int(changed.max(initial=0)) > GROUP_SEATS:
        raise DecodeError("a section tells more seats than a group has")
    sections = np.repeat(every, 3 * len(_ORDERED))
    all_orders = reader.get_golomb(sections, np.zeros_like(sections)).reshape(count, -1, 3)
    if int(all_orders.max(initial=0)) > MAX_ORDER:
        raise DecodeError(f"a section has a code of an order above {MAX_ORDER}")
    orders = {name: all_orders[:, index] for index, name in enumerate(_ORDERED)}
    told = _get_seats(reader, changed, reader.get(every, _ORDER_BITS))
    owner, seat = np.nonzero(told)
    before = base[owner, seat].astype(np.int64)
    kinds = reader.get_sparse(owner)
    if (kinds > _EMPTIED).any() or ((kinds != _REPLACED) & (before[:, FLAGS] == NOBODY)).any():
        raise DecodeError("a section changes a seat that its baseline does not have")
    live = kinds != _EMPTIED
    owner_live, kinds_live = owner[live], kinds[live]
    age, before = ages[owner_live], _expected(before[live], kinds_live)
    after = np.zeros((len(before), COLUMNS), dtype=np.int64)
    new = kinds_live == _REPLACED
    after[:, OCCUPANT] = before[:, OCCUPANT]
    # 32 bits as a signed number, as rows keep them.
    occupants = reader.get(owner_live[new], np.full(int(new.sum()), _OCCUPANT_BITS))
    after[new, OCCUPANT] = occupants - ((occupants >> 31) << 32)
    differing = reader.get_sparse(owner_live)
    if int(differing.max(initial=0)) > _FLAGS:
        raise DecodeError("a section has unknown flags")
    after[:, FLAGS] = before[:, FLAGS] ^ differing
    moving = after[:, FLAGS] & EntityFlag.AT_REST == 0
    for field, columns in (("velocity", VELOCITY), ("spin", SPIN)):
        told_here = unzigzag(_get_vectors(reader, owner_live[moving], orders[field]))
        after[moving, columns] = before[moving, columns] + told_here
    told_here = unzigzag(_get_vectors(reader, owner_live, orders["position"]))
    after[:, POSITION] = _positions(told_here, after, before, owner_live, kinds_live, age, rate)
    for columns, bits in _LIMITS:
        if ((after[:, columns] >> bits) + 1 & ~1).any():
            raise DecodeError("a section leads out of the range of a field")
    rotations = _expected_rotations(after, before, kinds_live, age, rate)
    turned = reader.get_sparse(owner_live)
    if int(turned.max(initial=0)) > 3:
        raise DecodeError("a quaternion has four components")
    after[:, LARGEST] = (largest_of(rotations) + turned) & 3
    told_here = unzigzag(_get_vectors(reader, owner_live, orders["rotation"]))
    after[:, ROTATION] = without(rotations, after[:, LARGEST]) + told_here
    if (np.abs(after[:, ROTATION]) > _ROTATION_LIMIT).any():
        raise DecodeError("a section leads out of the range of a rotation")
    reader.finish()
    rows = base.copy()
    rows[owner[live], seat[live]] = after
    gone = np.zeros(COLUMNS, dtype=np.int32)
    gone[FLAGS] = NOBODY
    rows[owner[~live], seat[~live]] = gone
    return rows, told


def _orders(owner: Ints, vectors: Ints, count: int) -> Ints:
    """For each section and axis: what lies on a floor hardly moves along one of them."""
    axes = (owner[:, None] * 3 + np.arange(3)).reshape(-1)
    return best_orders(vectors.reshape(-1), axes, count * 3).reshape(count, 3)


def _put_vectors(writer: BitWriter, owner: Ints, vectors: Ints, orders: Ints) -> None:
    writer.put_golomb(np.repeat(owner, 3), vectors.reshape(-1), orders[owner].reshape(-1))


def _get_vectors(reader: BitReader, owner: Ints, orders: Ints) -> Ints:
    return reader.get_golomb(np.repeat(owner, 3), orders[owner].reshape(-1)).reshape(-1, 3)


def _gaps(owner: Ints, seat: Ints) -> Ints:
    gaps = np.diff(seat, prepend=-1) - 1
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    gaps[first] = seat[first]
    return gaps


def _get_seats(reader: BitReader, changed: Ints, orders: Ints) -> Seats:
    owner = np.repeat(np.arange(len(changed)), changed)
    steps = reader.get_golomb(owner, orders[owner]) + 1
    sums = np.cumsum(steps)
    seat = sums - np.concatenate(([0], sums))[np.cumsum(changed) - changed][owner] - 1
    if int(seat.max(initial=0)) >= GROUP_SEATS:
        raise DecodeError("a section tells a seat that no group has")
    told = np.zeros((len(changed), GROUP_SEATS), dtype=bool)
    told[owner, seat] = True
    return told


def _kinds(after: Ints, before: Ints) -> Ints:
    kinds = np.full(len(after), _SAME)
    kinds[(before[:, FLAGS] == NOBODY) | (after[:, OCCUPANT] != before[:, OCCUPANT])] = _REPLACED
    kinds[after[:, FLAGS] == NOBODY] = _EMPTIED
    return kinds


def _expected(before: Ints, kinds: Ints) -> Ints:
    """Who is new has stood still at the origin, unturned."""
    before[kinds == _REPLACED] = 0
    before[kinds == _REPLACED, LARGEST] = 3
    return before


def _coasting(after: Ints, before: Ints, kinds: Ints) -> Seats:
    coasting: Seats = (kinds == _SAME) & ((after[:, FLAGS] ^ before[:, FLAGS]) & EntityFlag.TELEPORT == 0)
    return coasting


def _position_differences(after: Ints, before: Ints, owner: Ints, kinds: Ints, age: Ints, rate: int) -> Ints:
    differences = after[:, POSITION] - before[:, POSITION]
    coasting = _coasting(after, before, kinds)
    expected = predicted_positions(before[coasting], after[coasting, VELOCITY], age[coasting], rate)
    differences[coasting] = after[coasting, POSITION] - expected
    # Who is new is near who was new before it: neighbours come together.
    new = np.flatnonzero(kinds == _REPLACED)
    following = new[1:][np.diff(owner[new]) == 0]
    previous = new[:-1][np.diff(owner[new]) == 0]
    differences[following] -= after[previous, POSITION]
    return differences


def _positions(
    differences: Ints, after: Ints, before: Ints, owner: Ints, kinds: Ints, age: Ints, rate: int
) -> Ints:
    positions = before[:, POSITION] + differences
    coasting = _coasting(after, before, kinds)
    expected = predicted_positions(before[coasting], after[coasting, VELOCITY], age[coasting], rate)
    positions[coasting] = expected + differences[coasting]
    new = np.flatnonzero(kinds == _REPLACED)
    chain = np.cumsum(positions[new], axis=0)
    first = np.flatnonzero(np.diff(owner[new], prepend=-1))
    # What earlier sections summed up is taken off again.
    offsets = np.concatenate((np.zeros((1, 3), dtype=np.int64), chain))[first]
    lengths = np.diff(np.append(first, len(new)))
    positions[new] = chain - np.repeat(offsets, lengths, axis=0)
    return positions


def _expected_rotations(after: Ints, before: Ints, kinds: Ints, age: Ints, rate: int) -> Floats:
    rotations: Floats = standing(before)
    coasting = _coasting(after, before, kinds)
    rotations[coasting] = predicted_rotations(before[coasting], after[coasting, SPIN], age[coasting], rate)
    return rotations
