"""Arguments that begin with a dash and are no options: thumbprints, ids of certificates, negative numbers.

One base64url text in 64 begins with ``-``, and ``put PATH -5`` is what people type. click takes both for
options. Letting it pass every unknown option as an argument was rejected: it swallows misspelled options.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

from typer.core import TyperCommand, TyperOption

# A number of JSON, the 22 characters of a certificate's id, the 43 of a thumbprint (RFC 7638).
_NO_OPTION = re.compile(r"-(\d+(\.\d+)?([eE][+-]?\d+)?|[A-Za-z0-9_-]{21}|[A-Za-z0-9_-]{42})", re.ASCII)


class DashedArguments(TyperCommand):
    """A command that knows negative numbers, thumbprints and ids from options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read a command line.

        Raises:
            UsageError: of click; an option is unknown, or something is missing.
        """
        return super().parse_args(ctx, _dashes_last(args, self._options(ctx)))

    def get_short_help_str(self, limit: int = 0) -> str:
        """The first sentence, whole: a list of commands wraps lines rather than cut them off."""
        del limit
        return super().get_short_help_str(limit=1_000)

    def _options(self, ctx: Any) -> dict[str, bool]:
        """Each option's names, and whether a value follows it."""
        return {
            name: not (option.is_flag or option.count)
            for option in self.get_params(ctx)
            if isinstance(option, TyperOption)
            for name in (*option.opts, *option.secondary_opts)
        }


def _dashes_last(args: list[str], options: dict[str, bool]) -> list[str]:
    """The same command line, its arguments behind ``--`` if one of them needs it."""
    kept: list[str] = []
    arguments: list[str] = []
    words = iter(args)
    for word in words:
        if word == "--":
            arguments += words
        elif word in options:
            kept.append(word)
            if options[word]:
                value = list(islice(words, 1))
                if not value:
                    return kept  # `--` would become its value; as it is, click tells what is missing.
                kept += value
        elif word.startswith("-") and word != "-" and not _NO_OPTION.fullmatch(word):
            kept.append(word)
        else:
            arguments.append(word)
    if not any(map(_NO_OPTION.fullmatch, arguments)):
        return args
    return [*kept, "--", *arguments]
