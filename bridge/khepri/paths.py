"""Paths of the tree: Unix-like text, or native lists of atoms and binaries.

Source: Khepri, module ``khepri_path`` ("Unix-like paths"): ``:name`` is an atom, ``name`` a binary, ``%xx``
escapes a byte, ``*`` and ``**`` are patterns. Text is parsed by the homeserver, which alone may make atoms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote_from_bytes

from bridge.errors import ConfigurationError
from bridge.etf import Atom

MAX_PATH_BYTES: Final = 4096
"""bytes; a path is a key, and every write repeats it in the log"""

Component = Atom | str | bytes
Path = str | bytes | Sequence[Component]
NativePath = tuple[Atom | bytes, ...]


def wire_path(path: Path) -> Any:
    """The term to send for ``path``: a binary for text, a list for a native path.

    Raises:
        ConfigurationError: no absolute path, too long, or a component of another type.
    """
    if isinstance(path, str | bytes):
        text = path.encode() if isinstance(path, str) else path
        if not text.startswith(b"/"):
            raise ConfigurationError(f"{path!r} is no absolute path: write it as '/:stock/wood'")
        if len(text) > MAX_PATH_BYTES:
            raise ConfigurationError(f"a path of {len(text)} bytes is longer than {MAX_PATH_BYTES}")
        return text
    if isinstance(path, Atom):
        raise ConfigurationError(f"{path!r} is one component: put it in a list")
    return [_component(component) for component in path]


def _component(component: Component) -> Atom | bytes:
    match component:
        case Atom() | bytes():
            return component
        case str():
            return component.encode()
        case _:
            raise ConfigurationError(f"{component!r} is no path component: use Atom, str or bytes")


def native_path(term: Any) -> NativePath:
    """The native path that a homeserver sent, as a hashable tuple."""
    return tuple(_component(component) for component in term)


def path_text(path: Sequence[Atom | bytes]) -> str:
    """Unix-like text of a native path, for people and for another call.

    Parsing it gives the same path, with two exceptions that Khepri's text has no form for, so that only the
    native path names them: a binary with ``*``, which is a pattern even when escaped, and an atom with a
    character beyond Latin-1.

    >>> path_text([Atom("stock"), b"wood"])
    '/:stock/wood'
    """
    return "/" + "/".join(map(_component_text, path))


def _component_text(component: Atom | bytes) -> str:
    raw = _atom_bytes(component) if isinstance(component, Atom) else component
    text = quote_from_bytes(raw, safe="-_.~")
    # "." and ".." are navigation in a path, so a leading dot is escaped, as Khepri itself does.
    text = "%2E" + text[1:] if text.startswith(".") else text
    return f":{text}" if isinstance(component, Atom) else text


def _atom_bytes(atom: Atom) -> bytes:
    """The bytes of an atom's text: Khepri's parser makes each byte one character."""
    try:
        return str(atom).encode("latin-1")
    except UnicodeEncodeError:
        return str(atom).encode()
