"""``certs …``: the certificates with which nodes prove themselves to each other."""

from __future__ import annotations

import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from bridge.cli.output import Json, emit, example, table

Place = Annotated[Path, typer.Option("--dir", help="Directory of the authority and its certificates.")]

_SOON = datetime.timedelta(days=30)


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    family = typer.Typer(
        help="Certificates for TLS between nodes, and of the REST service.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    example(family, "init", "khepri-bridge certs init --name 'our cluster'")(init)
    example(family, "issue", "khepri-bridge certs issue hs1.example hs2.example hs3.example")(issue)
    example(family, "list", "khepri-bridge certs list")(list_all)
    app.add_typer(family, name="certs")


def init(
    directory: Place = Path("certs"),
    name: Annotated[str, typer.Option(help="What the authority is called.")] = "Khepri Bridge cluster",
    days: Annotated[int, typer.Option(help="How long it is valid.")] = 3650,
    as_json: Json = False,
) -> None:
    """Make an authority; its key signs certificates, and belongs on no node."""
    from bridge.cluster.certificates import AUTHORITY_KEY, create_authority

    made = create_authority(directory, name=name, days=days, now=_now())
    emit(
        {
            "authority": str(made.file),
            "key": str(directory / AUTHORITY_KEY),
            "expires": made.expires.isoformat(),
        },
        as_json=as_json,
        text=f"{made.file}, valid until {made.expires:%Y-%m-%d}; keep {directory / AUTHORITY_KEY} safe",
    )


def issue(
    hosts: Annotated[
        list[str], typer.Argument(help="Host parts of node names, names or addresses.", metavar="HOST...")
    ],
    directory: Place = Path("certs"),
    days: Annotated[int, typer.Option(help="How long they are valid.")] = 365,
    installed_at: Annotated[
        Path | None,
        typer.Option(
            help="Directory on the hosts where the four files will lie; the option file names it.",
            show_default="where they lie here",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key, a certificate and an option file for each host, or make them anew."""
    from bridge.cluster.certificates import issue_certificate

    where = None if installed_at is None else PurePosixPath(installed_at)
    made = [issue_certificate(directory, host, days=days, now=_now(), installed_at=where) for host in hosts]
    emit(
        {
            "certificates": [
                {"host": item.host, "directory": str(item.file.parent), "expires": item.expires.isoformat()}
                for item in made
            ]
        },
        as_json=as_json,
        text="\n".join(f"{item.file.parent}, valid until {item.expires:%Y-%m-%d}" for item in made),
    )


def list_all(directory: Place = Path("certs"), as_json: Json = False) -> None:
    """Show what there is and when it expires; fails when something does within 30 days."""
    from bridge.cluster.certificates import list_certificates

    now = _now()
    found = list_certificates(directory)
    rows = tuple((item.host, f"{item.expires:%Y-%m-%d %H:%M}", _state(item.expires, now)) for item in found)
    emit(
        {
            "certificates": [
                {"host": item.host, "file": str(item.file), "expires": item.expires.isoformat()}
                for item in found
            ],
            "ok": all(state == "valid" for _, _, state in rows),
        },
        as_json=as_json,
        text=table(("host", "expires (UTC)", "state"), rows),
    )
    if any(state != "valid" for _, _, state in rows):
        raise typer.Exit(1)


def _state(expires: datetime.datetime, now: datetime.datetime) -> str:
    if expires <= now:
        return "expired"
    return "expires soon" if expires - now < _SOON else "valid"


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
