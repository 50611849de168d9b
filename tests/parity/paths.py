"""``khepri_path``: ``paths.exs`` in Python, on ordinary paths and on such as could be taken another way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bridge.etf import Atom
from bridge.khepri import (
    AllOf,
    AnyOf,
    HasData,
    NameMatches,
    NativePattern,
    NodeExists,
    Not,
    PathMatches,
    PayloadVersion,
    Special,
    absolute_path,
    combine_with_conditions,
    component_targets_specific_node,
    includes_root,
    is_valid_path,
    native_pattern,
    parse_path,
    path_text,
    real_path,
    targets_specific_node,
)
from bridge.khepri.conditions import condition_term
from bridge.khepri.paths import pattern_from_term, wire_relative_path
from tests.parity.outcomes import attempt
from tests.parity.rows import Case, row

TEXTS: Final = (
    "",
    "/",
    "//",
    "/:stock/wood",
    "/:stock/:wood/oak",
    "/stock/",
    "/stock//wood",
    "stock/wood",
    ":stock",
    "stock",
    ".",
    "..",
    "^",
    "./stock",
    "../stock/..",
    "../..",
    "/stock/../wood/.",
    "/*",
    "/**",
    "/stock/*/**",
    "/*o*",
    "/a.c*",
    "/:stock/%41%2f%2A",
    "/:%41tom",
    "/%C3%B6l",
    "/öl",
    "/:öl",
    "/%zz",
    "/%",
    "/:",
    "/%2E%2e",
    "/.hidden",
    "/...",
    "/with space",
    "/:with space",
)
EXACT: Final[Sequence[NativePattern]] = (
    (),
    (Special.ROOT,),
    (Atom("stock"), b"wood"),
    (Special.ROOT, Atom("stock"), b"wood"),
    (Special.THIS, b"wood"),
    (Special.THIS,),
    (Special.PARENT,),
    (Special.PARENT, Special.PARENT, Atom("wood")),
    (b"stock", Special.THIS, b"wood"),
    (b"stock", Special.PARENT, b"wood"),
    (b"stock", Special.PARENT, Special.PARENT, b"wood"),
    (b"stock", Special.ROOT, b"wood"),
    (b":stock", b"a/b", b"a%b", b"a*b", b"."),
    (Atom(":stock"), Atom("a/b"), Atom("a%b"), Atom("..")),
    (b"",),
    (b"", b"stock"),
    (b"stock", b""),
    (Atom(""),),
    (Atom("öl"), "öl".encode(), b"\xff"),
    (b" ", b"~", b"-_."),
)
"""paths without conditions"""
PATTERNS: Final[Sequence[NativePattern]] = (
    *EXACT,
    (Atom("stock"), NameMatches(), PathMatches()),
    (AllOf(b"wood", HasData(True)),),
    (AllOf(b"wood", b"iron"),),
    (AllOf(NameMatches(b"^w"), HasData(True)), b"wood"),
    (AllOf(AllOf(b"wood"), b"wood"),),
    (AllOf(AnyOf(b"wood"), HasData(True)),),
    (AllOf(),),
    (AnyOf(b"wood"),),
    (AnyOf(b"wood", b"wood"),),
    (AnyOf(b"wood", b"iron"),),
    (AnyOf(b"wood", HasData(True)),),
    (AnyOf(),),
    (NodeExists(True),),
    (Special.THIS, Atom("wood"), PayloadVersion("ge", 2)),
    (PathMatches(),),
)
NONE: Final[Sequence[Any]] = (
    (3,),
    (b"stock", 3.0),
    ((Atom("if_near"), True),),
)
"""no paths"""
BASED: Final = tuple(
    (path, base)
    for path in ((b"wood",), (Special.THIS, b"wood"), (Special.PARENT, b"wood"), (Special.PARENT,), ())
    for base in ((Atom("stock"), b"iron"), (b"stock",), ())
)
COMBINED: Final = (
    ((b"wood",), ()),
    ((b"stock", b"wood"), (HasData(True),)),
    ((b"wood",), (NodeExists(True), PayloadVersion("eq", 1))),
    ((NameMatches(),), (HasData(False),)),
    ((AllOf(b"wood", HasData(True)),), (NodeExists(True),)),
)


def _term(path: Any) -> Any:
    return wire_relative_path(path) if is_valid_path(path) else list(path)


def _path(term: Any) -> Any:
    return pattern_from_term(term) if isinstance(term, list) else term


def _checked(path: Any) -> None:
    native_pattern(path)


def _same(value: Any) -> Any:
    return value


def _each(
    function: str,
    arguments: Sequence[Any],
    terms: Sequence[Any],
    python: Callable[[Any], Any],
    reading: Callable[[Any], Any] = _same,
) -> None:
    """A case: the function on each argument, by its place."""

    async def one(argument: Any) -> Any:
        return python(argument)

    @row(f"khepri_path:{function}", lambda case: list(terms), reading)
    async def _(case: Case) -> Mapping[str, Any]:
        del case
        return {str(place): await attempt(one(argument)) for place, argument in enumerate(arguments)}


for _name in ("from_string", "from_binary", "sigil_p", "sigil_P"):
    _each(_name, TEXTS, [text.encode() for text in TEXTS], parse_path, _path)
_each("to_string", EXACT, [_term(path) for path in EXACT], lambda path: list(path_text(path).encode()))
_each("to_binary", EXACT, [_term(path) for path in EXACT], lambda path: path_text(path).encode())
_each(
    "targets_specific_node",
    PATTERNS,
    [_term(path) for path in PATTERNS],
    targets_specific_node,
    lambda found: _path(found[1]) if isinstance(found, tuple) else None,
)
_COMPONENTS: Final = [path[-1] for path in PATTERNS if path and not isinstance(path[-1], Special)]
_each(
    "component_targets_specific_node",
    _COMPONENTS,
    [condition_term(component) for component in _COMPONENTS],
    component_targets_specific_node,
    lambda found: found[1] if isinstance(found, tuple) else None,
)
_ANY: Final = (*PATTERNS, (Not(b"wood"),), *NONE)
_each("is_valid", _ANY, [_term(path) for path in _ANY], is_valid_path, lambda found: found is True)
_each("ensure_is_valid", _ANY, [_term(path) for path in _ANY], _checked)
_each("realpath", PATTERNS, [_term(path) for path in PATTERNS], real_path, _path)
_each("pattern_includes_root_node", PATTERNS, [_term(path) for path in PATTERNS], includes_root)
_each(
    "abspath",
    BASED,
    [(_term(path), _term(base)) for path, base in BASED],
    lambda pair: absolute_path(*pair),
    _path,
)
_each(
    "combine_with_conditions",
    COMBINED,
    [(_term(path), [condition_term(condition) for condition in more]) for path, more in COMBINED],
    lambda pair: combine_with_conditions(pair[0], *pair[1]),
    _path,
)
