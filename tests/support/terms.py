"""Arbitrary Erlang terms, as what a homeserver of another version or a broken one might answer."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from bridge.etf import Atom

_leaves = st.one_of(
    st.integers(-(2**70), 2**70),
    st.binary(max_size=20),
    st.floats(allow_nan=False),
    st.sampled_from(["ok", "error", "undefined", "grant", "recall", "allow", "true", "x"]).map(Atom),
)
_keys = st.one_of(st.sampled_from(["trace", "hop", "type", "data"]).map(Atom), st.integers(), st.binary())

terms: st.SearchStrategy[Any] = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(_keys, inner, max_size=4),
    ),
    max_leaves=12,
)
"""Numbers, binaries, atoms, lists, tuples and maps, nested a little."""
