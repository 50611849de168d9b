"""What is asked of each verb, in this order: ``verbs.exs`` in Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bridge.etf import Atom
from bridge.khepri import (
    Adv,
    AllOf,
    ChildListLength,
    ClearManyPayloads,
    ClearPayload,
    CompareAndSwap,
    Count,
    Create,
    DataMatches,
    Delete,
    DeleteMany,
    Exists,
    Get,
    GetMany,
    HasData,
    HoldsData,
    IsSproc,
    Khepri,
    NameMatches,
    NativePath,
    NodeExists,
    PathMatches,
    Pattern,
    PayloadVersion,
    Put,
    PutMany,
    Special,
    Update,
    fun,
    path_text,
)
from tests.parity.outcomes import attempt


@dataclass(frozen=True, slots=True)
class GetOr:
    """Of ``Khepri.get_or``, which is no operation of a transaction."""

    path: Pattern
    default: Any


@dataclass(frozen=True, slots=True)
class GetManyOr:
    """Of ``Khepri.get_many_or``."""

    path: Pattern
    default: Any


MANY: Final = Atom("many")
"""more than one node, where a program meant one"""
Steps = Mapping[str, Any]
"""Operations by label."""


@dataclass(frozen=True, slots=True)
class Root:
    """Where a case writes."""

    path: NativePath

    def __call__(self, *names: Any) -> tuple[Any, ...]:
        """A path or pattern below it."""
        return (*self.path, *names)

    def text(self, below: str) -> str:
        """One as text."""
        return path_text(self.path) + below


async def seed(store: Khepri, at: Root) -> None:
    """Data, a node without any, one with children, a procedure."""
    await store.put(at("wood"), 1)
    await store.put(at("iron"), {b"count": 3})
    await store.put(at("iron", "bars"), b"bars")
    await store.put(at("hall", "chair"), Atom("oak"))
    await store.put(at(Atom("stone")), (1, [2]))
    await store.procedures.put(at("sell"), fun("kb_demo_functions:change/2"))


async def run(store: Khepri, module: str, step: Any) -> Any:
    """What a step comes to as the Python counterpart of a module's function."""
    match module, step:
        case "khepri_tx", GetOr(path, default) | GetManyOr(path, default):
            return await attempt(_with_default(store, step, path, default))
        case "khepri_tx", _:
            return await attempt(_single(store, step))
        case "khepri_tx_adv", _:
            return await attempt(_single(store, Adv(step)))
    calls = store.adv if module == "khepri_adv" else store
    given = {name: getattr(step, name) for name in step.__slots__}
    keep_while = given.pop("keep_while", None)
    more = {} if keep_while is None else {"keep_while": keep_while}
    return await attempt(getattr(calls, _METHODS[type(step)])(*given.values(), **more))


async def _single(store: Khepri, operation: Any) -> Any:
    return (await store.transaction([operation]))[0]


async def _with_default(store: Khepri, step: Any, path: Pattern, default: Any) -> Any:
    found = await _single(store, GetMany(path))
    whole = {node: default if data is None else data for node, data in found.items()}
    if isinstance(step, GetManyOr):
        return whole
    return next(iter(whole.values()), default) if len(whole) < 2 else MANY


def _get(at: Root) -> Steps:
    return {
        "data": Get(at("wood")),
        "a map": Get(at("iron")),
        "a tuple": Get(at(Atom("stone"))),
        "a node without data": Get(at("hall")),
        "a procedure": Get(at("sell")),
        "a path as text": Get(at.text("/iron/bars")),
        "an atom in a text": Get(at.text("/:stone")),
        "a missing node": Get(at("gold")),
        "below a missing node": Get(at("gold", "bars")),
        "a condition that holds": Get(at(AllOf("wood", DataMatches(1)))),
        "a condition that does not": Get(at(AllOf("wood", DataMatches(2)))),
        "a condition on a parent": Get(at(AllOf("iron", HasData(False)), "bars")),
        "possibly many nodes": Get(at(NameMatches())),
        "possibly many nodes as text": Get(at.text("/*")),
    }


def _get_many(at: Root) -> Steps:
    return {
        "children": GetMany(at(NameMatches())),
        "everything below": GetMany(at(PathMatches())),
        "children as text": GetMany(at.text("/*")),
        "everything as text": GetMany(at.text("/**")),
        "part of a name as text": GetMany(at.text("/*o*")),
        "a regular expression": GetMany(at(NameMatches("^[wi]"))),
        "a regular expression below": GetMany(at(PathMatches("^[bc]"))),
        "one node": GetMany(at("wood")),
        "a missing node": GetMany(at("gold")),
        "a condition nothing meets": GetMany(at(PayloadVersion("eq", 99))),
        "with data": GetMany(at(HasData(True))),
    }


def _get_or(at: Root) -> Steps:
    none = Atom("none")
    return {
        "data": GetOr(at("wood"), none),
        "a node without data": GetOr(at("hall"), none),
        "a missing node": GetOr(at("gold"), none),
        "a condition that does not hold": GetOr(at(AllOf("wood", HasData(False))), none),
        "possibly many nodes": GetOr(at(NameMatches()), none),
    }


def _get_many_or(at: Root) -> Steps:
    none = Atom("none")
    return {
        "part of a name as text": GetManyOr(at.text("/*a*"), none),
        "below": GetManyOr(at("hall", PathMatches()), none),
        "a procedure": GetManyOr(at("sell"), none),
        "one node": GetManyOr(at("hall"), none),
        "a missing node": GetManyOr(at("gold"), none),
    }


def _question(cls: Any) -> Callable[[Root], Steps]:
    def steps(at: Root) -> Steps:
        return {
            "data": cls(at("wood")),
            "a node without data": cls(at.text("/hall")),
            "a procedure": cls(at("sell")),
            "a missing node": cls(at("gold")),
            "below a missing node": cls(at("gold", "bars")),
            "a condition that holds": cls(at(AllOf("wood", PayloadVersion("eq", 1)))),
            "a condition that does not": cls(at(AllOf("wood", PayloadVersion("gt", 1)))),
            "possibly many nodes": cls(at(NameMatches())),
        }

    return steps


def _count(at: Root) -> Steps:
    return {
        "children": Count(at(NameMatches())),
        "everything below": Count(at.text("/**")),
        "one node": Count(at("wood")),
        "a missing node": Count(at("gold")),
        "with children": Count(at(ChildListLength("ge", 1))),
    }


def _put(at: Root) -> Steps:
    relative = {(Special.PARENT, "iron"): ChildListLength("gt", 0)}
    return {
        "a new node": Put(at("gold"), 5),
        "new data": Put(at("wood"), 2),
        "the same data": Put(at("wood"), 2),
        "data of another type": Put(at("wood"), 2.0),
        "over a procedure": Put(at("sell"), 1),
        "below a new parent": Put(at.text("/silver/bars"), b"b"),
        "a condition that holds": Put(at(AllOf("wood", PayloadVersion("ge", 2))), 3),
        "a condition that does not": Put(at(AllOf("wood", PayloadVersion("eq", 99))), 4),
        "a condition on a missing node": Put(at(AllOf("tin", NodeExists(True))), 4),
        "possibly many nodes": Put(at(NameMatches()), 4),
        "kept while another exists": Put(at("kept"), 1, {at("wood"): NodeExists(True)}),
        "kept while a sibling has children": Put(at("related"), 1, relative),
        "kept while a sibling of its parent exists": Put(
            at("iron", "leaf"), 1, {(Special.PARENT, Special.PARENT, "wood"): NodeExists(True)}
        ),
        "what keeps it goes": Delete(at("gold")),
        "kept while what is not there": Put(at("never"), 1, {at("gold"): NodeExists(True)}),
        "what the first is kept by goes": Delete(at("wood")),
        "what the second is kept by goes": Delete(at("iron", "bars")),
    }


def _put_many(at: Root) -> Steps:
    return {
        "children": PutMany(at(NameMatches()), 7),
        "part of a name as text": PutMany(at.text("/*o*"), 8),
        "with data below": PutMany(at("iron", HasData(True)), 9),
        "a new node": PutMany(at("gold"), 1),
        "nothing matches": PutMany(at(PayloadVersion("eq", 99)), 1),
        "kept while another exists": PutMany(at("kept"), 1, {at("wood"): NodeExists(True)}),
        "what it is kept by goes": Delete(at("wood")),
    }


def _create(at: Root) -> Steps:
    return {
        "a new node": Create(at("gold"), 1),
        "it again": Create(at("gold"), 2),
        "over a node without data": Create(at("hall"), 2),
        "below new parents": Create(at.text("/silver/bars/small"), 3),
        "possibly many nodes": Create(at(NameMatches()), 3),
        "kept while another exists": Create(at("kept"), 1, {at("wood"): NodeExists(True)}),
        "what it is kept by goes": Delete(at("wood")),
    }


def _update(at: Root) -> Steps:
    return {
        "data": Update(at("wood"), 2),
        "a node without data": Update(at.text("/hall"), 2),
        "a procedure": Update(at("sell"), 2),
        "a missing node": Update(at("gold"), 2),
        "below a missing node": Update(at("gold", "bars"), 2),
        "a condition that does not hold": Update(at(AllOf("wood", DataMatches(99))), 2),
        "possibly many nodes": Update(at(NameMatches()), 2),
        "kept while another exists": Update(at("iron"), 1, {at("wood"): NodeExists(True)}),
        "what it is kept by goes": Delete(at("wood")),
    }


def _compare_and_swap(at: Root) -> Steps:
    kept = {at("wood"): NodeExists(True)}
    return {
        "what it is": CompareAndSwap(at("wood"), 1, 2),
        "what it was": CompareAndSwap(at("wood"), 1, 3),
        "an equal number of another type": CompareAndSwap(at("wood"), 2.0, 3),
        "a map": CompareAndSwap(at.text("/iron"), {b"count": 3}, {b"count": 4}),
        "a tuple": CompareAndSwap(at(Atom("stone")), (1, [2]), ()),
        "an atom": CompareAndSwap(at("hall", "chair"), Atom("oak"), Atom("ash")),
        "a node without data": CompareAndSwap(at("hall"), 1, 2),
        "a procedure": CompareAndSwap(at("sell"), 1, 2),
        "a missing node": CompareAndSwap(at("gold"), 1, 2),
        "below a missing node": CompareAndSwap(at("gold", "bars"), 1, 2),
        "possibly many nodes": CompareAndSwap(at(NameMatches()), 1, 2),
        "kept while another exists": CompareAndSwap(at("iron"), {b"count": 4}, 1, kept),
        "what it is kept by goes": Delete(at("wood")),
    }


def _delete(at: Root) -> Steps:
    stone = Atom("stone")
    return {
        "data": Delete(at("wood")),
        "it again": Delete(at("wood")),
        "the only child": Delete(at("hall", "chair")),
        "with children": Delete(at.text("/iron")),
        "a procedure": Delete(at("sell")),
        "below a missing node": Delete(at("gold", "bars")),
        "a condition that does not hold": Delete(at(AllOf(stone, HasData(False)))),
        "possibly many nodes": Delete(at(NameMatches())),
        "a condition that holds": Delete(at(AllOf(stone, HasData(True)))),
    }


def _delete_many(at: Root) -> Steps:
    return {
        "nothing matches": DeleteMany(at(PayloadVersion("eq", 99))),
        "a missing node": DeleteMany(at("gold")),
        "part of a name as text": DeleteMany(at.text("/*l*")),
        "below": DeleteMany(at("iron", NameMatches())),
        "children": DeleteMany(at(NameMatches())),
    }


def _clear_payload(at: Root) -> Steps:
    return {
        "data": ClearPayload(at("wood")),
        "it again": ClearPayload(at("wood")),
        "with children": ClearPayload(at.text("/iron")),
        "a procedure": ClearPayload(at("sell")),
        "a node without data": ClearPayload(at("hall")),
        "a missing node": ClearPayload(at("gold")),
        "a condition that does not hold": ClearPayload(at(AllOf(Atom("stone"), HasData(False)))),
        "possibly many nodes": ClearPayload(at(NameMatches())),
    }


def _clear_many_payloads(at: Root) -> Steps:
    return {
        "part of a name as text": ClearManyPayloads(at.text("/*o*")),
        "children": ClearManyPayloads(at(NameMatches())),
        "nothing matches": ClearManyPayloads(at(PayloadVersion("eq", 99))),
        "a missing node": ClearManyPayloads(at("gold")),
        "it is not made": Get(at("gold")),
        "whatever is there": DeleteMany(at("gold")),
    }


STEPS: Final[Mapping[str, Callable[[Root], Steps]]] = {
    "get": _get,
    "get_many": _get_many,
    "put": _put,
    "put_many": _put_many,
    "create": _create,
    "update": _update,
    "compare_and_swap": _compare_and_swap,
    "delete": _delete,
    "delete_many": _delete_many,
    "clear_payload": _clear_payload,
    "clear_many_payloads": _clear_many_payloads,
}
"""the verbs of every module"""
QUESTIONS: Final[Mapping[str, Callable[[Root], Steps]]] = {
    "get_or": _get_or,
    "get_many_or": _get_many_or,
    "exists": _question(Exists),
    "has_data": _question(HoldsData),
    "is_sproc": _question(IsSproc),
    "count": _count,
}
"""those that have no ``adv`` form"""
MODULES: Final[Mapping[str, Mapping[str, Callable[[Root], Steps]]]] = {
    "khepri": {**STEPS, **QUESTIONS, **{f"{verb}!": steps for verb, steps in {**STEPS, **QUESTIONS}.items()}},
    "khepri_adv": STEPS,
    "khepri_tx": {**STEPS, **QUESTIONS},
    "khepri_tx_adv": STEPS,
}
_METHODS: Final[Mapping[type, str]] = {
    Get: "get",
    GetMany: "get_many",
    GetOr: "get_or",
    GetManyOr: "get_many_or",
    Exists: "exists",
    HoldsData: "has_data",
    IsSproc: "is_sproc",
    Count: "count",
    Put: "put",
    PutMany: "put_many",
    Create: "create",
    Update: "update",
    CompareAndSwap: "compare_and_swap",
    Delete: "delete",
    DeleteMany: "delete_many",
    ClearPayload: "clear_payload",
    ClearManyPayloads: "clear_many_payloads",
}
