"""What a case leaves in the store."""

from __future__ import annotations

from collections.abc import Iterable

from bridge.khepri import Khepri, PathMatches, Prop
from tests.parity.outcomes import comparable
from tests.parity.verbs import Root

PROPS: frozenset[Prop] = frozenset(
    {"payload", "payload_version", "child_list_version", "child_list_length", "child_names"}
)


async def tree(store: Khepri, at: Root, props: Iterable[Prop] = PROPS) -> object:
    """All there is below a root."""
    found = await store.adv.get_many(at(PathMatches()), props=props, favor="consistency")
    return comparable(found, at.path)
