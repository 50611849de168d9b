"""The file that tells all servers of a mesh its zones, and whose each one is (TOML)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import msgspec

from bridge.errors import ConfigurationError
from bridge.sim.zones import Layout, Mesh, ZonePolicy

_Zone = Annotated[int, msgspec.Meta(ge=0)]


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    west: float
    south: float
    east: float
    north: float
    columns: int
    rows: int
    strip: float
    margin: float = 0.0
    dwell: float = 0.0
    authority_budget: int | None = None
    ghost_budget: int | None = None
    servers: dict[str, list[_Zone]]


def load_mesh(path: Path) -> Layout:
    """Read a mesh.

    Raises:
        ConfigurationError: no such file, or it describes none; the text names the file and what is wrong.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        file = msgspec.toml.decode(data, type=_File)
        _check_finite(file)
        return Layout(
            mesh=Mesh(
                west=file.west,
                south=file.south,
                east=file.east,
                north=file.north,
                columns=file.columns,
                rows=file.rows,
            ),
            policy=ZonePolicy(
                margin=file.margin,
                dwell=file.dwell,
                strip=file.strip,
                authority_budget=file.authority_budget,
                ghost_budget=file.ghost_budget,
            ),
            servers={server: tuple(zones) for server, zones in file.servers.items()},
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, ConfigurationError) as error:
        raise ConfigurationError(f"{path} describes no mesh: {error}") from error


def _check_finite(file: _File) -> None:
    for name in ("west", "south", "east", "north", "strip", "margin", "dwell"):
        value = getattr(file, name)
        if not math.isfinite(value):
            raise ConfigurationError(f"{name} is a number of metres or seconds, not {value}")
