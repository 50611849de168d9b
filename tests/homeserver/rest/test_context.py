from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from bridge.homeserver.rest.context import context


async def test_a_request_finds_the_context_of_its_application() -> None:
    made: Any = object()
    request: Any = SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace(context=made)))
    assert await context(request) is made
