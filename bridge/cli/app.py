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
from bridge.cli.output import fail
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


def main() -> None:
    """Run this process's command line; ends it with status 0, 1 (refused or failed), 2 (usage) or 130."""
    try:
        build_app()(prog_name="khepri-bridge")
    except KeyboardInterrupt:
        fail("interrupted", status=130)
    except BrokenPipeError:
        # The reader of our output went away (`khepri-bridge tree | head`): not an error, and nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (BridgeError, OSError) as error:
        if os.environ.get(_DEBUG):
            traceback.print_exc()
        fail(_text(error), kind=type(error).__name__)


def _text(error: BridgeError | OSError) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def build_app() -> typer.Typer:
    """The application with all families registered."""
    app = typer.Typer(
        name="khepri-bridge",
        help="Python simulation servers in a Khepri cluster.",
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
