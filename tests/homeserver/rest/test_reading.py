from __future__ import annotations

import pytest

from bridge.etf import Atom
from bridge.homeserver.rest.problems import ProblemError
from bridge.homeserver.rest.reading import bridge_path, record_at, server_named, session_of_player
from tests.support.authority import Server
from tests.support.cluster import erlang, fresh
from tests.support.rest import Rest


def test_names_in_a_path_are_binaries_and_words_of_ours_are_atoms() -> None:
    assert bridge_path("inbox", b"session", Atom("asks"), "ball") == [
        Atom("bridge"),
        Atom("inbox"),
        b"session",
        Atom("asks"),
        b"ball",
    ]


@erlang
async def test_records_are_found_or_not(rest: Rest, server: Server) -> None:
    assert (await server_named(rest.context, server.name, current=True)).session == server.session
    assert await record_at(rest.context, bridge_path("entities", fresh("thing"))) is None
    assert await session_of_player(rest.context, fresh("Player")) is None
    with pytest.raises(ProblemError, match="no server"):
        await server_named(rest.context, fresh("nowhere"))
