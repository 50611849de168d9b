"""How authority requests are put into terms."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import ConfigurationError
from bridge.khepri import OperationId
from bridge.registry import Step
from bridge.registry.requests import PATIENCE, Requests, name_bytes, step_members


def test_a_name_is_utf_8() -> None:
    assert name_bytes("Grün") == "Grün".encode()


@pytest.mark.parametrize("name", ["", "x" * 256, "ü" * 128, "a/b", "..", "a\tb", "\ud800"], ids=repr)
def test_what_no_path_can_hold_is_no_name(name: str) -> None:
    with pytest.raises(ConfigurationError, match="the name "):
        name_bytes(name)


async def test_a_request_has_the_operation_ids_and_the_patience_that_it_is_given() -> None:
    class Store:
        """Keeps what it is asked."""

        def __init__(self) -> None:
            self.asked: list[tuple[str, Any]] = []

        async def request(self, function: str, argument: Any, **options: Any) -> Any:
            self.asked.append((function, options))
            return {}

    ids = [OperationId(b"client", 1, sequence, 0) for sequence in (1, 2)]
    store: Any = Store()
    await Requests(store).ask("enter")
    given = iter(ids)

    requests = Requests(store, patience=5.0, operations=lambda: next(given))
    await requests.ask("enter")
    await requests.ask("leave")
    assert store.asked == [
        ("enter", {"operation_id": None, "timeout": PATIENCE}),
        ("enter", {"operation_id": ids[0], "timeout": 5.0}),
        ("leave", {"operation_id": ids[1], "timeout": 5.0}),
    ]


def test_a_step_is_two_members_or_none() -> None:
    assert step_members(Step(trace=b"t" * 16, hop=3)) == {"trace": b"t" * 16, "hop": 3}
    assert step_members(None) == {}
