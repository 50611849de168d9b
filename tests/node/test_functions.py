"""The allow-list of functions that other nodes may call."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import ConfigurationError, RemoteRaisedError
from bridge.etf import Atom
from bridge.node.functions import Functions

_M, _F = Atom("m"), Atom("f")


async def test_plain_functions_and_coroutine_functions_are_called() -> None:
    functions = Functions()

    async def later(value: Any) -> Any:
        return value + 1

    functions.expose("m", "f", lambda value: value + 1)
    functions.expose("m", "g", later)
    functions.expose("m", "max", max)
    assert functions.call(_M, _F, [1]) == 2
    assert await functions.call(_M, Atom("g"), [1]) == 2
    assert functions.call(_M, Atom("max"), [1, 3, 2]) == 3
    assert len(functions) == 3


@pytest.mark.parametrize(
    ("module", "function", "args"),
    [
        (Atom("os"), Atom("cmd"), [b"true"]),
        (_M, Atom("g"), []),
        (_M, _F, []),
        (_M, _F, [1, 2]),
        (_M, _F, (1,)),
        (b"m", _F, [1]),
        (_M, [1], [1]),
    ],
)
async def test_anything_else_is_undefined(module: Any, function: Any, args: Any) -> None:
    functions = Functions()
    functions.expose("m", "f", lambda value: value)
    with pytest.raises(RemoteRaisedError) as caught:
        functions.call(module, function, args)
    assert caught.value.reason is Atom("undef")
    assert caught.value.stack == [(module, function, args, [])]


async def test_a_type_error_of_the_function_itself_is_its_own() -> None:
    functions = Functions()
    functions.expose("m", "f", lambda value: value + b"x")
    with pytest.raises(TypeError):
        functions.call(_M, _F, [1])


async def test_what_is_withdrawn_is_undefined_again() -> None:
    functions = Functions()
    for name in ("f", "g", "h"):
        functions.expose("m", name, lambda: 1)
    functions.withdraw("m", "f")
    with pytest.raises(RemoteRaisedError):
        functions.call(_M, _F, [])
    assert functions.call(_M, Atom("g"), []) == 1
    functions.withdraw("m")
    assert len(functions) == 0
    with pytest.raises(ConfigurationError, match=r"m:\* is not exposed"):
        functions.withdraw("m")


def test_a_mistake_in_what_is_exposed_is_named() -> None:
    functions = Functions()
    functions.expose("m", "f", print)
    with pytest.raises(ConfigurationError, match="exposed already"):
        functions.expose("m", "f", print)
    with pytest.raises(ConfigurationError, match="callable"):
        functions.expose("m", "g", 1)  # type: ignore[arg-type]  # that it is refused is what is shown
    with pytest.raises(ConfigurationError, match="255"):
        functions.expose("m" * 256, "f", print)
