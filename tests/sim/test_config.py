from typing import Any

import pytest

from bridge.errors import ConfigurationError
from bridge.sim.config import SimulationConfig
from bridge.sim.zones import Layout, Mesh, ZonePolicy


def config(**values: Any) -> SimulationConfig:
    return SimulationConfig(
        **({"name": "sim1", "node": "sim1@127.0.0.1", "members": ("hs1@127.0.0.1",)} | values)
    )


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("rate_hz", (5, 60.0, 1_000), (4.9, 1_000.1, float("nan"))),
        ("capacity", (1, 65_536), (0, 65_537)),
        ("follow", (0, 65_536), (-1, 65_537)),
        ("max_entities", (1, 1_024), (0, 1_025)),
        ("max_busy", (0.01, 1), (0, 1.01, float("nan"))),
        ("linger_ms", (0, 10_000), (-1, 10_001)),
    ],
)
def test_a_number_has_its_range(field: str, good: tuple[float, ...], bad: tuple[float, ...]) -> None:
    for value in good:
        assert getattr(config(**{field: value}), field) == value
    for value in bad:
        with pytest.raises(ConfigurationError, match=field):
            config(**{field: value})


def test_a_server_needs_a_homeserver_to_begin_with() -> None:
    with pytest.raises(ConfigurationError, match="at least one homeserver"):
        config(members=())


def mesh(**policy: Any) -> Layout:
    return Layout(
        mesh=Mesh(west=0, south=0, east=1, north=1, columns=1, rows=1),
        policy=ZonePolicy(strip=1, **policy),
        servers={"sim1": (0,)},
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "sim2"}, "sim2 has no zone of the mesh of sim1"),
        ({"shed": True}, "does not shed"),
        ({"capacity": 4}, "above seven eighths of the capacity, 4"),
    ],
)
def test_a_server_of_a_mesh_has_a_zone_and_room_for_it_and_keeps_to_it(
    values: dict[str, Any], said: str
) -> None:
    layout = mesh(authority_budget=5)
    assert config(mesh=layout).mesh == layout
    with pytest.raises(ConfigurationError, match=said):
        config(mesh=layout, **values)


def test_the_data_plane_listens_on_loopback_unless_told_otherwise() -> None:
    assert (config().host, config().port, config().linger_ms) == ("127.0.0.1", 0, 0)
