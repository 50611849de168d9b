import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import DecodeError
from bridge.replication import delta
from bridge.replication.bits import Ints
from bridge.replication.delta import Seats, decode_sections_untrusted, encode_sections
from bridge.replication.seats import (
    COLUMNS,
    FLAGS,
    GROUP_SEATS,
    LARGEST,
    POSITION,
    ROTATION,
    SPIN,
    VELOCITY,
    Rows,
    empty_rows,
    rows_of,
)
from bridge.replication.world import EntityFlag, WorldState
from tests.support.states import states, together

Taken = dict[int, tuple[int, int, WorldState]]
"""handle, epoch and state by seat"""

taken = st.dictionaries(
    st.integers(0, GROUP_SEATS - 1),
    st.tuples(st.integers(0, 65535), st.integers(0, 2**64 - 1), states()),
    max_size=6,
)


def group(seats: Taken) -> Rows:
    rows = empty_rows(GROUP_SEATS)
    if seats:
        handles, epochs, some = zip(*seats.values(), strict=True)
        rows[list(seats)] = rows_of(handles, np.array(epochs, dtype=np.uint64), together(list(some)))
    return rows


def decode(bodies: list[bytes], base: Rows, ages: Ints) -> tuple[Rows, Seats]:
    ends = np.cumsum([len(body) for body in bodies])
    starts = ends - [len(body) for body in bodies]
    data = np.frombuffer(b"".join(bodies), dtype=np.uint8)
    return decode_sections_untrusted(data, starts, ends, base, ages=ages, rate=60)


@settings(max_examples=30)
@given(st.lists(st.tuples(taken, taken, st.integers(1, 64)), min_size=1, max_size=3))
def test_groups_come_back_row_by_row_and_encode_to_the_same_bytes(
    groups: list[tuple[Taken, Taken, int]],
) -> None:
    base = np.stack([group(before) for before, _, _ in groups])
    # Half of who was there before is there still, moved: the same seat, handle and epoch.
    mixed = [
        {
            seat: (*before[seat][:2], one[2]) if seat % 2 and seat in before else one
            for seat, one in after.items()
        }
        for before, after, _ in groups
    ]
    now = np.stack([group(after) for after in mixed])
    ages = np.array([age for *_, age in groups])
    told = (now != base).any(axis=2)
    bodies, bits = encode_sections(now, base, told, ages=ages, rate=60)
    rows, which = decode(bodies, base, ages)
    assert np.array_equal(rows, now)
    assert np.array_equal(which, told)
    assert encode_sections(rows, base, told, ages=ages, rate=60)[0] == bodies
    assert sum(map(len, bodies)) * 8 - 8 * len(bodies) < sum(bits) <= sum(map(len, bodies)) * 8


def a_world(count: int, *, flags: int = 0, speed: float = 0.0, moved: float = 0.0) -> Rows:
    some = [
        WorldState(
            tick=0,
            position=np.array([n % 10 + moved, n // 10, 0.2]),
            velocity=np.array([speed, 0, 0]),
            flags=flags,
        )
        for n in range(count)
    ]
    return group({n: (n, 1, one) for n, one in enumerate(some)})[None, :]


def size(now: Rows, base: Rows, age: int = 6) -> int:
    told = (now != base).any(axis=2)
    return len(encode_sections(now, base, told, ages=np.array([age]), rate=60)[0][0])


def test_a_hundred_at_rest_take_a_few_bytes_together() -> None:
    still = a_world(100, flags=EntityFlag.AT_REST)
    assert size(still, still) <= 4


def test_a_hundred_that_coast_take_less_than_two_bytes_each() -> None:
    assert size(a_world(100, speed=2.0, moved=0.2), a_world(100, speed=2.0)) <= 170


def test_who_is_told_anew_is_told_near_its_neighbour() -> None:
    assert size(a_world(100), empty_rows(GROUP_SEATS)[None, :]) <= 100 * 9


def test_a_teleport_is_not_predicted() -> None:
    """It costs what the jump costs; a prediction would add the way it did not go."""
    before = a_world(50, speed=100.0)
    jumped = a_world(50, speed=100.0, flags=EntityFlag.TELEPORT)
    assert size(jumped, before, 60) < size(a_world(50, speed=100.0, moved=0.01), before, 60)


def test_one_that_falls_asleep_needs_no_velocity() -> None:
    before, after = a_world(50, speed=1.0), a_world(50, flags=EntityFlag.AT_REST, moved=0.05)
    told = (after != before).any(axis=2)
    _, bits = encode_sections(after, before, told, ages=np.array([6]), rate=60)
    assert bits.velocity == bits.angular_velocity == 0
    assert bits.occupants == 1


@given(st.binary(min_size=1, max_size=60), st.booleans())
def test_any_bytes_decode_or_raise_decode_error(data: bytes, known: bool) -> None:
    base = a_world(20, speed=3.0) if known else empty_rows(GROUP_SEATS)[None, :]
    try:
        rows, _ = decode([data], base, np.array([5]))
    except DecodeError:
        return
    assert rows.shape == (1, GROUP_SEATS, COLUMNS)


@settings(max_examples=50)
@given(taken, taken, st.data())
def test_damaged_sections_decode_to_rows_in_range_or_raise_decode_error(
    before: Taken, after: Taken, data: st.DataObject
) -> None:
    base, now = group(before)[None, :], group(after)[None, :]
    told = (now != base).any(axis=2)
    body = bytearray(encode_sections(now, base, told, ages=np.array([7]), rate=60)[0][0])
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        rows, _ = decode([bytes(body)], base, np.array([7]))
    except DecodeError:
        return
    assert set(np.unique(rows[:, :, FLAGS])) <= set(range(-1, 8))
    assert set(np.unique(rows[:, :, LARGEST])) <= set(range(4))
    assert np.abs(rows[:, :, ROTATION]).max() <= 255
    assert np.abs(rows[:, :, VELOCITY.start :] + 0.5).max() < 1 << 15


@pytest.mark.parametrize(
    ("columns", "least", "most"),
    [(VELOCITY, -(1 << 15), (1 << 15) - 1), (SPIN, -(1 << 15), (1 << 15) - 1), (ROTATION, -255, 255)],
)
@pytest.mark.parametrize("axis", range(3))
def test_a_field_is_told_up_to_its_limits_and_read_no_further(
    columns: slice, least: int, most: int, axis: int
) -> None:
    still = a_world(2)
    for value in (least, most, least - 1, most + 1):
        wild = a_world(2)
        wild[0, 1, columns.start + axis] = value
        body = encode_sections(wild, still, (wild != still).any(axis=2), ages=np.array([1]), rate=60)[0]
        if least <= value <= most:
            assert np.array_equal(decode(body, still, np.array([1]))[0], wild)
        else:
            with pytest.raises(DecodeError, match="out of the range"):
                decode(body, still, np.array([1]))


@pytest.mark.parametrize("limit", [-(1 << 31), (1 << 31) - 1])
def test_no_difference_leads_around_the_world(limit: int) -> None:
    """Positions have 32 bits: one step beyond the last would be the first at the other end."""
    outwards = 1 if limit > 0 else -1
    near, nearer, last = (a_world(1) for _ in range(3))
    near[0, 0, POSITION.start], nearer[0, 0, POSITION.start] = 0, outwards
    body = encode_sections(nearer, near, (nearer != near).any(axis=2), ages=np.array([1]), rate=60)[0]
    last[0, 0, POSITION.start] = limit - outwards
    rows, _ = decode(body, last, np.array([1]))
    assert rows[0, 0, POSITION.start] == limit
    with pytest.raises(DecodeError, match="out of the range"):
        decode(body, rows, np.array([1]))


def test_a_group_of_more_seats_than_there_are_is_refused() -> None:
    with pytest.raises(DecodeError, match="more seats"):
        decode([b"\xff\xff\xff\xff"], empty_rows(GROUP_SEATS)[None, :], np.array([0]))


def test_a_change_of_who_was_not_there_is_refused() -> None:
    still = a_world(1)
    moved = a_world(1, moved=1.0)
    body = encode_sections(moved, still, (moved != still).any(axis=2), ages=np.array([1]), rate=60)[0]
    with pytest.raises(DecodeError, match="does not have"):
        decode(body, empty_rows(GROUP_SEATS)[None, :], np.array([1]))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("kinds", 3, "does not have"), ("turned", 4, "four components"), ("flags", 8, "unknown flags")],
)
def test_a_choice_that_there_is_not_is_refused(
    field: str, value: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = delta.differences

    def hostile(*args: Rows, **options: Ints) -> delta.Differences:
        said = honest(*args, **options)  # type: ignore[arg-type]
        return said._replace(**{field: np.full_like(getattr(said, field), value)})

    still, moved = a_world(1), a_world(1, moved=1.0)
    monkeypatch.setattr(delta, "differences", hostile)
    body = encode_sections(moved, still, (moved != still).any(axis=2), ages=np.array([1]), rate=60)[0]
    with pytest.raises(DecodeError, match=message):
        decode(body, still, np.array([1]))


@pytest.mark.parametrize(("order", "is_read"), [(15, True), (16, False), (40, False)])
def test_a_code_of_an_order_above_the_highest_is_refused(
    order: int, is_read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hostile(values: Ints, blocks: Ints, count: int) -> Ints:
        # The gaps of a section have four bits for theirs.
        return np.full(count, order if count > 1 else 0)

    monkeypatch.setattr(delta, "best_orders", hostile)
    still, moved = a_world(1), a_world(1, moved=1.0)
    body = encode_sections(moved, still, (moved != still).any(axis=2), ages=np.array([1]), rate=60)[0]
    if is_read:
        assert np.array_equal(decode(body, still, np.array([1]))[0], moved)
    else:
        with pytest.raises(DecodeError, match="order above 15"):
            decode(body, still, np.array([1]))


def test_unknown_flags_are_refused() -> None:
    still, flagged = a_world(1), a_world(1)
    flagged[0, 0, FLAGS] = 8
    body = encode_sections(flagged, still, (flagged != still).any(axis=2), ages=np.array([1]), rate=60)[0]
    with pytest.raises(DecodeError, match="unknown flags"):
        decode(body, still, np.array([1]))
