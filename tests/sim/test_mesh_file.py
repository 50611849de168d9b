from __future__ import annotations

from pathlib import Path

import pytest

from bridge.errors import ConfigurationError
from bridge.sim.mesh_file import load_mesh
from bridge.sim.zones import Layout, Mesh, ZonePolicy

TEXT = """
west = 0
south = -50
east = 400.5
north = 50
columns = 2
rows = 1
margin = 10
dwell = 2.5
strip = 30
authority_budget = 500
ghost_budget = 200

[servers]
sim1 = [0]
sim2 = [1]
"""


def written(directory: Path, text: str) -> Path:
    file = directory / "mesh.toml"
    file.write_text(text)
    return file


def test_a_file_tells_zones_policy_and_servers(tmp_path: Path) -> None:
    assert load_mesh(written(tmp_path, TEXT)) == Layout(
        mesh=Mesh(west=0, south=-50, east=400.5, north=50, columns=2, rows=1),
        policy=ZonePolicy(margin=10, dwell=2.5, strip=30, authority_budget=500, ghost_budget=200),
        servers={"sim1": (0,), "sim2": (1,)},
    )


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("strip = 30\n", "", "strip"),
        ("columns = 2", "colums = 2", "colum"),
        ("columns = 2", "columns = 0", "one column"),
        ("rows = 1", "rows = 1.5", "rows"),
        ("west = 0", "west = nan", "west is a number"),
        ("strip = 30", "strip = inf", "strip is a number"),
        ("sim2 = [1]", "sim2 = [2]", "zones are 0 to 1"),
        ("sim2 = [1]", "sim2 = 1", "servers"),
        ("west = 0", "west = ", "mesh.toml"),
    ],
)
def test_a_file_that_describes_no_mesh_is_named_with_what_is_wrong(
    tmp_path: Path, before: str, after: str, said: str
) -> None:
    file = written(tmp_path, TEXT.replace(before, after))
    with pytest.raises(ConfigurationError, match=said) as raised:
        load_mesh(file)
    assert str(file) in str(raised.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*none\.toml: No such file"):
        load_mesh(tmp_path / "none.toml")
    (tmp_path / "mesh.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="describes no mesh"):
        load_mesh(tmp_path / "mesh.toml")
