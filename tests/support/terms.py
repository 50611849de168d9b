"""Arbitrary Erlang terms: of every kind, and such as a homeserver of another version might answer."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st

from bridge.etf import (
    Atom,
    BitString,
    Closure,
    ErlangMap,
    ExportFun,
    ImproperList,
    Pid,
    Port,
    Reference,
    encode_bare,
    term_identity,
)

_WORD: Final = st.integers(0, 2**32 - 1)
_BYTE: Final = st.integers(0, 255)
_NODE: Final = st.sampled_from(["n@h", "true", "", "naïve@日本", "x" * 255]).map(Atom)

atoms: Final = st.one_of(
    st.sampled_from(["ok", "error", "undefined", "", "naïve", "日" * 255, "é" * 255]),
    st.text(max_size=20),
).map(lambda text: {"true": True, "false": False}.get(text, Atom(text)))
"""Those of the texts ``true`` and ``false`` are ``bool``, as the decoder gives them."""
pids: Final = st.builds(Pid, _NODE, _WORD, _WORD, _WORD)
integers: Final = st.one_of(
    st.integers(-2, 2), st.integers(), st.integers(0, 2050).map(lambda bits: 1 << bits), st.just(-(2**31))
)
floats: Final = st.one_of(st.sampled_from([0.0, -0.0, 1.0]), st.floats(allow_nan=False, allow_infinity=False))
_identifiers: Final = st.one_of(
    pids,
    st.builds(Port, _NODE, st.one_of(_WORD, st.integers(0, 2**64 - 1)), _WORD),
    st.builds(Reference, _NODE, _WORD, st.lists(_WORD, min_size=1, max_size=5).map(tuple)),
    st.builds(ExportFun, _NODE, _NODE, _BYTE),
)
_any_leaf: Final = st.one_of(
    atoms,
    st.booleans(),
    integers,
    floats,
    st.binary(max_size=40),
    st.builds(BitString, st.binary(min_size=1, max_size=4), st.integers(1, 7)),
    _identifiers,
)


# A function, since what hypothesis says of a failure would else spell out each of the strategies above.
@st.composite
def _leaves(draw: st.DrawFn) -> Any:
    return draw(_any_leaf)


@st.composite
def _closures(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> Closure:
    free = draw(st.lists(inner, max_size=3))
    head = bytes((draw(_BYTE),)) + draw(st.binary(min_size=16, max_size=16)) + bytes(4)
    parts = [draw(_NODE), draw(_BYTE), draw(integers), draw(pids), *free]
    return Closure(head + len(free).to_bytes(4, "big") + b"".join(encode_bare(part) for part in parts))


def _different(pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    return list({term_identity(key): (key, value) for key, value in pairs}.values())


@st.composite
def maps(draw: st.DrawFn, keys: st.SearchStrategy[Any], values: st.SearchStrategy[Any]) -> ErlangMap:
    """A map of up to six pairs, whatever the keys."""
    return ErlangMap(_different(draw(st.lists(st.tuples(keys, values), max_size=6))))


@st.composite
def _improper_lists(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> ImproperList:
    tail = draw(inner)
    return ImproperList(
        draw(st.lists(inner, min_size=1, max_size=3)),
        (tail,) if isinstance(tail, (list, ImproperList)) else tail,
    )


def _containers(inner: st.SearchStrategy[Any], keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=5),
        st.lists(_BYTE, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        _improper_lists(inner),
        maps(keys, inner),
        _closures(inner),
    )


every_term: Final[st.SearchStrategy[Any]] = st.recursive(
    _leaves(), lambda inner: _containers(inner, inner), max_leaves=20
)
"""Every kind of term, and every kind as a key of maps."""

binary_keyed_terms: Final[st.SearchStrategy[Any]] = st.recursive(
    _leaves(), lambda inner: _containers(inner, st.binary(max_size=5)), max_leaves=20
)
"""The same with binaries alone as keys, for readers to whom ``1`` and ``1.0`` are one key."""

_answer_leaves: Final = st.one_of(
    st.integers(-(2**70), 2**70),
    st.binary(max_size=20),
    st.floats(allow_nan=False),
    st.sampled_from(["ok", "error", "undefined", "grant", "recall", "allow", "true", "x"]).map(Atom),
)
_answer_keys: Final = st.one_of(
    st.sampled_from(["trace", "hop", "type", "data"]).map(Atom), st.integers(), st.binary()
)

terms: Final[st.SearchStrategy[Any]] = st.recursive(
    _answer_leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(_answer_keys, inner, max_size=4),
    ),
    max_leaves=12,
)
"""Numbers, binaries, atoms, lists, tuples and maps, nested a little, with names that answers have."""
