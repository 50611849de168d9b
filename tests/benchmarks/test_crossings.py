import numpy as np

from benchmarks.crossings import SERVERS, Stretch, blackouts, moves, percentiles, quarters
from bridge.authority import Acceptance, Act, Entry
from bridge.sim.zones import Mesh, ZonePolicy

MS = 1_000_000


def act(server: str, epoch: int, first: int, last: int) -> Act:
    return Act(
        server=server, session=b"s" * 16, entity="a", epoch=epoch, first_ns=first * MS, last_ns=last * MS
    )


def accepted(receiver: str, sender: str, epoch: int, first: int, last: int) -> Acceptance:
    return Acceptance(
        receiver=receiver, sender=sender, entity="a", epoch=epoch, first_ns=first * MS, last_ns=last * MS
    )


ENTRIES: list[Entry] = [
    act("sw", 1, 0, 100),
    act("se", 2, 112, 200),
    accepted("se", "sw", 1, 1, 101),
    accepted("nw", "sw", 1, 1, 102),
    accepted("sw", "se", 2, 115, 201),
    accepted("nw", "se", 2, 120, 201),
    accepted("ne", "se", 2, 150, 201),
]


def test_a_blackout_lies_between_the_last_state_of_the_giver_and_the_first_of_the_taker() -> None:
    assert blackouts(ENTRIES) == {"nobody_acts": [12.0], "at_giver": [15.0], "at_observer": [18.0]}
    assert percentiles([12.0]) == {"count": 1, "p50": 12.0, "p99": 12.0, "max": 12.0}
    assert percentiles([]) == {"count": 0}


def test_hand_overs_are_between_servers_in_order_of_time() -> None:
    assert moves(ENTRIES) == [(0.112, 0, SERVERS.index("sw"), SERVERS.index("se"))]


def test_a_stretch_tells_where_aircraft_are_in_time_lapse() -> None:
    positions = np.array([[[0.0, 0.0], [9.0, 9.0]], [[100.0, 50.0], [9.0, 9.0]]])
    stretch = Stretch(
        positions=positions, present=np.array([[True, True], [True, False]]), step=10.0, speed=5.0
    )
    assert stretch.seconds == 2.0
    numbers, where, velocities = stretch.at(1.0)
    assert numbers.tolist() == [0]
    assert where.tolist() == [[50.0, 25.0]]
    assert velocities.tolist() == [[50.0, 25.0]]


def test_a_rectangle_is_cut_into_quarters() -> None:
    mesh = Mesh(west=0, south=0, east=100, north=100, columns=4, rows=4)
    layout = quarters(mesh, ZonePolicy(strip=1))
    places = np.array([[10.0, 10.0], [90.0, 10.0], [10.0, 90.0], [90.0, 90.0]])
    assert layout.mesh.zone_of(places).tolist() == [0, 1, 2, 3]
    assert dict(layout.servers) == {name: (zone,) for zone, name in enumerate(SERVERS)}
