"""Terms that Python has no type for.

The others map so: binary ↔ ``bytes`` (``str`` encodes to a UTF-8 binary), ``true``/``false`` ↔ ``bool``,
integer ↔ ``int``, float ↔ ``float``, tuple ↔ ``tuple``, list ↔ ``list`` (a STRING_EXT too is a list of
integers), map ↔ ``dict`` or ``ErlangMap`` (see there). ``None`` is no term: ``nil`` and ``undefined`` are
atoms.

Records are structs of msgspec rather than dataclasses: each answer to a call holds a reference, and a struct
is made and hashed several times faster.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from bridge.errors import ConfigurationError, LimitExceededError

MAX_ATOM_CHARACTERS: Final = 255
"""characters; the limit of the BEAM"""
DEFAULT_ATOM_BUDGET: Final = 100_000
"""different atoms that one program encodes, unless told otherwise; a BEAM's table holds 1,048,576"""


class Atom:
    """An atom; ``str(atom)`` is its text.

    Two atoms of the same text are the same object, which makes comparison and hashing as cheap as they get.
    The table of them is weak: an atom that nobody holds is collected, unlike in a BEAM. ``Atom("true")``
    encodes like ``True``, and comes back as ``True``.

    A BEAM keeps every atom that it is sent for ever, and dies of about a million. So an atom that is encoded
    counts against a budget of the whole program, see ``set_atom_budget``.

    Raises:
        ConfigurationError: the text is longer than 255 characters, or cannot be UTF-8.
    """

    __slots__ = ("__weakref__", "text", "wire")

    text: str
    wire: bytes
    """as SMALL_ATOM_UTF8_EXT or ATOM_UTF8_EXT; made, and counted, when it is first asked for"""

    def __new__(cls, text: str) -> Self:
        """The atom of this text."""
        known = _ATOMS.get(text)
        if known is not None:
            return known  # type: ignore[return-value]  # the class is final in all but name
        return cls._intern(text)

    @classmethod
    def _intern(cls, text: str) -> Self:
        if not isinstance(text, str):
            raise ConfigurationError(f"an atom is made from str, not {type(text).__name__}")
        if len(text) > MAX_ATOM_CHARACTERS:
            raise ConfigurationError(f"an atom has at most {MAX_ATOM_CHARACTERS} characters, not {len(text)}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ConfigurationError(f"{text!a} cannot be an atom: it holds a lone surrogate") from None
        # Without the lock two threads could each make "the" atom of a text, and equality would break.
        with _LOCK:
            known = _ATOMS.get(text)
            if known is not None:
                return known  # type: ignore[return-value]
            atom = object.__new__(cls)
            object.__setattr__(atom, "text", str(text))
            _ATOMS[atom.text] = atom
            return atom

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> bytes:
            # Asked only for what is not there: so that an atom that was encoded before costs nothing.
            if name != "wire":
                raise AttributeError(f"an atom has no {name!r}")
            raw = self.text.encode()
            header = bytes((119, len(raw))) if len(raw) < 256 else b"v" + len(raw).to_bytes(2, "big")
            with _LOCK:
                _budget.spend(self)
                object.__setattr__(self, "wire", header + raw)
            return header + raw

    def __init_subclass__(cls) -> None:
        raise ConfigurationError("Atom cannot be subclassed: equal atoms must be one object")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an atom cannot change: {name}")

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Atom({self.text!r})"

    def __reduce__(self) -> tuple[type[Atom], tuple[str]]:
        return (Atom, (self.text,))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


class _Budget:
    """Atoms that this program has encoded. They are held, or one that is made again would count again."""

    def __init__(self) -> None:
        self.maximum: int | None = DEFAULT_ATOM_BUDGET
        self.spent: set[Atom] = set()

    def spend(self, atom: Atom) -> None:
        if self.maximum is None:
            return
        if atom not in self.spent and len(self.spent) >= self.maximum:
            raise LimitExceededError(
                "atom_budget",
                self.maximum,
                f"different atoms ({atom!r:.60}): whoever is sent one keeps it for ever, so send names that "
                "come from elsewhere as str or bytes; bridge.etf.set_atom_budget sets another limit",
            )
        self.spent.add(atom)


def set_atom_budget(maximum: int | None) -> None:
    """How many different atoms this program may encode, of all that it sends to whomever.

    Args:
        maximum: 100,000 unless told otherwise; ``None`` counts no longer. Where it is below what was encoded
            already, those go on to be encoded, and no new ones.

    Raises:
        ConfigurationError: below zero.
    """
    if maximum is not None and maximum < 0:
        raise ConfigurationError(f"a budget of atoms is 0 or more, not {maximum}")
    with _LOCK:
        _budget.maximum = maximum


_LOCK: Final = threading.Lock()
_budget: Final = _Budget()
_ATOMS: Final[weakref.WeakValueDictionary[str, Atom]] = weakref.WeakValueDictionary()


class Pid(msgspec.Struct, frozen=True):
    """A process: ``id`` and ``serial`` have 32 bits; ``creation`` tells runs of a node apart (0: any)."""

    node: Atom
    id: int
    serial: int
    creation: int

    def __str__(self) -> str:
        return f"<{self.node}.{self.id}.{self.serial}>"


class Reference(msgspec.Struct, frozen=True):
    """A reference: ``ids`` are one to five words of 32 bits, the least significant first."""

    node: Atom
    creation: int
    ids: tuple[int, ...]


class Port(msgspec.Struct, frozen=True):
    """A port: ``id`` has up to 64 bits."""

    node: Atom
    id: int
    creation: int


class ExportFun(msgspec.Struct, frozen=True):
    """``fun Module:Function/Arity``."""

    module: Atom
    function: Atom
    arity: int


class Closure(msgspec.Struct, frozen=True):
    """A fun with an environment (NEW_FUN_EXT): only the node that made it can call it; kept as it came.

    Attributes:
        data: everything after the tag and the size.
    """

    data: bytes

    @property
    def arity(self) -> int:
        """Number of arguments, 0–255."""
        return self.data[0]


@dataclass(frozen=True, slots=True)
class BitString:
    """A bit string whose last byte is not full.

    Attributes:
        data: at least one byte; the unused low bits of the last one are zero.
        bits: used bits of the last byte, 1–7, from the top.
    """

    data: bytes
    bits: int

    def __post_init__(self) -> None:
        if not self.data or not 1 <= self.bits <= 7:
            raise ConfigurationError("a bit string has at least one byte and 1–7 bits in its last; use bytes")
        last = self.data[-1]
        if last & ((1 << (8 - self.bits)) - 1):
            object.__setattr__(
                self, "data", self.data[:-1] + bytes((last >> (8 - self.bits) << (8 - self.bits),))
            )

    def __len__(self) -> int:
        """Bits in all."""
        return len(self.data) * 8 - 8 + self.bits


@dataclass(frozen=True, slots=True)
class ImproperList:
    """``[A, B | Tail]`` where the tail is not a list.

    Attributes:
        elements: those before the bar, at least one.
        tail: any term but a list.
    """

    elements: Sequence[Any]
    tail: Any

    def __post_init__(self) -> None:
        if not self.elements or isinstance(self.tail, (list, ImproperList)):
            raise ConfigurationError("an improper list has an element and a tail that is no list; use list")
