"""One tree of exceptions, printed in the module's own docstring."""

from __future__ import annotations

import inspect
import re

import pytest

from bridge import errors
from bridge.errors import (
    BridgeError,
    DeadlineError,
    LimitExceededError,
    NodeDownError,
    OutcomeUnknownError,
    RemoteError,
)

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == "bridge.errors"]
LINE = re.compile(r"^    ([│├└─ ]*)(\w+Error)\b", re.MULTILINE)


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    path: list[str] = []
    drawn = {}
    for indent, name in LINE.findall(errors.__doc__ or ""):
        depth = len(indent) // 4
        path[depth:] = [name]
        drawn[name] = path[depth - 1] if depth else "Exception"
    assert drawn == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES}


def test_every_error_is_a_bridge_error_with_a_docstring() -> None:
    assert all(issubclass(cls, BridgeError) and cls.__doc__ for cls in CLASSES)


def test_a_deadline_is_also_the_standard_time_out() -> None:
    assert issubclass(DeadlineError, TimeoutError)
    assert issubclass(OutcomeUnknownError, DeadlineError)


def test_errors_keep_what_was_said() -> None:
    assert NodeDownError("hs1@h").node == "hs1@h"
    limit = LimitExceededError("max_depth", 5, "levels")
    assert (limit.limit, limit.maximum, str(limit)) == ("max_depth", 5, "more than max_depth=5 levels")
    remote = RemoteError("no", reason=("a", 1), props={"b": 2})
    assert (remote.reason, remote.props) == (("a", 1), {"b": 2})


def test_a_caller_cannot_change_the_props_of_an_error_behind_its_back() -> None:
    props = {"a": 1}
    error = RemoteError("no", reason="r", props=props)
    props["a"] = 2
    assert error.props == {"a": 1}
    with pytest.raises(RemoteError):
        raise error
