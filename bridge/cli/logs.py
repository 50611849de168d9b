"""What running servers say, on standard error: lines for people, or one JSON object a line for machines.

A record may carry fields beside its text, by ``extra``: ``trace`` (hexadecimal) ties it to one transfer, in
every process that took part.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from enum import Enum
from typing import Final

from bridge.errors import ConfigurationError

LEVEL: Final = "KHEPRI_BRIDGE_LOG_LEVEL"
FORMAT: Final = "KHEPRI_BRIDGE_LOG_FORMAT"
_LEVELS: Final = ("debug", "info", "warning", "error")
_OWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class Format(Enum):
    """How a record is written."""

    TEXT = "text"
    JSON = "json"


def choose(*, level: str | None, form: str | None, environment: Mapping[str, str] | None = None) -> None:
    """Take options of a command line for this process and, by the environment, for its children.

    Raises:
        ConfigurationError: a level or a format that there is not.
    """
    wanted = {LEVEL: level, FORMAT: form}
    os.environ.update({name: value for name, value in wanted.items() if value is not None})
    configure(os.environ if environment is None else environment)


def configure(environment: Mapping[str, str]) -> None:
    """Set logging up as the environment says; ``warning`` and ``text`` where it says nothing.

    Raises:
        ConfigurationError: a level or a format that there is not.
    """
    level = environment.get(LEVEL, "warning").lower()
    form = environment.get(FORMAT, Format.TEXT.value).lower()
    if level not in _LEVELS:
        raise ConfigurationError(f"the level of the log is one of {', '.join(_LEVELS)}, not {level}")
    if form not in [known.value for known in Format]:
        raise ConfigurationError(f"the log is text or json, not {form}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_json() if form == Format.JSON.value else _Lines())
    root = logging.getLogger("bridge")
    root.handlers = [handler]
    root.setLevel(level.upper())
    root.propagate = False


def _json() -> logging.Formatter:
    # Here, since most commands never write a record.
    from pythonjsonlogger.json import JsonFormatter

    formatter = JsonFormatter(
        "{levelname}{name}{message}{process}",
        style="{",
        timestamp="at",
        rename_fields={"levelname": "level", "name": "logger"},
    )
    formatter.converter = time.gmtime
    return formatter


class _Lines(logging.Formatter):
    """``time level logger: text field=value``."""

    def __init__(self) -> None:
        super().__init__("{asctime} {levelname} {name}: {message}", style="{")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the library's name
        fields = {name: value for name, value in record.__dict__.items() if name not in _OWN}
        line = super().formatMessage(record)
        return f"{line} {' '.join(f'{name}={value}' for name, value in fields.items())}" if fields else line
