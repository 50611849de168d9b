"""Python functions that other nodes may call, by module and name; nothing else here is callable."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.errors import ConfigurationError, RemoteRaisedError
from bridge.etf import Atom
from bridge.node.outcomes import UNDEF


@dataclass(frozen=True, slots=True)
class _Function:
    call: Callable[..., Any]
    signature: inspect.Signature | None

    def takes(self, args: Sequence[Any]) -> bool:
        if self.signature is None:
            return True
        try:
            self.signature.bind(*args)
        except TypeError:
            return False
        return True


class Functions:
    """The allow-list."""

    def __init__(self) -> None:
        self._table: dict[tuple[str, str], _Function] = {}

    def __len__(self) -> int:
        return len(self._table)

    def expose(self, module: str, function: str, call: Callable[..., Any]) -> None:
        """Let other nodes call a function.

        Raises:
            ConfigurationError: the name is no atom, is taken, or ``call`` is not callable.
        """
        Atom(module), Atom(function)
        if not callable(call):
            raise ConfigurationError(f"{module}:{function} is to be a callable, not {type(call).__name__}")
        if (module, function) in self._table:
            raise ConfigurationError(f"{module}:{function} is exposed already; withdraw it first")
        try:
            signature = inspect.signature(call)
        except (TypeError, ValueError):
            signature = None  # a built-in that does not tell; what it raises says enough
        self._table[module, function] = _Function(call, signature)

    def withdraw(self, module: str, function: str | None = None) -> None:
        """Take a function, or all of a module, from the list; calls that run go on.

        Raises:
            ConfigurationError: there is none.
        """
        names = [name for name in self._table if name[0] == module and function in (None, name[1])]
        if not names:
            raise ConfigurationError(f"{module}:{function or '*'} is not exposed")
        for name in names:
            del self._table[name]

    def call(self, module: Any, function: Any, args: Any) -> Any:
        """Call an exposed function: its result, or an awaitable that gives it.

        Raises:
            RemoteRaisedError: ``undef``: it is not exposed, or takes another number of arguments.
            Exception: what the function raised.
        """
        found = self._table.get((str(module), str(function))) if _are_names(module, function) else None
        if found is None or type(args) is not list or not found.takes(args):
            raise RemoteRaisedError(
                f"{module}:{function} is not exposed with these arguments",
                reason=UNDEF,
                stack=[(module, function, args, [])],
            )
        return found.call(*args)


def _are_names(module: Any, function: Any) -> bool:
    return type(module) is Atom and type(function) is Atom
