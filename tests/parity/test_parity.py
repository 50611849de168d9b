"""Khepri from Elixir and from Python, one after the other, and what came of it: ``docs/parity.md``."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bridge.etf import Atom
from bridge.khepri import Khepri
from tests.parity import table, verbs
from tests.parity.cases import ROWS, VERBS
from tests.parity.differences import DIFFERENCES, TREES
from tests.parity.elixir import Elixir
from tests.parity.outcomes import Raised, comparable, of_elixir
from tests.parity.rows import Case
from tests.parity.tree import PROPS, tree
from tests.parity.verbs import MODULES, Root

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


def roots(token: str) -> tuple[Root, Root]:
    parent = (Atom("parity"), token.encode())
    return Root((*parent, Atom("elixir"))), Root((*parent, Atom("python")))


async def check_trees(name: str, store: Khepri, theirs: Root, ours: Root) -> None:
    """Both sides left the same tree, but for what `TREES` names."""
    assert await tree(store, theirs, PROPS - {TREES.get(name)}) == await tree(
        store, ours, PROPS - {TREES.get(name)}
    )
    if name in TREES:
        assert await tree(store, theirs, [TREES[name]]) != await tree(store, ours, [TREES[name]])


def check(name: str, yours: Mapping[str, Any], mine: Mapping[str, Any], theirs: Root, ours: Root) -> None:
    """What both sides have is the same, but for what `DIFFERENCES` names."""
    assert yours.keys() == mine.keys()
    stated = DIFFERENCES.get(name, {})
    assert stated.keys() <= mine.keys()
    wrong = []
    for label, ourselves in mine.items():
        same = comparable(yours[label], theirs.path) == comparable(ourselves, ours.path)
        if label not in stated and not same:
            wrong.append(f"{label}: Elixir {yours[label]!r}, Python {ourselves!r}")
        elif label in stated and same:
            wrong.append(f"{label}: no difference any more, take it out of DIFFERENCES")
        elif label in stated and comparable(ourselves, ours.path) != comparable(
            stated[label](ours), ours.path
        ):
            wrong.append(f"{label}: Python gives {ourselves!r}, not what is stated")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", VERBS)
async def test_a_verb_is_the_same_in_both(name: str, elixir: Elixir, store: Khepri) -> None:
    module, function = name.split(":")
    theirs, ours = roots(secrets.token_hex(8))
    given = elixir.verb(name, theirs.path)
    await verbs.seed(store, ours)
    found = {
        label: await verbs.run(store, module, step) for label, step in MODULES[module][function](ours).items()
    }
    check(name, {label: of_elixir(term) for label, term in given.items()}, found, theirs, ours)
    await check_trees(name, store, theirs, ours)


@pytest.mark.parametrize("name", ROWS)
async def test_any_other_row_is_the_same_in_both(
    name: str, elixir: Elixir, store: Khepri, tmp_path: Path
) -> None:
    token = secrets.token_hex(8)
    theirs, ours = roots(token)
    # Members that were taken from an image run as somebody else.
    tmp_path.chmod(0o755)
    case = Case(
        store=store,
        at=ours,
        theirs=theirs,
        elixir=elixir,
        token=token,
        directory=tmp_path,
    )
    row = ROWS[name]
    given = elixir.row(name, theirs.path, row.argument(case))
    found = await row.python(case)
    outcomes = {label: of_elixir(term) for label, term in given.items()}
    if outcomes == {"found": Raised("error", Atom("undef"))} and table.ROWS[name].of_some_versions:
        return
    check(name, {label: row.reading(outcome) for label, outcome in outcomes.items()}, found, theirs, ours)
    await check_trees(name, store, theirs, ours)
