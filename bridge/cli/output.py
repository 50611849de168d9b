"""What a command says, and where: results on stdout, progress and errors on stderr.

With ``--json`` the last line of stdout is one JSON object, also when the command failed:
``{"error": {"type": "…", "message": "…"}}`` beside a non-zero exit status.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from bridge.cli.arguments import DashedArguments

Json = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON, last on stdout.")]

Command = TypeVar("Command", bound=Callable[..., Any])


def example(app: typer.Typer, name: str, text: str) -> Callable[[Command], Command]:
    """Register a command called ``name`` whose help ends with an example."""
    return app.command(name, cls=DashedArguments, epilog=f"Example: {text}")


def emit(result: dict[str, Any], *, as_json: bool, text: str) -> None:
    """Print a result.

    Args:
        result: what ``--json`` prints.
        as_json: whether ``--json`` was given.
        text: what people read instead; nothing is printed when it is empty.
    """
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False, separators=(",", ":")))
    elif text:
        typer.echo(text)


def progress(line: str) -> None:
    """Tell what is being done."""
    typer.echo(line, err=True)


def fail(message: str, *, kind: str = "Error", status: int = 1) -> NoReturn:
    """End the process with one line about what is wrong."""
    line = " ".join(message.split())
    typer.echo(f"khepri-bridge: {line}", err=True)
    told(line, kind=kind)
    sys.exit(status)


def told(line: str, *, kind: str) -> None:
    """Say what is wrong as JSON too, where ``--json`` was given."""
    if "--json" in sys.argv:
        typer.echo(json.dumps({"error": {"type": kind, "message": line}}, ensure_ascii=False))


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Rows under a header, columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    padded = ([c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in (header, *rows))
    return "\n".join("  ".join(cells).rstrip() for cells in padded)
