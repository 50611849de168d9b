"""Members of the records that homeservers tell, each of the type that it must have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.errors import DecodeError
from bridge.etf import Atom


class Fields:
    """Typed access to the members of a record; a ``DecodeError`` says which one is missing."""

    def __init__(self, term: Any) -> None:
        if not isinstance(term, Mapping):
            raise DecodeError(f"no record: {term!r:.100}")
        self._term = term

    def member(self, name: str) -> Any:
        """Whatever is there."""
        try:
            return self._term[Atom(name)]
        except KeyError:
            raise DecodeError(f"a record without {name}: {self._term!r:.200}") from None

    def optional(self, name: str) -> Any:
        """Whatever is there; ``None`` where nothing or ``undefined`` is."""
        value = self._term.get(Atom(name))
        return None if value == Atom("undefined") else value

    def binary(self, name: str) -> bytes:
        """A binary."""
        value = self.member(name)
        if not isinstance(value, bytes):
            raise DecodeError(f"{name} is no binary: {value!r:.100}")
        return value

    def optional_binary(self, name: str) -> bytes | None:
        """A binary, or ``None``."""
        return None if self.optional(name) is None else self.binary(name)

    def text(self, name: str) -> str:
        """A binary as text."""
        return self.binary(name).decode(errors="replace")

    def optional_text(self, name: str) -> str | None:
        """A binary as text, or ``None``."""
        return None if self.optional(name) is None else self.text(name)

    def number(self, name: str) -> int:
        """A whole number, not negative."""
        value = self.member(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise DecodeError(f"{name} is no number: {value!r:.100}")
        return value

    def address(self, name: str) -> tuple[str, int]:
        """Host and port."""
        match self.member(name):
            case (bytes() as host, int() as port) if 0 < port < 65536:
                return host.decode(errors="replace"), port
            case other:
                raise DecodeError(f"no address of a server: {other!r:.100}")

    def name(self, name: str) -> str:
        """A binary or an atom as text."""
        value = self.member(name)
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

    def flag(self, name: str) -> bool:
        """A boolean."""
        value = self.member(name)
        if not isinstance(value, bool):
            raise DecodeError(f"{name} is no boolean: {value!r:.100}")
        return value
