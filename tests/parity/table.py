"""The rows of ``docs/parity.md``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TEXT: Final = (Path(__file__).parent.parent.parent / "docs" / "parity.md").read_text()
_ROW: Final = re.compile(
    r"^\| `(?P<name>\w+:\w+!?)/(?P<first>\d+)(?:\.\.(?P<last>\d+))?` "
    r"\| (?P<python>.+?) \| (?P<test>\w* ?)\|(?P<note>.*)\|$",
    re.MULTILINE,
)
_CONDITION: Final = re.compile(r"^\| `[#?](?P<name>\w+).*` \| .+ \| (?P<test>\w+) \|$", re.MULTILINE)
_OTHER_VERSION: Final = re.compile(r"\b(from|until) 0\.\d+")


@dataclass(frozen=True, slots=True)
class TableRow:
    """One function of Khepri.

    Attributes:
        name: ``module:function``.
        arities: of the function.
        python: what to write, or ``none``.
        test: how the two compare: ``same``, ``differs`` or nothing.
        note: the rest.
    """

    name: str
    arities: range
    python: str
    test: str
    note: str

    @property
    def of_some_versions(self) -> bool:
        """Whether the function is not in every version of Khepri."""
        return _OTHER_VERSION.search(self.note) is not None


def _row(found: re.Match[str]) -> TableRow:
    first = int(found["first"])
    arities = range(first, int(found["last"] or first) + 1)
    return TableRow(found["name"], arities, found["python"], found["test"].strip(), found["note"].strip())


ROWS: Final = {found["name"]: _row(found) for found in _ROW.finditer(TEXT)}
"""by name"""
CONDITIONS: Final = {found["name"]: found["test"] for found in _CONDITION.finditer(TEXT)}
"""how they compare, by the name of the record"""
