from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.cli.term_erlang import erlang_from_term
from bridge.cluster.local import LocalCluster
from bridge.etf import Atom, BitString, ImproperList, Pid
from bridge.khepri import fun
from bridge.node import HiddenNode
from tests.support.cluster import erlang


@pytest.mark.parametrize(
    ("term", "text"),
    [
        (Atom("ok"), "ok"),
        (Atom("Elixir.Stock"), "'Elixir.Stock'"),
        (Atom("end"), "'end'"),
        (Atom("it's"), "'it\\'s'"),
        (Atom(""), "''"),
        (True, "true"),
        (-3, "-3"),
        (2.0, "2.0"),
        (1e300, "1.0e+300"),
        (b"wood", '<<"wood">>'),
        ("holz\n", '<<"holz\\n">>'),
        ("größe".encode(), '<<"größe"/utf8>>'),
        (b"\xff\x00", "<<255, 0>>"),
        (b"", "<<>>"),
        ((Atom("a"), [1, b'"']), '{a, [1, <<"\\"">>]}'),
        ({b"count": 3}, '#{<<"count">> => 3}'),
        (ImproperList([1, 2], 3), "[1, 2 | 3]"),
        (BitString(b"\x01\xa0", 3), "<<1, 5:3>>"),
        (fun("stock:sell/2"), "fun stock:sell/2"),
    ],
)
def test_a_term_is_written_as_in_erlang(term: Any, text: str) -> None:
    assert erlang_from_term(term) == text


def test_what_has_no_syntax_is_shown_all_the_same() -> None:
    assert erlang_from_term([Pid(Atom("a@b"), 1, 2, 3)]).startswith("[<Pid(")


ATOMS = st.text(max_size=20).map(Atom)
TERMS = st.recursive(
    st.one_of(
        ATOMS,
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.binary(),
        st.text().map(str.encode),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.binary(max_size=8), inner, max_size=3),
    ),
    max_leaves=12,
)


@erlang
async def test_erlang_reads_the_same_term_again(node: HiddenNode, cluster: LocalCluster) -> None:
    member = cluster.members[0]
    found: list[Any] = []

    @given(TERMS)
    def collect(term: Any) -> None:
        found.append(term)

    collect()
    for term in found:
        text = list(map(ord, erlang_from_term(term) + "."))
        scanned = await node.call(member, "erl_scan", "string", [text])
        parsed = await node.call(member, "erl_parse", "parse_exprs", [scanned[1]])
        value = await node.call(member, "erl_eval", "exprs", [parsed[1], []])
        assert value[1] == term, erlang_from_term(term)
