from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigurationError
from bridge.sim.zones import NOBODY, Layout, Mesh, Part, ZonePolicy, Zones, nearest, oscillations

MESH = Mesh(west=0, south=0, east=400, north=400, columns=4, rows=4)
ALONG = Mesh(west=0, south=0, east=200, north=100, columns=2, rows=1)

coordinates = st.floats(-50, 450)
walks = st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=60)


def at(*points: tuple[float, float]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.array(points, dtype=np.float64).reshape(len(points), 2)


def walk(mesh: Mesh, policy: ZonePolicy, points: list[tuple[float, float]]) -> list[int]:
    """Who holds one entity after each second of its way."""
    zones = Zones(mesh, policy, 1)
    holders = []
    for second, point in enumerate(points):
        zones.step(at(point), np.array([True]), now=float(second))
        holders.append(int(zones.holders[0]))
    return holders


def changes(holders: list[int]) -> int:
    return sum(one != other for one, other in itertools.pairwise(holders))


def test_zones_are_numbered_row_by_row_from_the_south_west() -> None:
    assert MESH.zone_of(at((0, 0), (399, 0), (0, 399), (150, 250), (-9, 999))).tolist() == [0, 3, 12, 9, 12]


@given(st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=20))
def test_a_position_is_at_no_distance_from_its_own_zone_and_at_some_from_the_others(
    points: list[tuple[float, float]],
) -> None:
    positions = at(*points)
    distances = MESH.distances(positions)
    assert distances.shape == (len(points), 16)
    own = MESH.zone_of(positions)
    assert (distances[np.arange(len(points)), own] == 0).all()
    assert np.isfinite(distances).all()


def test_without_hysteresis_an_entity_goes_to_and_fro_at_a_border() -> None:
    points = [(95.0, 50.0), (105.0, 50.0)] * 5
    assert changes(walk(ALONG, ZonePolicy(), points)) == 9
    assert changes(walk(ALONG, ZonePolicy(margin=10), points)) == 0
    assert changes(walk(ALONG, ZonePolicy(dwell=2), points)) == 0


def test_what_stays_beyond_is_handed_over_after_margin_and_dwell() -> None:
    points = [(x, 50.0) for x in (90.0, 101.0, 112.0, 113.0, 114.0, 115.0)]
    assert walk(ALONG, ZonePolicy(margin=10, dwell=2), points) == [0, 0, 0, 0, 1, 1]


def test_a_break_begins_the_dwelling_anew() -> None:
    points = [(x, 50.0) for x in (90.0, 111.0, 105.0, 111.0, 111.0, 111.0)]
    assert walk(ALONG, ZonePolicy(margin=10, dwell=2), points) == [0, 0, 0, 0, 0, 1]


@given(walks, st.floats(0, 80), st.floats(0, 5))
def test_hysteresis_never_makes_more_hand_overs_and_keeps_everyone_near(
    points: list[tuple[float, float]], margin: float, dwell: float
) -> None:
    """R0-A5. Between two hand-overs with hysteresis lies at least one without."""
    plain = walk(MESH, ZonePolicy(), points)
    assert plain == MESH.zone_of(at(*points)).tolist()
    steady = walk(MESH, ZonePolicy(margin=margin, dwell=dwell), points)
    assert changes(steady) <= changes(plain)
    quick = walk(MESH, ZonePolicy(margin=margin), points)
    distances = MESH.distances(at(*points))[np.arange(len(points)), quick]
    assert (distances <= margin).all()


@given(
    st.lists(st.lists(st.tuples(coordinates, coordinates), min_size=6, max_size=6), min_size=1, max_size=12),
    st.integers(0, 6),
    st.integers(0, 6),
    st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_no_budget_is_ever_exceeded_and_ghosts_take_nothing_from_authority(
    frames: list[list[tuple[float, float]]], authority: int, ghosts: int, present: list[bool]
) -> None:
    policy = ZonePolicy(strip=60, authority_budget=authority, ghost_budget=ghosts)
    zones, unfollowed = Zones(MESH, policy, 6), Zones(MESH, ZonePolicy(authority_budget=authority), 6)
    mask = np.array(present)
    for second, points in enumerate(frames):
        moves = zones.step(at(*points), mask, now=float(second))
        unfollowed.step(at(*points), mask, now=float(second))
        held = zones.holders[zones.holders != NOBODY]
        assert np.bincount(held, minlength=16).max(initial=0) <= authority
        assert (zones.holders[~mask] == NOBODY).all()
        assert (zones.holders == unfollowed.holders).all()
        assert (zones.holders[moves.entities] == moves.takers).all()
        followed = zones.ghosts(at(*points))
        assert followed.sum(axis=0).max() <= ghosts
        assert not followed[zones.holders == NOBODY].any()
        rows = np.flatnonzero(zones.holders != NOBODY)
        assert not followed[rows, zones.holders[rows]].any()


def test_who_finds_no_room_stays_where_it_is_and_goes_when_there_is() -> None:
    zones = Zones(ALONG, ZonePolicy(authority_budget=1), 2)
    both = np.array([True, True])
    zones.step(at((50, 50), (150, 50)), both, now=0.0)
    zones.step(at((150, 50), (150, 50)), both, now=1.0)
    assert zones.holders.tolist() == [0, 1]
    assert zones.deferred == 1
    zones.step(at((150, 50), (150, 50)), np.array([True, False]), now=2.0)
    assert zones.holders.tolist() == [1, NOBODY]


def test_an_entity_is_followed_before_it_is_handed_over_and_after() -> None:
    """R0-A5: ghosts on both sides."""
    zones = Zones(ALONG, ZonePolicy(margin=10, strip=20), 1)
    for x, holder in ((85.0, 0), (105.0, 0), (111.0, 1), (119.0, 1)):
        zones.step(at((x, 50.0)), np.array([True]), now=x)
        assert zones.holders.tolist() == [holder]
        assert zones.ghosts(at((x, 50.0))).tolist() == [[holder == 1, holder == 0]]


def layout(mesh: Mesh = ALONG, **policy: Any) -> Layout:
    servers = {"a": (0,), "b": (1,)} if mesh is ALONG else {"a": (0, 1, 4), "b": (2, 3), "c": (15,)}
    return Layout(mesh=mesh, policy=ZonePolicy(**({"strip": 60.0} | policy)), servers=servers)


def due(part: Part, *points: tuple[float, float], now: float) -> list[int]:
    return list(part.due(np.arange(len(points), dtype=np.int32), at(*points), now=now).tolist())


def test_one_server_sees_what_is_to_leave_it_and_where_to() -> None:
    part = Part(layout(MESH), "a", 8)
    assert part.servers == ("a", "b", "c")
    # Within, in the zone of b, of c, of nobody.
    points = ((150, 50), (250, 50), (350, 350), (250, 250))
    assert due(part, *points, now=0.0) == [NOBODY, 1, 2, NOBODY]
    assert part.distances(at((150, 50), (250, 150))).tolist() == [
        [0.0, 50.0, np.hypot(150, 250)],
        [np.hypot(50, 50), 50.0, np.hypot(50, 150)],
    ]
    assert part.successors(at((150, 50), (150, 390))) == [["b", "c"], ["c", "b"]]


def test_an_entity_is_due_until_it_is_back_or_gone() -> None:
    """One for which nobody had room is asked about again; what comes again begins anew."""
    part = Part(layout(margin=10, dwell=2), "a", 2)
    assert due(part, (111, 50), now=0.0) == [NOBODY]
    for now in (2.0, 3.0, 4.0):
        assert due(part, (111, 50), now=now) == [1]
    assert due(part, (109, 50), now=5.0) == [NOBODY]
    assert due(part, (111, 50), now=6.0) == [NOBODY]
    assert due(part, now=7.0) == []
    assert due(part, (111, 50), now=8.0) == [NOBODY]
    assert due(part, (111, 50), now=10.0) == [1]


@given(walks, st.floats(0, 50), st.floats(0, 5))
def test_the_servers_of_a_mesh_decide_as_one_that_sees_all_would(
    points: list[tuple[float, float]], margin: float, dwell: float
) -> None:
    """R0-A5: where nobody is full or away, each sees to its own part of what ``Zones`` says."""
    policy = ZonePolicy(margin=margin, dwell=dwell, strip=60)
    parts = [Part(Layout(mesh=ALONG, policy=policy, servers={"a": (0,), "b": (1,)}), s, 1) for s in "ab"]
    expected = walk(ALONG, policy, points)
    holder = expected[0]
    for second, point in enumerate(points):
        taker = holder
        for number, part in enumerate(parts):
            held = np.arange(int(number == holder), dtype=np.int32)
            found = part.due(held, at(point)[: len(held)], now=float(second)).tolist()
            taker = next((one for one in found if one != NOBODY), taker)
        holder = taker
        assert holder == expected[second]


def test_each_neighbour_follows_what_is_nearest_to_it() -> None:
    part = Part(layout(ghost_budget=2), "a", 8)
    points = at((10, 50), (95, 50), (70, 50), (150, 50), (80, 50))
    assert part.bordering(points) == {"b": [(3, 0.0), (1, 5.0)]}
    assert Part(layout(), "a", 8).bordering(points)["b"] == [(3, 0.0), (1, 5.0), (4, 20.0), (2, 30.0)]


def test_a_budget_of_ghosts_is_for_the_nearest() -> None:
    near = [("far", 9.0), ("here", 0.0), ("near", 1.0)]
    assert nearest(near, 2) == {"here", "near"}
    assert nearest(near, 0) == set()
    assert nearest(near, None) == {"far", "here", "near"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"servers": {}}, "names the server"),
        ({"servers": {"a": ()}}, "one zone or more"),
        ({"servers": {"a": (2,)}}, "zones are 0 to 1"),
        ({"servers": {"a": (-1,)}}, "zones are 0 to 1"),
        ({"servers": {"a": (0,), "b": (0,)}}, "zone 0 is that of a and of b"),
        ({"policy": ZonePolicy(margin=5, strip=5)}, "strip of zones is wider"),
    ],
)
def test_a_layout_that_leaves_a_question_open_is_refused(values: dict[str, Any], said: str) -> None:
    fields: dict[str, Any] = {"mesh": ALONG, "policy": ZonePolicy(strip=5), "servers": {"a": (0,)}}
    with pytest.raises(ConfigurationError, match=said):
        Layout(**(fields | values))
    with pytest.raises(ConfigurationError, match="x has no zone of the mesh of a"):
        Part(Layout(**fields), "x", 1)


def test_an_oscillation_is_a_way_back_within_a_moment() -> None:
    moves = [(0.0, 1, 0, 1), (10.0, 1, 1, 0), (100.0, 1, 0, 1), (105.0, 2, 1, 0), (106.0, 1, 1, 2)]
    assert oscillations(moves, 60.0) == 1
    assert oscillations(moves, 100.0) == 2


@pytest.mark.parametrize(
    "bad",
    [
        lambda: Mesh(west=1, south=0, east=1, north=1, columns=1, rows=1),
        lambda: Mesh(west=0, south=0, east=1, north=1, columns=0, rows=1),
        lambda: ZonePolicy(margin=-1),
        lambda: ZonePolicy(ghost_budget=-1),
    ],
)
def test_what_no_mesh_can_be_is_refused(bad: object) -> None:
    with pytest.raises(ConfigurationError):
        bad()  # type: ignore[operator]
