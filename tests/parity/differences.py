"""Where Python deliberately gives something else; the notes of ``docs/parity.md`` say what and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge.etf import Atom
from bridge.khepri import Prop
from tests.parity.outcomes import Refused
from tests.parity.verbs import MANY, MODULES, Root

_Stated = Mapping[str, Callable[[Root], Any]]
_OF_VERBS: Final[Mapping[str, _Stated]] = {
    "get_many_or": {"a procedure": lambda at: {at(b"sell"): Atom("none")}},
    "has_data": {"a condition that does not": lambda at: False},
    "is_sproc": {"a condition that does not": lambda at: False},
    "compare_and_swap": {"below a missing node": lambda at: Refused("node_not_found", [*at(b"gold")])},
}
DIFFERENCES: Final[Mapping[str, _Stated]] = {
    **{
        f"{module}:{function}": _OF_VERBS[verb]
        for module, functions in MODULES.items()
        for function in functions
        if (verb := function.removesuffix("!")) in _OF_VERBS
    },
    "khepri_tx:get_or": {
        "a condition that does not hold": lambda at: Atom("none"),
        "possibly many nodes": lambda at: MANY,
    },
    "khepri_tx:clear_many_payloads": {
        "it is not made": lambda at: Refused("node_not_found", [*at(b"gold")]),
    },
    "khepri_tx_adv:clear_many_payloads": {
        "a missing node": lambda at: {},
        "it is not made": lambda at: Refused("node_not_found", [*at(b"gold")]),
        "whatever is there": lambda at: {},
    },
    "khepri:transaction": {"no procedure": lambda at: Refused("no_sproc", [*at(b"gold")])},
    "khepri_condition:is_valid": {"no comparison": lambda at: False},
}
"""by row and label, what Python gives"""

TREES: Final[Mapping[str, Prop]] = {
    "khepri:import": "child_list_version",
    "khepri_import_export:import": "child_list_version",
}
"""by row, the property in which the trees that are left differ"""
