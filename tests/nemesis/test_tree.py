"""A tree that is whole has no problems; each way to spoil it is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bridge.etf import Atom
from tests.nemesis.tree import problems, records, sessions

A, B = b"a" * 16, b"b" * 16
UNDEFINED = Atom("undefined")
Tree = dict[tuple[Any, ...], Any]


def atoms(**members: Any) -> dict[Atom, Any]:
    return {Atom(name): value for name, value in members.items()}


def path(kind: str, *names: Any) -> tuple[Any, ...]:
    return (Atom("bridge"), Atom(kind), *names)


def entity(**members: Any) -> dict[Atom, Any]:
    usual = {
        "entity": b"ball",
        "owner": b"Ann",
        "master": b"Ann",
        "default_owner": UNDEFINED,
        "rule": Atom("allow"),
        "session": A,
        "server": b"sim1",
        "epoch": 2,
        "awaiting": atoms(session=B, server=b"sim2", epoch=1, awaiting=UNDEFINED),
        "home": b"local",
        "version": 2,
    }
    return atoms(**(usual | members))


def whole() -> Tree:
    return {
        path("entities", b"ball"): entity(),
        path("sessions", A): atoms(session=A, server=b"sim1"),
        path("sessions", B): atoms(session=B, server=b"sim2"),
        path("servers", b"sim1"): atoms(server=b"sim1", session=A),
        path("servers", b"sim3"): atoms(server=b"sim3", session=UNDEFINED),
        path("held", A, b"7"): atoms(entities={b"ball": Atom("held")}),
        path("held", B, b"7"): atoms(entities={b"ball": Atom("held")}),
        path("inbox", B, b"ball"): atoms(type=Atom("recall")),
        path("owned", b"Ann", b"7"): atoms(entities={b"ball": Atom("owned")}),
        path("owned", b"Bob", b"7"): atoms(entities={}),
        path("grants"): atoms(incarnation=0, counter=2),
    }


def without(*where: Any) -> Callable[[Tree], None]:
    def spoil(tree: Tree) -> None:
        del tree[path(*where)]

    return spoil


def having(data: dict[Atom, Any], *where: Any) -> Callable[[Tree], None]:
    def spoil(tree: Tree) -> None:
        tree[path(*where)] = data

    return spoil


def test_a_tree_that_is_whole_has_no_problem() -> None:
    assert problems(whole(), {"ball"}) == []
    assert records(whole())["ball"].epoch == 2
    assert sessions(whole()) == {A, B}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without("entities", b"ball"), "ball was made and is not there"),
        (having(entity(entity=b"cup"), "entities", b"ball"), "ball says that it is cup"),
        (having(entity(entity=b"cup", epoch=1), "entities", b"cup"), "cup is there and was never made"),
        (having(entity(server=UNDEFINED), "entities", b"ball"), "ball has a session or a server, not both"),
        (without("sessions", A), "ball is held by a session that is not open"),
        (without("sessions", B), "ball awaits a release of a session that is not open"),
        (having(atoms(session=b"x"), "servers", b"sim1"), "server sim1 names a session that is not open"),
        (having(atoms(), "ending", b"x" * 16), "session 78787878 has ended and is not passed on"),
        (having(atoms(), "inbox", b"x" * 16, b"ball"), "an inbox message for session 78787878"),
        (without("held", B, b"7"), "ball is not in the index of session 62626262"),
        (
            having(atoms(entities={b"cup": Atom("held")}), "held", A, b"8"),
            "cup is in the index of session 61616161",
        ),
        (without("owned", b"Ann", b"7"), "ball is not in the index of its owner Ann"),
        (
            having(atoms(entities={b"ball": Atom("owned")}), "owned", b"Bob", b"7"),
            "ball is in the index of Bob, who does not own it",
        ),
        (having(atoms(incarnation=0, counter=1), "grants"), "ball has epoch 2, the last one given is 1"),
        (having(entity(entity=b"cup"), "entities", b"cup"), "have one epoch"),
    ],
)
def test_what_is_missing_or_too_much_is_named(spoil: Callable[[Tree], None], said: str) -> None:
    tree = whole()
    spoil(tree)
    found = problems(tree, {"ball"})
    assert any(said in text for text in found), found
