from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.etf import Atom
from bridge.homeserver.rest.paging import names_below, newest_first, page_of
from bridge.homeserver.rest.reading import bridge_path
from tests.support.authority import Server
from tests.support.cluster import erlang, fresh
from tests.support.rest import Rest, kind


@given(st.sets(st.text(min_size=1)), st.integers(1, 7))
def test_pages_together_are_the_whole_list_in_order(names: set[str], limit: int) -> None:
    found: list[str] = []
    after: str | None = None
    while True:
        page, after = page_of(names, after, limit)
        assert len(page) <= limit
        found += page
        if after is None:
            break
        assert page[-1] == after
    assert found == sorted(names)


@given(st.sets(st.text(min_size=1), min_size=2), st.data())
def test_what_goes_between_two_pages_moves_nothing(names: set[str], data: st.DataObject) -> None:
    first, after = page_of(names, None, len(names) - 1)
    gone = data.draw(st.sampled_from(sorted(first)))
    assert page_of(names - {gone}, after, 9) == (sorted(names - set(first)), None)


@given(st.lists(st.tuples(st.integers(0, 2**48), st.text(min_size=1)), unique=True))
def test_the_newest_comes_first_and_of_one_moment_the_lower_name(found: list[tuple[int, str]]) -> None:
    ordered = sorted(found, key=lambda one: newest_first(*one))
    assert ordered == sorted(found, key=lambda one: (-one[0], one[1]))


@erlang
async def test_names_are_those_below_a_node(rest: Rest, server: Server) -> None:
    await rest.context.store.fence()
    assert server.name in await names_below(rest.context, bridge_path("servers"))
    assert await names_below(rest.context, [Atom("nothing"), fresh("here").encode()]) == []


@erlang
@pytest.mark.parametrize("path", ["/v1/servers", "/v1/scenes", "/v1/keys", "/v1/revocations"])
async def test_every_list_takes_the_same_bounds(rest: Rest, path: str) -> None:
    reader = await rest.client("reader")
    for query in ({"limit": 0}, {"limit": 201}, {"after": ""}, {"after": "a/b"}):
        assert kind(await reader.get(path, params=query)) == "invalid_request"
    assert (await reader.get(path, params={"after": "~" * 255})).json()["next"] is None
