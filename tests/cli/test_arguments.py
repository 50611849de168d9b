"""A word that begins with a dash is an argument where it can be no option."""

from __future__ import annotations

from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from bridge.cli.output import example

ID = "-" + "a" * 21
THUMBPRINT = "-Z" + "-_" * 20 + "a"

app = typer.Typer()


@app.callback()
def group() -> None:
    """A family with one command."""


def show(
    first: str,
    second: Annotated[str, typer.Argument()] = "none",
    reason: Annotated[str, typer.Option("--reason", "-r")] = "none",
    as_json: Annotated[bool, typer.Option("--json/--text")] = False,
) -> None:
    """Print what was understood."""
    typer.echo(f"{first} {second} {reason} {as_json}")


example(app, "show", "show one two")(show)


def said(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["show", *words])
    return result.exit_code, result.output.strip()


@pytest.mark.parametrize("word", [THUMBPRINT, ID, "-5", "-0.25", "-1e9"])
def test_a_thumbprint_an_id_and_a_negative_number_may_stand_anywhere(word: str) -> None:
    assert said(word) == (0, f"{word} none none False")
    assert said(word, "two", "--reason", "stolen") == (0, f"{word} two stolen False")
    assert said("--json", "one", word, "-r", "lost") == (0, f"one {word} lost True")
    assert said("--", word) == (0, f"{word} none none False")


def test_the_value_of_an_option_stays_with_it() -> None:
    assert said(ID, "--reason", THUMBPRINT) == (0, f"{ID} none {THUMBPRINT} False")
    assert said(ID, f"--reason={THUMBPRINT}", "two") == (0, f"{ID} two {THUMBPRINT} False")


@pytest.mark.parametrize("word", ["-x", "--raeson", "-Z" + "a" * 19, "-5x"])
def test_a_misspelled_option_is_still_an_error(word: str) -> None:
    code, output = said("one", word)
    assert code == 2
    assert "No such option" in output


def test_an_option_without_its_value_is_an_error_and_no_hang() -> None:
    code, output = said("-5", "--reason")
    assert code == 2
    assert "requires an argument" in output


def test_help_is_help_wherever_it_stands() -> None:
    code, output = said("-5", "--help")
    assert code == 0
    assert "show one two" in output
