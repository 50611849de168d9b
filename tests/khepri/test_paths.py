from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.cluster.local import LocalCluster
from bridge.errors import ConfigurationError
from bridge.etf import Atom, ExportFun, decode_term, encode_term
from bridge.khepri import (
    AllOf,
    AnyOf,
    HasData,
    NameMatches,
    NativePattern,
    NodeExists,
    Not,
    PathMatches,
    Special,
    absolute_path,
    combine_with_conditions,
    component_targets_specific_node,
    includes_root,
    is_valid_path,
    native_path,
    native_pattern,
    parse_path,
    path_text,
    real_path,
    targets_specific_node,
)
from bridge.khepri.paths import MAX_PATH_BYTES, pattern_from_term, wire_path, wire_relative_path
from bridge.node import HiddenNode
from tests.support.khepri_terms import conditions, names, specials

paths = st.lists(st.one_of(names, specials), max_size=5).map(tuple)
patterns = st.lists(st.one_of(names, specials, conditions()), max_size=4).map(tuple)
texts = st.one_of(
    st.text("/:.*^%2Aab\u00f6", max_size=12),
    st.lists(st.sampled_from(["/", ":a", ".", "..", "*", "**", "%", "b"])).map("".join),
)
THIS, PARENT, ROOT = Special.THIS, Special.PARENT, Special.ROOT


def parses(text: str) -> bool:
    return is_valid_path(text)


def test_text_goes_to_the_homeserver_as_it_is() -> None:
    assert wire_path("/:stock/wöod") == "/:stock/wöod".encode()
    assert wire_path(b"/:stock") == b"/:stock"


@pytest.mark.parametrize(
    "path", ["stock", "", ":stock/wood", b"stock", "./a", [THIS, "a"], [PARENT], (PARENT, "a")]
)
def test_a_relative_path_is_no_absolute_one(path: Any) -> None:
    with pytest.raises(ConfigurationError, match="no absolute path"):
        wire_path(path)


@pytest.mark.parametrize(
    ("path", "term"),
    [
        (".", b"."),
        ("../b", b"../b"),
        ([THIS], [46]),
        ([PARENT, "b"], [94, b"b"]),
        ("/:stock", b"/:stock"),
        (
            [Atom("stock"), NameMatches()],
            [Atom("stock"), (Atom("if_name_matches"), Atom("any"), Atom("undefined"))],
        ),
    ],
)
def test_a_kept_node_may_watch_relative_to_itself(path: Any, term: object) -> None:
    assert wire_relative_path(path) == term


def test_a_path_has_a_longest_length() -> None:
    assert len(wire_path("/" + "x" * (MAX_PATH_BYTES - 1))) == MAX_PATH_BYTES
    for text in ("/" + "x" * MAX_PATH_BYTES, b"/" + b"x" * MAX_PATH_BYTES):
        with pytest.raises(ConfigurationError, match="longer than"):
            wire_path(text)
        with pytest.raises(ConfigurationError, match="longer than"):
            wire_relative_path(text)


def test_components_become_atoms_and_binaries() -> None:
    assert wire_path([Atom("stock"), "wood", b"oak"]) == [Atom("stock"), b"wood", b"oak"]


def test_components_that_name_no_node_are_resolved_before_sending() -> None:
    assert wire_path([ROOT, "a", THIS, "b", PARENT, "c"]) == [b"a", b"c"]


def test_conditions_stand_in_a_pattern() -> None:
    assert wire_path(["stock", AllOf("wood", HasData())]) == [
        b"stock",
        (Atom("if_all"), [b"wood", (Atom("if_has_data"), True)]),
    ]


@pytest.mark.parametrize(
    ("path", "match"),
    [
        (Atom("stock"), "put it in a list"),
        (7, "no path"),
        (None, "no path"),
        ({b"stock"}, "no path"),
        ([Atom("stock"), 7], "no path component"),
        ([(Atom("if_has_data"), True)], "no path component"),
        ([Not(7)], "no condition"),  # type: ignore[arg-type]  # what a caller without types may do
    ],
)
def test_what_is_no_path_is_refused(path: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        wire_path(path)
    assert not is_valid_path(path)


@pytest.mark.parametrize("path", ["/:a", "", ".", [], [Atom("a"), HasData()], (ROOT,)])
def test_what_khepri_takes_is_valid(path: Any) -> None:
    assert is_valid_path(path)


@pytest.mark.parametrize("path", [7, None, [None]])
def test_anything_else_is_not(path: Any) -> None:
    assert not is_valid_path(path)


def test_a_native_path_can_be_a_key() -> None:
    assert {native_path([Atom("stock"), "wood"]): 1}[Atom("stock"), b"wood"] == 1
    assert native_path("/:stock/wood") == native_path(b"/:stock/wood") == (Atom("stock"), b"wood")
    for path in ([Special.ROOT], "stock", "/*"):
        with pytest.raises(ConfigurationError, match="no path component"):
            native_path(path)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("/:stock/wood", (Atom("stock"), b"wood")),
        ("wood", (THIS, b"wood")),
        ("..", (PARENT,)),
        ("^", (PARENT,)),
        ("/", ()),
        ("//", (b"",)),
        ("/a/", (b"a",)),
        ("/*/**", (NameMatches(), PathMatches())),
        ("*", (NameMatches(),)),
        ("/a*b.", (NameMatches(b"^a.*b.$"),)),
        ("/%2A", (NameMatches(b"^.*$"),)),
        ("/%3Aa", (b":a",)),
        ("/:%F6", (Atom("ö"),)),
        (b"/\xff", (b"\xff",)),
    ],
)
def test_text_is_parsed(text: str | bytes, pattern: NativePattern) -> None:
    assert parse_path(text) == native_pattern(text) == pattern


@pytest.mark.parametrize("text", ["/^/a", "^/", "a/^/b"])
def test_a_parent_written_as_in_a_native_path_is_no_text(text: str) -> None:
    """Khepri takes the rest for a native path and gives back what is none."""
    with pytest.raises(ConfigurationError, match="the parent"):
        parse_path(text)


def test_an_atom_too_long_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="255"):
        parse_path("/:" + "x" * 256)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ([], "/"),
        ([Atom("stock"), "wood"], "/:stock/wood"),
        ([b":wood"], "/%3Awood"),
        ([b"a/b"], "/a%2Fb"),
        ([b".."], "/%2E."),
        ([b"."], "/%2E"),
        ([Atom(".")], "/:%2E"),
        ([b"*"], "/%2A"),
        ([b"100%"], "/100%25"),
        (["ö"], "/%C3%B6"),
        ([Atom("ö")], "/:%F6"),
        ([Atom("木")], "/:%E6%9C%A8"),
        ([THIS], "."),
        ([THIS, b"a"], "a"),
        ([THIS, b"", b"a"], ".//a"),
        ([PARENT, b"a"], "../a"),
        ([b"a", b""], "/a//"),
    ],
)
def test_text_escapes_what_would_mean_something_else(path: Any, text: str) -> None:
    assert path_text(path) == text


def test_a_condition_has_no_text() -> None:
    with pytest.raises(ConfigurationError, match="no text"):
        path_text([HasData()])  # type: ignore[list-item]  # what a caller without types may do


@given(
    st.lists(names, max_size=4).filter(lambda path: not any(b"*" in n for n in path if isinstance(n, bytes)))
)
def test_text_of_names_parses_to_them(path: list[Atom | bytes]) -> None:
    text = path_text(path)
    assert parse_path(text) == tuple(path)
    assert text.isascii()
    assert wire_path(text) == text.encode()


@given(paths)
def test_a_real_path_is_its_own(path: NativePattern) -> None:
    assert real_path(real_path(path)) == real_path(path)
    assert includes_root(path) == (real_path(path) == ())


@given(patterns)
def test_a_pattern_comes_back_from_the_wire(pattern: NativePattern) -> None:
    assert pattern_from_term(terms_of(pattern)) == pattern


@pytest.mark.parametrize("text", ["true", "false"])
def test_the_names_that_decode_to_bools_are_names(text: str) -> None:
    name = Atom(text)
    pattern = (name, AnyOf(name, b"x"))
    assert pattern_from_term(terms_of(pattern)) == pattern
    assert native_path(decode_term(encode_term([name, b"x"]))) == (name, b"x")


@pytest.mark.parametrize("term", [b"/:a", [7], [Atom("a"), (Atom("if_what"), 1)]])
def test_a_term_that_is_no_pattern_is_refused(term: Any) -> None:
    with pytest.raises(ConfigurationError):
        pattern_from_term(term)


@pytest.mark.parametrize("path", [[], [THIS], ["a", PARENT]])
def test_conditions_combine_with_a_name_only(path: Any) -> None:
    assert combine_with_conditions(path) == tuple(path if path != ["a", PARENT] else [b"a", PARENT])
    with pytest.raises(ConfigurationError, match="no name"):
        combine_with_conditions(path, NodeExists())


def test_conditions_combine_with_the_last_component() -> None:
    assert combine_with_conditions("/:a/b", NodeExists(), HasData()) == (
        Atom("a"),
        AllOf(b"b", NodeExists(), HasData()),
    )


def test_a_relative_path_counts_from_its_base() -> None:
    assert absolute_path("../c", "/a/b") == (b"a", b"c")
    assert absolute_path("c", [b"a"]) == (b"a", b"c")
    assert absolute_path("/c", "/a/b") == (b"c",)
    assert absolute_path([], "/a") == ()


@pytest.mark.parametrize(
    ("component", "target"),
    [
        ("wood", b"wood"),
        (ROOT, ROOT),
        (NameMatches(), None),
        (Not("wood"), None),
        (AllOf(), None),
        (AllOf(HasData(), "wood", "wood"), b"wood"),
        (AllOf("wood", "stone"), None),
        (AnyOf(), None),
        (AnyOf("wood", "wood"), b"wood"),
        (AnyOf("wood", HasData()), None),
    ],
)
def test_a_component_may_stand_for_one_name(component: Any, target: object) -> None:
    assert component_targets_specific_node(component) == target


class Khepri:
    """The real ``khepri_path``, many cases in one call."""

    def __init__(self, node: HiddenNode, member: str) -> None:
        self._node = node
        self._member = member

    async def each(self, function: str, *columns: Sequence[Any]) -> list[Any]:
        fun = ExportFun(Atom("khepri_path"), Atom(function), len(columns))
        applied = "map" if len(columns) == 1 else "zipwith"
        result: list[Any] = await self._node.call(
            self._member, "lists", applied, [fun, *map(list, columns)], timeout=30
        )
        return result


def collected(strategy: st.SearchStrategy[Any]) -> list[Any]:
    seen: list[Any] = []

    @given(strategy)
    def collect(value: Any) -> None:
        seen.append(value)

    collect()
    return seen


def terms_of(pattern: NativePattern) -> list[Any]:
    """As they come back: the names ``true`` and ``false`` are ``bool`` to the decoder."""
    sent = [c.value if isinstance(c, Special) else wire_path([c])[0] for c in pattern]
    found: list[Any] = decode_term(encode_term(sent))
    return found


@pytest.fixture
def khepri(node: HiddenNode, cluster: LocalCluster) -> Khepri:
    return Khepri(node, cluster.members[0])


@pytest.mark.erlang
@pytest.mark.slow
async def test_khepris_own_parser_finds_the_same_components(khepri: Khepri) -> None:
    seen = collected(texts.filter(parses))
    for function in ("from_binary", "from_string"):
        parsed = await khepri.each(function, [text.encode() for text in seen])
        assert [pattern_from_term(term) for term in parsed] == [parse_path(text) for text in seen]
    sigils = await khepri.each("sigil_p", [text.encode() for text in seen], [[] for _ in seen])
    assert [pattern_from_term(term) for term in sigils] == [parse_path(text) for text in seen]


@pytest.mark.erlang
@pytest.mark.slow
async def test_khepri_writes_the_same_text(khepri: Khepri) -> None:
    seen = collected(paths)
    written = await khepri.each("to_binary", [terms_of(path) for path in seen])
    assert written == [path_text(path).encode() for path in seen]


@pytest.mark.erlang
@pytest.mark.slow
async def test_khepri_resolves_paths_alike(khepri: Khepri) -> None:
    seen = collected(st.tuples(patterns, patterns))
    left, right = [terms_of(a) for a, _ in seen], [terms_of(b) for _, b in seen]
    assert await khepri.each("realpath", left) == [terms_of(real_path(a)) for a, _ in seen]
    assert await khepri.each("abspath", left, right) == [terms_of(absolute_path(a, b)) for a, b in seen]
    assert await khepri.each("pattern_includes_root_node", left) == [includes_root(a) for a, _ in seen]
    assert await khepri.each("is_valid", left) == [True] * len(seen)
    assert await khepri.each("ensure_is_valid", left) == [Atom("ok")] * len(seen)


@pytest.mark.erlang
@pytest.mark.slow
async def test_khepri_combines_and_aims_alike(khepri: Khepri) -> None:
    seen = [path for path in collected(patterns) if path and not isinstance(path[-1], Special)]
    terms = [terms_of(path) for path in seen]
    condition = (Atom("if_node_exists"), True)
    combined = await khepri.each("combine_with_conditions", terms, [[condition] for _ in seen])
    assert combined == [terms_of(combine_with_conditions(path, NodeExists())) for path in seen]
    # Khepri 0.16 looks into `if_not` as if it said yes.
    seen = [path for path in seen if "Not(" not in repr(path)]
    aimed = await khepri.each("targets_specific_node", [terms_of(path) for path in seen])
    for path, answer in zip(seen, aimed, strict=True):
        target = targets_specific_node(path)
        assert answer == (False if target is None else (True, terms_of(target)))
    components = [path[0] for path in seen]
    aimed = await khepri.each("component_targets_specific_node", [terms_of((c,))[0] for c in components])
    for component, answer in zip(components, aimed, strict=True):
        one = component_targets_specific_node(component)
        assert answer == (False if one is None else (True, terms_of((one,))[0]))
