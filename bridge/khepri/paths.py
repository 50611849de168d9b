"""Paths of the tree: Unix-like text, or native sequences of names; patterns have conditions among them.

All of Khepri's ``khepri_path``, computed here. Source: Khepri, module ``khepri_path`` ("Unix-like paths"):
``:name`` is an atom, ``name`` a binary, ``%xx`` escapes a byte, ``*`` and ``**`` are patterns, ``.`` and
``..`` are the node itself and its parent. Text that is sent is parsed by the homeserver, under its budget of
atoms: there an atom stays for ever, here it costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, Final, get_args
from urllib.parse import quote_from_bytes, unquote_to_bytes

from bridge.errors import ConfigurationError
from bridge.etf import Atom
from bridge.khepri.conditions import (
    AllOf,
    AnyOf,
    Condition,
    ConditionRecord,
    NameMatches,
    PathMatches,
    condition_from_term,
    condition_term,
)

MAX_PATH_BYTES: Final = 4096
"""bytes; a path is a key, and every write repeats it in the log"""


class Special(Enum):
    """Components that name no node of their own; the values are those on the wire."""

    ROOT = ord("/")
    """the root of the tree"""
    THIS = ord(".")
    """the node itself, in a relative path"""
    PARENT = ord("^")
    """the parent, ``..`` in text"""


Name = Atom | bytes
"""Of a node, as the store has it."""
Component = Atom | str | bytes | Special
"""Of a path; a ``str`` is its UTF-8 bytes."""
Path = str | bytes | Sequence[Component]
"""Text, or a sequence of components."""
Pattern = str | bytes | Sequence[Component | ConditionRecord]
"""A path in which conditions may stand."""
NativePath = tuple[Name, ...]
"""Of one node: hashable, and what the store answers with."""
NativeComponent = Name | Special | ConditionRecord
NativePattern = tuple[NativeComponent, ...]

_CONDITIONS: Final = get_args(ConditionRecord)
_PLAIN: Final = frozenset(get_args(Component))
_SPECIALS: Final = {special.value: special for special in Special}


def wire_path(path: Pattern) -> Any:
    """The term to send for an absolute path or pattern: a binary for text, a list for components.

    Raises:
        ConfigurationError: no absolute path, too long, or a component of another type.
    """
    if isinstance(path, (str, bytes)):
        text = _octets(path)
        if not text.startswith(b"/"):
            raise ConfigurationError(f"{path!r} is no absolute path: write it as '/:stock/wood'")
        return _bounded(text)
    if type(path) is tuple or type(path) is list:
        # Names alone, as in most calls: the homeserver checks them, and none of them is relative.
        names: list[Name] = []
        for part in path:
            kind = type(part)
            if kind is Atom or kind is bytes:
                names.append(part)
            elif kind is str:
                names.append(_octets(part))
            else:
                break
        else:
            return names
    native = native_pattern(path)
    if native and native[0] in (Special.THIS, Special.PARENT):
        raise ConfigurationError(f"{path!r} is no absolute path: begin with a name below the root")
    return [_component_term(component) for component in real_path(native)]


def wire_relative_path(path: Pattern) -> Any:
    """Like ``wire_path``, for ``keep_while``, whose paths may be relative to the node that is kept.

    Raises:
        ConfigurationError: too long, or a component of another type.
    """
    if isinstance(path, (str, bytes)):
        return _bounded(_octets(path))
    return [_component_term(component) for component in native_pattern(path)]


def native_path(path: str | bytes | Iterable[Any]) -> NativePath:
    """The hashable path of one node, as answers have it for a key: of text, or of names.

    Raises:
        ConfigurationError: a component that is no name; text as in ``parse_path``.

    >>> native_path("/:stock/wood")
    (Atom('stock'), b'wood')
    """
    components = parse_path(path) if isinstance(path, (str, bytes)) else path
    return tuple([_name(component) for component in components])


def native_pattern(path: Pattern) -> NativePattern:
    """The components of a path or pattern, each of them checked; text is parsed.

    Raises:
        ConfigurationError: a component or condition that is none; text as in ``parse_path``.
    """
    if isinstance(path, (str, bytes)):
        return parse_path(path)
    if isinstance(path, Atom):
        raise ConfigurationError(f"{path!r} is one component: put it in a list")
    if not isinstance(path, Sequence):
        raise ConfigurationError(f"{path!r:.100} is no path: use text or a list of components")
    return tuple([_native(component) for component in path])


def has_conditions(path: Pattern) -> bool:
    """Whether conditions stand among the components; text, which can hold wildcards only, is not parsed."""
    if type(path) is not tuple and (isinstance(path, (str, bytes)) or not isinstance(path, Sequence)):
        return False
    for part in path:  # noqa: SIM110  # a generator for any() costs more than the looks, and each put asks
        if type(part) not in _PLAIN and isinstance(part, _CONDITIONS):
            return True
    return False


def pattern_from_term(term: Any) -> NativePattern:
    """A pattern that a homeserver sent.

    Raises:
        ConfigurationError: no pattern of Khepri.
    """
    if not isinstance(term, list):
        raise ConfigurationError(f"{term!r:.100} is no native pattern")
    return tuple([_component_from_term(component) for component in term])


def is_valid_path(path: Any) -> bool:
    """Whether it is a path or pattern; ``native_pattern`` says why it is not."""
    try:
        native_pattern(path)
    except ConfigurationError:
        return False
    return True


def parse_path(text: str | bytes) -> NativePattern:
    """Components of a text path, as Khepri's own parser makes them.

    A relative path begins with ``Special.THIS`` or ``Special.PARENT``. A name with ``*`` becomes
    ``NameMatches``, and whatever else it holds is part of the regular expression as it stands.

    Raises:
        ConfigurationError: an atom of more than 255 characters; or a ``^`` before a slash, which Khepri
            parses to something that is no path.

    >>> parse_path("/:stock/wood")
    (Atom('stock'), b'wood')
    """
    octets = _octets(text)
    if octets == b"^":
        return (Special.PARENT,)
    pieces = octets.split(b"/")
    last = len(pieces) - 1
    found: list[NativeComponent] = []
    for position, piece in enumerate(pieces):
        # A slash in front or at the end ends or begins nothing; between two of them is an empty name.
        if not piece and position in (0, last):
            continue
        if piece == b"^" and position < last:
            raise ConfigurationError(f"{text!r}: '^' is no component of a text path; '..' is the parent")
        component = _parse_component(piece)
        if not found and pieces[0] and isinstance(component, Atom | bytes):
            found.append(Special.THIS)
        found.append(component)
    return tuple(found)


def path_text(path: Sequence[Component]) -> str:
    """Unix-like text of a path, for people and for another call.

    Parsing it gives the same path, with two exceptions that Khepri's text has no form for, so that only the
    native path names them: a binary with ``*``, which is a pattern even when escaped, and an atom with a
    character beyond Latin-1.

    Raises:
        ConfigurationError: a condition, which has no text, or no component at all.

    >>> path_text([Atom("stock"), b"wood"])
    '/:stock/wood'
    """
    match native_pattern(path):
        case ():
            return "/"
        case (Special.THIS,):
            return "."
        case (Special.ROOT, *rest):
            head = "/"
        case (Special.THIS, *rest) if rest[0] != b"":
            head = ""
        case (Special.THIS | Special.PARENT, *_) as rest:
            # Without its dot a path that goes on with an empty name would read as an absolute one.
            head = ""
        case rest:
            head = "/"
    text = head + "/".join(_component_text(component) for component in rest)
    # An empty name at the end shows as one slash more.
    return f"{text}/" if rest and rest[-1] == b"" else text


def combine_with_conditions(path: Pattern, *conditions: Condition) -> NativePattern:
    """The pattern whose last component must meet these conditions too.

    Raises:
        ConfigurationError: the path is the root, or ends in ``.`` or ``..``.
    """
    native = native_pattern(path)
    if not conditions:
        return native
    if not native or isinstance(native[-1], Special):
        raise ConfigurationError(f"{path!r} ends in no name or condition to combine with")
    return (*native[:-1], AllOf(native[-1], *conditions))


def targets_specific_node(path: Pattern) -> tuple[Name | Special, ...] | None:
    """The path of the one node that a pattern can match, or ``None`` where it may match several."""
    found = [component_targets_specific_node(component) for component in native_pattern(path)]
    return None if None in found else tuple([name for name in found if name is not None])


def component_targets_specific_node(component: Component | Condition) -> Name | Special | None:
    """The name that a component of a pattern stands for, or ``None``.

    It is Khepri's own decision since 0.17; 0.16 looked into ``Not`` as if it said yes.
    """
    match component:
        case Atom() | bytes() | Special():
            return component
        case str():
            return _octets(component)
        case AllOf(conditions):
            name: Name | Special | None = None
            for condition in conditions:
                other = component_targets_specific_node(condition)
                name = name if other is None else other if name in (None, other) else None
            return name
        case AnyOf(conditions):
            names = {component_targets_specific_node(condition) for condition in conditions}
            return names.pop() if len(names) == 1 else None
    return None


def absolute_path(path: Pattern, base: Pattern) -> NativePattern:
    """The path itself where it is absolute; from ``base`` where it begins with ``.`` or ``..``."""
    native = native_pattern(path)
    if native and native[0] in (Special.THIS, Special.PARENT):
        return real_path((*native_pattern(base), *native))
    return native


def real_path(path: Pattern) -> NativePattern:
    """The path without ``.``, ``..`` and the root's own component; above the root is the root."""
    found: list[NativeComponent] = []
    for component in native_pattern(path):
        match component:
            case Special.ROOT:
                found.clear()
            case Special.PARENT:
                del found[-1:]
            case Special.THIS:
                pass
            case _:
                found.append(component)
    return tuple(found)


def includes_root(path: Pattern) -> bool:
    """Whether the pattern matches the root of the tree."""
    return real_path(path) == ()


def _octets(text: str | bytes) -> bytes:
    if isinstance(text, bytes):
        return text
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"{text!a:.100} has no UTF-8: it holds a lone surrogate") from None


def _bounded(text: bytes) -> bytes:
    if len(text) > MAX_PATH_BYTES:
        raise ConfigurationError(f"a path of {len(text)} bytes is longer than {MAX_PATH_BYTES}")
    return text


def _name(component: Any) -> Name:
    match component:
        case Atom() | bytes():
            return component
        case str():
            return _octets(component)
        case bool():
            return Atom("true" if component else "false")  # as the decoder gives these two names
        case _:
            raise ConfigurationError(f"{component!r:.100} is no path component: use Atom, str or bytes")


def _native(component: Any) -> NativeComponent:
    if isinstance(component, Special):
        return component
    if isinstance(component, _CONDITIONS):
        condition_term(component)
        return component  # type: ignore[no-any-return]  # mypy does not follow the tuple of classes
    return _name(component)


def _component_term(component: NativeComponent) -> Any:
    if isinstance(component, Special):
        return component.value
    return condition_term(component)


def _component_from_term(term: Any) -> NativeComponent:
    if type(term) is int and term in _SPECIALS:
        return _SPECIALS[term]
    return _native(condition_from_term(term))


def _parse_component(piece: bytes) -> NativeComponent:
    match piece:
        case b".":
            return Special.THIS
        case b"..":
            return Special.PARENT
        case b"*":
            return NameMatches()
        case b"**":
            return PathMatches()
    name = unquote_to_bytes(piece)
    if piece.startswith(b":"):
        return Atom(name[1:].decode("latin-1"))
    if b"*" in name:
        return NameMatches(b"^" + name.replace(b"*", b".*") + b"$")
    return name


def _component_text(component: NativeComponent) -> str:
    match component:
        case Special.ROOT:
            return "/"
        case Special.THIS:
            return "."
        case Special.PARENT:
            return ".."
        case Atom():
            return f":{_escaped(_atom_bytes(component))}"
        case bytes():
            return _escaped(component)
        case _:
            raise ConfigurationError(f"{component!r:.100} is a condition, which has no text")


def _escaped(octets: bytes) -> str:
    text = quote_from_bytes(octets, safe="-_.~")
    # "." and ".." are navigation in a path, so a leading dot is escaped, as Khepri itself does.
    return "%2E" + text[1:] if text.startswith(".") else text


def _atom_bytes(atom: Atom) -> bytes:
    """The bytes of an atom's text: Khepri's parser makes each byte one character."""
    try:
        return str(atom).encode("latin-1")
    except UnicodeEncodeError:
        return str(atom).encode()
