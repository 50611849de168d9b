"""Every case: the verbs of several modules, and the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Registers cases, as does what follows.
from tests.parity import conditions as _conditions  # noqa: F401
from tests.parity import paths as _paths  # noqa: F401
from tests.parity.rows import ROWS as _ROWS
from tests.parity.rows import Row
from tests.parity.verbs import MODULES

VERBS: Final = [f"{module}:{function}" for module, functions in MODULES.items() for function in functions]
ROWS: Final[Mapping[str, Row]] = _ROWS
NAMES: Final = (*VERBS, *ROWS)
"""of all of them, each once"""
