"""Cases that are no verb of several modules: ``rows.exs`` and ``paths.exs`` in Python."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any, Final

from bridge.errors import ConfigurationError
from bridge.etf import Atom
from bridge.khepri import (
    Abort,
    AllOf,
    AnyOf,
    DataMatches,
    Delete,
    HasData,
    IsEmpty,
    Khepri,
    MatchAny,
    NameMatches,
    NativePath,
    NodeExists,
    NodeProps,
    Not,
    Operation,
    PathMatches,
    PayloadVersion,
    Put,
    fun,
    is_valid_path,
    native_pattern,
)
from tests.parity.elixir import Elixir
from tests.parity.outcomes import attempt, of_elixir
from tests.parity.verbs import Root, seed

ADD, READ, CHANGE, SUM, DOUBLE, IS_EVEN, INDEX = (
    fun(f"kb_demo_functions:{name}")
    for name in ("add/2", "read/1", "change/2", "sum/3", "double/2", "is_even/2", "index/2")
)
TOLD, TOLD_AS_WELL = (fun(f"Elixir.Parity.Member:{name}/1") for name in ("told", "told_as_well"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What the Python half of a case has.

    Attributes:
        store: the client.
        at: where it writes.
        theirs: where the Elixir half wrote before.
        elixir: for more questions to that side.
        token: of this run, unlike any other.
        directory: that the members read and write too.
    """

    store: Khepri
    at: Root
    theirs: Root
    elixir: Elixir
    token: str
    directory: File


Half = Callable[[Case], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Row:
    """A case that is no verb.

    Attributes:
        python: its Python half.
        argument: what the Elixir half is given.
        reading: what Python has for a term that Khepri gives, where that is more than a value.
    """

    python: Half
    argument: Callable[[Case], Any]
    reading: Callable[[Any], Any]


ROWS: Final[dict[str, Row]] = {}


def row(
    name: str,
    argument: Callable[[Case], Any] = lambda case: Atom("nil"),
    reading: Callable[[Any], Any] = lambda value: value,
) -> Callable[[Half], Half]:
    """Register the Python half of a case by the name that its row has in ``docs/parity.md``."""

    def keep(half: Half) -> Half:
        assert name not in ROWS
        ROWS[name] = Row(half, argument, reading)
        return half

    return keep


def _table(case: Case) -> Atom:
    return Atom(f"parity_elixir_{case.token}")


def _our_table(case: Case) -> str:
    return f"parity_python_{case.token}"


def _file(case: Case) -> bytes:
    return str(case.directory / "elixir.erl").encode()


async def _numbers(case: Case) -> None:
    for name, number in (("one", 1), ("two", 2), ("three", 3), ("four", 4)):
        await case.store.put(case.at(name), number)


@row("khepri:get_store_ids")
async def _(case: Case) -> Mapping[str, Any]:
    return {"stores": [Atom(name) for name in await case.store.cluster.stores()]}


@row("khepri:is_empty")
async def _(case: Case) -> Mapping[str, Any]:
    await seed(case.store, case.at)
    return {"empty": await case.store.is_empty()}


@row("khepri_tx:is_empty")
async def _(case: Case) -> Mapping[str, Any]:
    await seed(case.store, case.at)
    return {"empty": (await case.store.transaction([IsEmpty()]))[0]}


@row("khepri:fold")
async def _(case: Case) -> Mapping[str, Any]:
    await _numbers(case)

    def add(path: NativePath, props: NodeProps, total: int) -> int:
        del path
        return total + int(props.data)

    everything, fold = case.at(PathMatches()), case.store.procedures.fold
    here = await case.store.fold(everything, add, 10)
    assert await case.store.fold(case.at("gold"), add, 10) == 10
    there = await fold(everything, SUM, 10)
    assert here == there
    return {
        "sum": there,
        "nothing": await fold(case.at("gold"), SUM, 10),
        "raises": await attempt(fold(case.at(NameMatches()), SUM, Atom("none"))),
    }


@row("khepri:foreach")
async def _(case: Case) -> Mapping[str, Any]:
    await _numbers(case)
    seen: list[Any] = []
    await case.store.for_each(case.at(NameMatches()), lambda path, props: seen.append(props.data))
    assert sorted(seen) == [1, 2, 3, 4]
    for_each = case.store.procedures.for_each
    return {
        "each": await attempt(for_each(case.at(NameMatches()), DOUBLE)),
        "nothing": await attempt(for_each(case.at("gold"), DOUBLE)),
    }


@row("khepri:map")
async def _(case: Case) -> Mapping[str, Any]:
    await _numbers(case)
    here = await case.store.map(case.at(NameMatches()), lambda path, props: 2 * props.data)
    there = await case.store.procedures.map(case.at(NameMatches()), DOUBLE)
    assert here == there
    return {"each": there, "nothing": await case.store.procedures.map(case.at("gold"), DOUBLE)}


@row("khepri:filter")
async def _(case: Case) -> Mapping[str, Any]:
    await _numbers(case)
    here = await case.store.filter(case.at(NameMatches()), lambda path, props: props.data % 2 == 0)
    there = await case.store.procedures.filter(case.at(NameMatches()), IS_EVEN)
    assert here == there
    return {"each": there, "nothing": await case.store.procedures.filter(case.at("gold"), IS_EVEN)}


@row("khepri:run_sproc")
async def _(case: Case) -> Mapping[str, Any]:
    await seed(case.store, case.at)
    procedures = case.store.procedures
    return {
        "value": await procedures.run(case.at("sell"), [1, [2, 3]]),
        "raises": await attempt(procedures.run(case.at("sell"), [1, Atom("none")])),
        "data": await attempt(procedures.run(case.at("wood"))),
        "missing": await attempt(procedures.run(case.at("gold"))),
    }


@row("khepri:transaction")
async def _(case: Case) -> Mapping[str, Any]:
    count, run = list(case.at("count")), case.store.procedures.transaction
    await case.store.procedures.put(case.at("add"), ADD)
    return {
        "counts": await attempt(run(ADD, [count, 5])),
        "counts again": await attempt(run(ADD, [count, 2], mode="rw")),
        "reads": await attempt(run(READ, [count], mode="ro")),
        "reads nothing": await attempt(run(READ, [list(case.at("gold"))])),
        "aborts": await attempt(run(ADD, [count, -8])),
        "raises": await attempt(run(CHANGE, [1, Atom("none")])),
        "writes where it may not": await attempt(run(ADD, [count, 1], mode="ro")),
        "a procedure": await attempt(run(case.at("add"), [count, 4])),
        "no procedure": await attempt(run(case.at("gold"), [count, 4])),
        "no procedure either": await attempt(run(count, [count, 4])),
    }


@row("khepri_tx:abort")
async def _(case: Case) -> Mapping[str, Any]:
    await seed(case.store, case.at)
    operations: list[Operation] = [Put(case.at("wood"), 2), Abort((Atom("too"), b"much"))]
    return {"aborted": await attempt(case.store.transaction(operations))}


@row("khepri:fence")
async def _(case: Case) -> Mapping[str, Any]:
    await case.store.put(case.at.path, 1)
    return {"fenced": await attempt(case.store.fence()), "read": await case.store.get(case.at.path)}


@row("khepri:handle_async_ret", reading=lambda told: None if isinstance(told, Mapping) else told)
async def _(case: Case) -> Mapping[str, Any]:
    writes: dict[str, Put | Delete] = {
        "1": Put(case.at("wood"), 1),
        "2": Put(case.at("wood"), 2),
        "3": Delete(case.at("gold")),
        "4": Put(case.at("iron", "bars"), 3),
        "5": Delete(case.at("iron")),
    }
    return {label: outcome.error for label, outcome in (await case.store.pipeline(writes)).items()}


async def _exported(case: Case) -> Mapping[str, Any]:
    await seed(case.store, case.at)
    await case.store.delete(case.at("sell"))
    # The same nodes, so that the files must be the same, beside the encoding that ours names.
    file = case.directory / "python.erl"
    assert await case.store.export_to(file, case.theirs(PathMatches())) == 6
    header, _, rest = file.read_bytes().partition(b"\n")
    assert header.startswith(b"%% coding: latin-1")
    assert rest == File(_file(case).decode()).read_bytes()
    exported = await case.store.export_bytes(case.theirs(PathMatches()))
    assert exported.data == file.read_bytes()
    return {"exported": None}


row("khepri:export", _file)(_exported)
row("khepri_import_export:export", _file)(_exported)


def _import(name: str) -> Half:
    async def imported(case: Case) -> Mapping[str, Any]:
        """What one side exported is imported by the other; before, Elixir imports what Python exports."""
        file = case.directory / "elixir.erl"
        await seed(case.store, case.at)
        await case.store.delete(case.at("sell"))
        case.elixir.row(f"{name}:export", case.theirs.path, str(file).encode())
        await case.store.delete(case.theirs.path)
        # Without the one that comes with its child.
        assert await case.store.import_from(file) == 5
        ours = case.directory / "ours.erl"
        await case.store.export_to(ours, case.at(PathMatches()))
        await case.store.delete(case.at.path)
        again = case.elixir.row(f"{name}:import", case.at.path, str(ours).encode())
        return {label: of_elixir(term) for label, term in again.items()}

    return imported


def _nothing_exported(case: Case) -> bytes:
    """The Elixir half comes first, when there is nothing to import yet but an empty file of Khepri's."""
    file = case.directory / "nothing.erl"
    file.write_bytes(b"%% Khepri export\n")
    return str(file).encode()


row("khepri:import", _nothing_exported)(_import("khepri"))
row("khepri_import_export:import", _nothing_exported)(_import("khepri_import_export"))


@row("khepri:info", lambda case: _our_table(case).encode())
async def _(case: Case) -> Mapping[str, Any]:
    kept = case.at("kept")
    await case.store.put(case.at("wood"), 1)
    await case.store.put(kept, 1, keep_while={case.at("wood"): NodeExists(True)})
    info = await case.store.cluster.info()
    watching = {tuple(path) for path in info["keep_while"]}
    assert (*kept[:-2], case.theirs.path[-1], b"kept") in watching
    return {
        "members": sorted(str(member).encode() for member in info["members"]),
        "kept": native_pattern(kept) in watching,
        "projection": _our_table(case)
        in {str(projection[Atom("name")]) for projection in info["projections"]},
    }


async def _touch(case: Case) -> None:
    for name in ("watched", "quiet", "other"):
        await case.store.put(case.at(name), 1)
        await case.store.put(case.at(name), 2)
        await case.store.delete(case.at(name))


def _unordered(value: Any) -> Any:
    """Events come in no promised order."""
    return sorted(value, key=repr) if isinstance(value, list) else value


@row("khepri:register_trigger", reading=_unordered)
async def _(case: Case) -> Mapping[str, Any]:
    procedures, told = case.store.procedures, case.at("told")
    await procedures.put(told, TOLD)
    registered = {
        "all": await attempt(procedures.register_trigger(f"all_{case.token}", case.at("watched"), told)),
        "deletion": await attempt(
            procedures.register_trigger(f"deletion_{case.token}", case.at("quiet"), told, on=["delete"])
        ),
    }
    await _touch(case)
    return {**registered, "events": _unordered(case.elixir.events(case.at.path, 4))}


@row("khepri_evf:tree", reading=_unordered)
async def _(case: Case) -> Mapping[str, Any]:
    procedures, told = case.store.procedures, case.at("told")
    await procedures.put(told, TOLD)
    registered = await attempt(
        procedures.register_trigger(
            f"tree_{case.token}", case.at("watched"), told, on=["create", "delete"], priority=7
        )
    )
    await _touch(case)
    return {"registered": registered, "events": _unordered(case.elixir.events(case.at.path, 2))}


@row("khepri_evf:set_priority")
async def _(case: Case) -> Mapping[str, Any]:
    procedures = case.store.procedures
    await procedures.put(case.at("told"), TOLD)
    await procedures.put(case.at("also"), TOLD_AS_WELL)
    for name, procedure, priority in (("low", "told", 1), ("high", "also", 2)):
        await procedures.register_trigger(
            f"{name}_{case.token}", case.at("watched"), case.at(procedure), on=["create"], priority=priority
        )
    await _touch(case)
    return {"events": case.elixir.events(case.at.path, 2)}


@row("khepri:register_projection", _table)
async def _(case: Case) -> Mapping[str, Any]:
    await _numbers(case)
    projections, name = case.store.projections, _our_table(case)
    children = case.at(NameMatches())
    registered = await attempt(projections.register(name, children, INDEX))
    again = await attempt(projections.register(name, children, INDEX))
    await case.store.put(case.at("five"), 5)
    await case.store.delete(case.at("two"))
    await case.store.fence()
    return {
        "registered": registered,
        "again": again,
        "objects": sorted(await projections.objects(name)),
        "found": await projections.lookup(name, b"five"),
    }


@row("khepri_projection:new", _table)
async def _(case: Case) -> Mapping[str, Any]:
    for names, data in (("a", (1, Atom("x"))), ("b", (2, Atom("x"))), ("c", (3, Atom("y")))):
        await case.store.put(case.at(names), data)
    projections, name = case.store.projections, _our_table(case)
    registered = await attempt(projections.register(name, case.at(NameMatches()), table="bag", keypos=2))
    await case.store.fence()
    found = await projections.lookup(name, Atom("x"))
    return {"registered": registered, "found": sorted(found, key=repr), "table": [Atom("bag"), 2]}


async def _projection(case: Case) -> None:
    await case.store.projections.register(_our_table(case), case.at(NameMatches()), INDEX)
    await case.store.fence()


@row("khepri:has_projection", _table)
async def _(case: Case) -> Mapping[str, Any]:
    await _projection(case)
    has = case.store.projections.has
    return {"there": await has(_our_table(case)), "missing": await has("parity_no_projection")}


@row("khepri:unregister_projections", _table)
async def _(case: Case) -> Mapping[str, Any]:
    await _projection(case)
    projections, name = case.store.projections, _our_table(case)
    assert await projections.unregister(name, "parity_no_projection") == [name]
    await case.store.fence()
    there = await projections.has(name)
    assert await projections.unregister(name) == []
    return {"gone": None, "there": there, "again": None}


@row("khepri_adv:unregister_projections", _table)
async def _(case: Case) -> Mapping[str, Any]:
    await _projection(case)
    projections, name = case.store.projections, _our_table(case)
    gone = await projections.unregister(name, "parity_no_projection")
    return {"gone": len(gone), "again": len(await projections.unregister(name))}


async def _members(case: Case) -> Mapping[str, Any]:
    return {"found": frozenset(await case.store.cluster.members())}


def _names(members: Any) -> Any:
    """Of nodes, or of members, which are pairs of store and node."""
    if not isinstance(members, list):
        return members
    return frozenset(str(member[1] if isinstance(member, tuple) else member) for member in members)


for _function in ("members", "nodes", "locally_known_members", "locally_known_nodes"):
    row(f"khepri_cluster:{_function}", reading=_names)(_members)


@row("khepri_cluster:wait_for_leader")
async def _(case: Case) -> Mapping[str, Any]:
    assert await case.store.cluster.leader() == await case.store.cluster.wait_for_leader()
    return {"found": None}


@row("khepri_cluster:get_store_ids")
async def _(case: Case) -> Mapping[str, Any]:
    return {"found": [Atom(name) for name in await case.store.cluster.stores()]}


@row("khepri_cluster:is_store_running")
async def _(case: Case) -> Mapping[str, Any]:
    return {"found": await case.store.cluster.is_running()}


@row("khepri_cluster:this_member")
async def _(case: Case) -> Mapping[str, Any]:
    await case.store.exists("/:parity")
    return {"found": (Atom(case.store.store.text), Atom(str(case.store.caller.current)))}


@row("khepri_condition:is_valid")
async def _(case: Case) -> Mapping[str, Any]:
    del case

    def valid(make: Callable[[], Any]) -> bool:
        """Conditions refuse what is malformed when they are made, or when they are put into a path."""
        try:
            return is_valid_path([make()])
        except ConfigurationError:
            return False

    conditions: Mapping[str, Callable[[], Any]] = {
        "an atom": lambda: Atom("wood"),
        "a binary": lambda: b"wood",
        "a number": lambda: 3,
        "a map": dict,
        "any name": NameMatches,
        "a regular expression": lambda: NameMatches("^w"),
        "data": lambda: DataMatches({Atom("a"): MatchAny()}),
        "a comparison": lambda: PayloadVersion("ge", 3),
        "no comparison": lambda: PayloadVersion("near", 3),  # type: ignore[arg-type]
        "no flag": lambda: HasData("maybe"),  # type: ignore[arg-type]
        "not": lambda: Not(HasData(True)),
        "not what is none": lambda: Not(3),  # type: ignore[arg-type]
        "all": lambda: AllOf("wood", HasData(True)),
        "all of nothing": lambda: AllOf(),
        "all of what is none": lambda: AllOf(3),  # type: ignore[arg-type]
        "any of nothing": lambda: AnyOf(),
    }
    return {label: valid(make) for label, make in conditions.items()}


@row("khepri_payload:none")
async def _(case: Case) -> Mapping[str, Any]:
    await seed(case.store, case.at)
    return {"cleared": await attempt(case.store.clear_payload(case.at("wood")))}


@row("khepri_payload:data")
async def _(case: Case) -> Mapping[str, Any]:
    return {"put": await attempt(case.store.put(case.at("wood"), (Atom("oak"), 3)))}


@row("khepri_payload:sproc")
async def _(case: Case) -> Mapping[str, Any]:
    procedures = case.store.procedures
    return {
        "put": await attempt(procedures.put(case.at("sell"), CHANGE)),
        "value": await attempt(procedures.run(case.at("sell"), [1, [2]])),
    }
