"""``doctor`` and ``build``: what this machine has, and the Erlang release on it."""

from __future__ import annotations

from typing import Annotated

import typer

from bridge.cli.output import Json, emit, example, progress


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    example(app, "doctor", "khepri-bridge doctor")(doctor)
    example(app, "build", "khepri-bridge build --force")(build)


def doctor(as_json: Json = False) -> None:
    """Check this machine, and say how to mend what is missing."""
    from bridge.cluster.doctor import examine

    findings = examine()
    lines = []
    for finding in findings:
        sign = {"good": "ok  ", "advice": "note", "bad": "FAIL"}[finding.verdict]
        lines.append(f"{sign}  {finding.check}: {finding.text}")
        if finding.remedy:
            lines.append(f"        {finding.remedy}")
    healthy = all(finding.verdict != "bad" for finding in findings)
    emit(
        {
            "ok": healthy,
            "checks": [
                {"check": f.check, "verdict": f.verdict, "text": f.text, "remedy": f.remedy} for f in findings
            ],
        },
        as_json=as_json,
        text="\n".join(lines),
    )
    if not healthy:
        raise typer.Exit(1)


def build(
    force: Annotated[bool, typer.Option("--force", help="Build even when nothing changed.")] = False,
    sources: Annotated[
        str, typer.Option(help="Where Khepri's sources come from: hex, debian or any (hex, else debian).")
    ] = "any",
    as_json: Json = False,
) -> None:
    """Build the Erlang release of a homeserver, unless it is up to date."""
    from bridge.cluster.build import build_release

    release = build_release(progress, origin=sources, force=force)
    emit({"release": str(release)}, as_json=as_json, text=f"release: {release}")
