"""``export``, ``import``, ``backup``, ``restore``: a store as files, in Khepri's own format."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.output import Json, emit, example, progress
from bridge.cli.target import Target, on_store
from bridge.errors import ConfigurationError

Timeout = Annotated[float, typer.Option(help="Seconds to wait for the answer.", min=0.001, max=60.0)]
_PIPE = Path("-")


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    example(app, "export", "khepri-bridge export stock.khepri --path '/:stock/**'")(on_store(export))
    example(app, "import", "khepri-bridge import stock.khepri")(on_store(import_file))
    example(app, "backup", "khepri-bridge backup instance.backup")(on_store(backup))
    example(app, "restore", "khepri-bridge restore instance.backup")(on_store(restore))


def export(
    target: Target,
    file: Annotated[Path, typer.Argument(help="File to write, whole or not at all; - is stdout.")],
    path: Annotated[
        str, typer.Option(metavar="PATTERN", help="Which nodes; never those below /:bridge.")
    ] = "/**",
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Write nodes that have data to a file that `import` and khepri:import/3 read."""
    if file == _PIPE and as_json:
        raise ConfigurationError("with - the nodes themselves go to stdout: leave --json out, or name a file")
    _tell(f"asking for {path}")
    if file == _PIPE:
        exported = target.run(lambda store: store.export_bytes(path, timeout=timeout))
        sys.stdout.buffer.write(exported.data)
        sys.stdout.buffer.flush()
        progress(f"nodes exported: {exported.nodes}")
        return
    _check(file)
    nodes = target.run(lambda store: store.export_to(file, path, timeout=timeout))
    emit(
        {"file": str(file), "nodes": nodes, "bytes": file.stat().st_size},
        as_json=as_json,
        text=f"nodes exported to {file}: {nodes}",
    )


def import_file(
    target: Target,
    file: Annotated[Path, typer.Argument(help="File of `export` or khepri:export; - is stdin.")],
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Put the nodes of an export into the store; others stay as they are."""
    data = sys.stdin.buffer.read() if file == _PIPE else file.read_bytes()
    _tell(f"sending {len(data)} bytes")
    nodes = target.run(lambda store: store.import_bytes(data, timeout=timeout))
    emit({"file": str(file), "nodes": nodes}, as_json=as_json, text=f"nodes imported: {nodes}")


def backup(
    target: Target,
    file: Annotated[Path, typer.Argument(help="File to write, whole or not at all.")],
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Write all that the instance knows to a file that `restore` reads; servers go on meanwhile."""
    _check(file)
    _tell("asking for everything")
    nodes = target.run(lambda store: store.backup_to(file, timeout=timeout))
    emit(
        {"file": str(file), "nodes": nodes, "bytes": file.stat().st_size},
        as_json=as_json,
        text=f"nodes written to {file}: {nodes}",
    )


def restore(
    target: Target,
    file: Annotated[Path, typer.Argument(help="File of `backup`.")],
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Put a backup into a cluster of its instance that was just started; entities come back dormant."""
    _tell(f"sending {file}")
    nodes = target.run(lambda store: store.restore_from(file, timeout=timeout))
    emit({"file": str(file), "nodes": nodes}, as_json=as_json, text=f"nodes restored: {nodes}")


def _check(file: Path) -> None:
    """Before anything is asked for: where the file is to be, one can be."""
    if file.is_dir():
        raise ConfigurationError(f"{file} is a directory: name a file")
    if not file.parent.is_dir():
        raise ConfigurationError(f"{file}: there is no directory {file.parent}")


def _tell(line: str) -> None:
    """Progress is for people who wait."""
    if sys.stderr.isatty():
        progress(line)
