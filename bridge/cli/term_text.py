"""Terms on one line, for people, and the option that says how."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

Erlang = Annotated[bool, typer.Option("--erlang", help="Print terms as Erlang writes them, not as JSON.")]


def term_text(term: Any, *, erlang: bool) -> str:
    """A term as JSON, or as Erlang writes it."""
    from bridge.cli.term_erlang import erlang_from_term
    from bridge.cli.term_json import json_from_term

    if erlang:
        return "undefined" if term is None else erlang_from_term(term)
    return json.dumps(json_from_term(term), ensure_ascii=False)
