"""Arbitrary conditions, patterns and paths, as a caller may write them."""

from __future__ import annotations

from typing import Any, get_args

from hypothesis import strategies as st

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
from bridge.khepri.conditions import Comparison

atom_names = st.text(st.characters(max_codepoint=255), max_size=12).map(Atom)
binary_names = st.binary(max_size=12)
names = st.one_of(atom_names, binary_names)
specials = st.sampled_from(Special)
_comparisons = st.sampled_from(get_args(Comparison))
_regexes = st.sampled_from([None, b"^a", b"w[ao]+d$", b".*"])


def patterns_of_data() -> st.SearchStrategy[Any]:
    """Terms with variables in them, nested a little."""
    leaves = st.one_of(
        st.just(MatchAny()),
        st.builds(MatchVariable, st.integers(0, 20)),
        st.integers(),
        st.binary(max_size=5),
        st.sampled_from(["ready", "undefined"]).map(Atom),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(st.binary(max_size=3), inner, max_size=3),
        ),
        max_leaves=6,
    )


def conditions() -> st.SearchStrategy[Condition]:
    """Conditions of every kind, nested a little; names are atoms and binaries."""
    flags = st.sampled_from([HasPayload, HasData, HasSproc, NodeExists])
    bounds = st.sampled_from([PayloadVersion, ChildListVersion, ChildListLength])
    leaves: st.SearchStrategy[Condition] = st.one_of(
        names,
        st.builds(NameMatches, _regexes),
        st.builds(PathMatches, _regexes),
        st.builds(lambda cls, flag: cls(flag), flags, st.booleans()),
        st.builds(lambda cls, c, n: cls(c, n), bounds, _comparisons, st.integers(0, 2**40)),
        st.builds(DataMatches, patterns_of_data(), st.just([(Atom(">"), MatchVariable(1), 3)])),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(Not, inner),
            st.lists(inner, max_size=3).map(lambda several: AllOf(*several)),
            st.lists(inner, max_size=3).map(lambda several: AnyOf(*several)),
        ),
        max_leaves=5,
    )
