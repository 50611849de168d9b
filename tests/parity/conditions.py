"""Every condition and the options of what reads: the end of ``rows.exs`` in Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge.etf import Atom
from bridge.khepri import (
    AllOf,
    AnyOf,
    ChildListLength,
    ChildListVersion,
    Condition,
    DataMatches,
    HasData,
    HasPayload,
    HasSproc,
    MatchAny,
    MatchVariable,
    NameMatches,
    NodeExists,
    Not,
    PathMatches,
    PayloadVersion,
    Special,
)
from tests.parity.outcomes import attempt
from tests.parity.rows import Case, row
from tests.parity.verbs import seed

_VARIABLE: Final = MatchVariable(1)
_EITHER: Final = (
    Atom("orelse"),
    (Atom("=:="), _VARIABLE, 1),
    (Atom("=:="), _VARIABLE, ((1, [2]),)),
)
CONDITIONS: Final[Mapping[str, Mapping[str, Condition]]] = {
    "if_name_matches": {"any": NameMatches(), "regex": NameMatches("o"), "none": NameMatches("^x")},
    "if_path_matches": {"any": PathMatches(), "regex": PathMatches("a.*r"), "none": PathMatches("^x")},
    "if_has_payload": {"yes": HasPayload(True), "no": HasPayload(False)},
    "if_has_data": {"yes": HasData(True), "no": HasData(False)},
    "if_has_sproc": {"yes": HasSproc(True), "no": HasSproc(False)},
    "if_data_matches": {
        "number": DataMatches(1),
        "float": DataMatches(1.0),
        "anything": DataMatches(MatchAny()),
        "tuple": DataMatches((_VARIABLE, MatchAny()), [(Atom("<"), _VARIABLE, 2)]),
        "part of a map": DataMatches({b"count": _VARIABLE}, [(Atom(">="), _VARIABLE, 3)]),
        "part of a map that does not hold": DataMatches({b"count": _VARIABLE}, [(Atom(">"), _VARIABLE, 3)]),
        "kind": DataMatches(_VARIABLE, [(Atom("is_atom"), _VARIABLE)]),
        "either": DataMatches(_VARIABLE, [_EITHER]),
    },
    "if_not": {"data": Not(HasData(True)), "name": Not("wood"), "twice": Not(Not("wood"))},
    "if_all": {
        "both": AllOf(NameMatches("o"), HasData(True)),
        "one": AllOf("wood"),
        "none": AllOf(),
        "never": AllOf("wood", "iron"),
    },
    "if_any": {
        "names": AnyOf("wood", Atom("stone")),
        "either": AnyOf(HasSproc(True), ChildListLength("gt", 0)),
        "none": AnyOf(),
    },
}


async def _found(case: Case, conditions: Mapping[str, Condition]) -> dict[str, Any]:
    return {
        label: await attempt(case.store.get_many(case.at(condition)))
        for label, condition in conditions.items()
    }


def _condition(name: str, conditions: Mapping[str, Condition]) -> None:
    @row(name)
    async def _(case: Case) -> Mapping[str, Any]:
        await seed(case.store, case.at)
        return await _found(case, conditions)


for _name, _conditions in CONDITIONS.items():
    _condition(_name, _conditions)


@row("if_node_exists")
async def _(case: Case) -> Mapping[str, Any]:
    await seed(case.store, case.at)
    found = await _found(case, {"yes": NodeExists(True), "no": NodeExists(False)})

    async def put(name: str, expected: bool) -> Any:
        return await attempt(case.store.put(case.at(AllOf(name, NodeExists(expected))), 2))

    return {
        **found,
        "put where there is one": await put("wood", True),
        "put where there is one already": await put("wood", False),
        "put where there is none": await put("gold", True),
        "put a new one": await put("gold", False),
    }


def _compared(name: str, condition: Callable[..., Condition], number: int, below: tuple[str, ...]) -> None:
    @row(name)
    async def _(case: Case) -> Mapping[str, Any]:
        await seed(case.store, case.at)
        if below:
            await case.store.put(case.at(*below), 2)
        comparisons = ("eq", "ne", "lt", "le", "gt", "ge")
        found = await _found(case, {name: condition(name, number) for name in comparisons})
        return {"a number": found["eq"], **found}


_compared("if_payload_version", PayloadVersion, 2, ("wood",))
_compared("if_child_list_version", ChildListVersion, 2, ("iron", "nails"))
_compared("if_child_list_length", ChildListLength, 1, ())


@row("KHEPRI_ROOT_NODE")
async def _(case: Case) -> Mapping[str, Any]:
    await seed(case.store, case.at)
    parent, root = Special.PARENT, case.at.path
    paths = {
        "root": (Special.ROOT, *root, "wood"),
        "this": (*root, Special.THIS, "wood", Special.THIS),
        "parent": (*root, "iron", parent, "wood"),
    }
    return {label: await attempt(case.store.get(path)) for label, path in paths.items()}


@row("favor")
async def _(case: Case) -> Mapping[str, Any]:
    await seed(case.store, case.at)
    await case.store.put(case.at("wood"), Atom("low_latency"))
    low = await case.store.get(case.at("wood"), favor="low_latency")
    await case.store.put(case.at("wood"), Atom("consistency"))
    return {"low_latency": low, "consistency": await case.store.get(case.at("wood"), favor="consistency")}


@row("expect_specific_node")
async def _(case: Case) -> Mapping[str, Any]:
    await seed(case.store, case.at)
    many = case.store.get_many
    return {
        "one": await attempt(many(case.at("wood"), expect_specific_node=True)),
        "many": await attempt(many(case.at(NameMatches()), expect_specific_node=True)),
        "missing": await attempt(many(case.at("gold"), expect_specific_node=True)),
        "count": await attempt(case.store.count(case.at("wood"), expect_specific_node=True)),
    }


@row("include_root_props")
async def _(case: Case) -> Mapping[str, Any]:
    await seed(case.store, case.at)
    return {
        "without": () in await case.store.get_many([Special.ROOT]),
        "with": () in await case.store.get_many([Special.ROOT], include_root_props=True),
    }


@row("props")
async def _(case: Case) -> Mapping[str, Any]:
    await seed(case.store, case.at)
    chosen: Mapping[str, Any] = {
        "[]": (),
        "[:payload]": ("payload",),
        "[:payload_version, :child_list_version]": ("payload_version", "child_list_version"),
        "[:child_list_length, :child_names]": ("child_list_length", "child_names"),
        "[:has_payload]": ("has_payload",),
    }
    below = case.at(PathMatches())
    return {label: await case.store.adv.get_many(below, props=props) for label, props in chosen.items()}
