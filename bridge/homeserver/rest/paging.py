"""Lists that can grow come in pages, all in one way: `limit` of what comes after `after`, and `next`.

What is listed has a text that orders it: its name, or for lists with the newest first one that `newest_first`
makes. A page goes on by that text alone, so any process can give the next one, and what was added or deleted
in between moves nothing from one page to another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

from fastapi import Query
from pydantic import BaseModel, Field

from bridge.homeserver.rest.context import Context
from bridge.homeserver.rest.shapes import Name
from bridge.khepri import NodeNotFoundError, Path

DEFAULT_LIMIT: Final = 100
_END_OF_TIME: Final = 10**15 - 1
"""Unix milliseconds, some 31,000 years on: what is counted down from has the same number of digits always"""

After = Annotated[Name | None, Query(description="What comes after this one: `next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=200, description="How many at most.")]


class Page(BaseModel):
    """A part of a list."""

    next: str | None = Field(description="Ask again with `after` set to this for more; null: that was all.")


def page_of(found: Iterable[str], after: str | None, limit: int) -> tuple[list[str], str | None]:
    """What is on a page, in order, and after what the next one begins.

    Args:
        found: the texts of all that there is.
        after: where the page before ended; ``None``: this is the first.
        limit: how many a page has at most.
    """
    names = sorted(name for name in found if after is None or name > after)
    return names[:limit], names[limit - 1] if len(names) > limit else None


async def names_below(here: Context, path: Path) -> list[str]:
    """Names of the nodes below one, of which there may be too many to read each."""
    try:
        found = await here.store.adv.get(path, props=["child_names"])
    except NodeNotFoundError:
        return []
    return [
        name.decode(errors="replace")
        for props in found.values()
        for name in props.child_names or ()
        if isinstance(name, bytes)
    ]


def newest_first(at_ms: int, name: str) -> str:
    """The text that orders something of a time, in Unix milliseconds, before all that is older."""
    return f"{_END_OF_TIME - at_ms:015d}.{name}"
