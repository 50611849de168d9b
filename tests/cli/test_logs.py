"""The log of running servers."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from bridge.cli.logs import FORMAT, LEVEL, configure
from bridge.errors import ConfigurationError

_TRACE = "00112233445566778899aabbccddeeff"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger("bridge")
    handlers, level, propagate = root.handlers, root.level, root.propagate
    yield
    root.handlers, root.propagate = handlers, propagate
    root.setLevel(level)


def test_a_line_of_json_has_the_text_its_fields_and_when_it_was(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure({LEVEL: "info", FORMAT: "json"})
    logging.getLogger("bridge.sim").info("granted %s", "ball", extra={"trace": _TRACE, "hop": 2})
    told = json.loads(capsys.readouterr().err)
    assert (told["level"], told["logger"], told["message"]) == ("INFO", "bridge.sim", "granted ball")
    assert (told["trace"], told["hop"]) == (_TRACE, 2)
    assert told["at"].endswith("+00:00")


def test_a_line_of_json_has_the_exception(capsys: pytest.CaptureFixture[str]) -> None:
    configure({FORMAT: "json"})
    try:
        raise ValueError("no\nsuch thing")
    except ValueError:
        logging.getLogger("bridge.sim").exception("failed")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "no\nsuch thing" in json.loads(lines[0])["exc_info"]


def test_a_line_for_people_ends_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure({LEVEL: "info"})
    logging.getLogger("bridge.sim").info("granted", extra={"trace": _TRACE})
    assert capsys.readouterr().err.endswith(f" INFO bridge.sim: granted trace={_TRACE}\n")


def test_what_is_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure({})
    logging.getLogger("bridge.sim").info("granted")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("environment", [{LEVEL: "loud"}, {FORMAT: "xml"}])
def test_what_there_is_not_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="log"):
        configure(environment)
