"""Vectors that real Erlang made, and where they lie.

Those of erlang-jose are not part of this repository: ``BRIDGE_SHARED`` names the directory that holds
``vectors/jose.json``, by default ``shared`` beside the repository.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

_REPOSITORY = Path(__file__).resolve().parents[2]
OTP_VECTORS: Final = _REPOSITORY / "tests" / "vectors" / "etf"
"""what ``scripts/make_vectors.escript`` wrote, a file for each OTP"""


def otp_vectors() -> dict[int, dict[str, bytes]]:
    """Return encoded terms by their name, by the release of OTP that encoded them."""
    found: dict[int, dict[str, bytes]] = {}
    for file in sorted(OTP_VECTORS.glob("otp*.tsv")):
        lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
        fields = [line.split("\t") for line in lines]
        found[int(file.stem[3:])] = {name: bytes.fromhex(encoded) for name, encoded, _ in fields}
    return found


def shared_directory() -> Path:
    """Return where inputs for tests lie that the repository does not hold; it may not exist."""
    return Path(os.environ.get("BRIDGE_SHARED", _REPOSITORY.parent / "shared"))


@cache
def _jose_vectors() -> list[dict[str, Any]]:
    path = shared_directory() / "vectors" / "jose.json"
    if not path.is_file():
        return []
    vectors: list[dict[str, Any]] = json.loads(path.read_bytes())["vectors"]
    return vectors


def jose_parameters(*operations: str) -> list[Any]:
    """Return one pytest parameter for each vector of these operations, or one that skips where none are."""
    found = [
        pytest.param(vector, id=vector["id"]) for vector in _jose_vectors() if vector["op"] in operations
    ]
    reason = (
        f"NOT TESTED against erlang-jose's vectors: no {'/'.join(operations)} in "
        f"{shared_directory() / 'vectors' / 'jose.json'}; set BRIDGE_SHARED"
    )
    return found or [pytest.param({}, id="absent", marks=pytest.mark.skip(reason=reason))]
