"""The command's frame: which families of commands there are, and what every one of them does with an error.

A family is a module with a function ``register(app)``. At its top it imports only what is cheap; what a
command needs is imported inside it, so that ``--help`` and a usage error are instant.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from typing import Annotated, Final

import typer

import bridge
from bridge.cli.logs import FORMAT, LEVEL, choose
from bridge.cli.output import fail, told
from bridge.errors import BridgeError

FAMILIES: Final = (
    "bridge.cli.cluster",
    "bridge.cli.machine",
    "bridge.cli.store",
    "bridge.cli.watch",
    "bridge.cli.entity",
    "bridge.cli.transfer",
    "bridge.cli.box",
    "bridge.cli.certs",
    "bridge.cli.homeserver",
    "bridge.cli.federation",
    "bridge.cli.play",
    "bridge.cli.trace",
)
"""Modules with ``register(app)``, in the order of the help text."""

_DEBUG: Final = "KHEPRI_BRIDGE_DEBUG"
_UsageError: Final[type[Exception]] = typer.BadParameter.__bases__[0]
"""click's: typer brings a click of its own from some release on, and names only this one of its errors"""
_EXTRAS: Final = {"prometheus_client": "metrics", "fastapi": "homeserver", "uvicorn": "homeserver"}
"""what a module that only some commands need comes with"""


def main() -> None:
    """Run this process's command line; ends it with status 0, 1 (refused or failed), 2 (usage) or 130."""
    try:
        sys.exit(build_app()(prog_name="khepri-bridge", standalone_mode=False))
    except (KeyboardInterrupt, typer.Abort):
        fail("interrupted", status=130)
    except _UsageError as error:
        # With its usage line and hint, and as JSON like every other failure.
        error.show()  # type: ignore[attr-defined]
        told(error.format_message(), kind="UsageError")  # type: ignore[attr-defined]
        sys.exit(2)
    except Exception as error:
        if os.environ.get(_DEBUG):
            traceback.print_exc()
        fail(_text(error), kind=type(error).__name__)


def _text(error: Exception) -> str:
    match error:
        case OSError(strerror=str(reason)):
            return f"{error.filename}: {reason}" if error.filename else reason
        case BridgeError() | OSError():
            return str(error) or type(error).__name__
        case ModuleNotFoundError(name=str(name)) if name in _EXTRAS:
            return f"{name} is not installed: install khepri-bridge with its extra [{_EXTRAS[name]}]"
    return f"a mistake in khepri-bridge, {type(error).__name__}: {error} (--debug shows where)"


def build_app() -> typer.Typer:
    """The application with all families registered."""
    app = typer.Typer(
        name="khepri-bridge",
        help="Python simulation servers in a Khepri cluster.",
        epilog="Begin with `khepri-bridge demo`, or `khepri-bridge up` for a cluster of your own. "
        "The help of each command ends with an example.",
        no_args_is_help=True,
        add_completion=False,
        # Plain help: the coloured one takes longer to import than all of the rest together.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for family in FAMILIES:
        import_module(family).register(app)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"khepri-bridge {bridge.__version__}")
        raise typer.Exit


def _options(
    log_level: Annotated[
        str | None,
        typer.Option(
            help=f"Least level that the log has: debug, info, warning or error (also: {LEVEL}).",
            show_default="warning",
        ),
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(
            help=f"Lines for people, text, or for machines, json (also: {FORMAT}).", show_default="text"
        ),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error came from (also: KHEPRI_BRIDGE_DEBUG=1).")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    del version
    if debug:
        os.environ[_DEBUG] = "1"
    choose(level=log_level, form=log_format)
