"""The service over the shared cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bridge.khepri import Khepri
from tests.support.authority import Server
from tests.support.cluster import fresh
from tests.support.rest import Rest


@pytest.fixture
async def rest(store: Khepri) -> AsyncIterator[Rest]:
    """The service, with limits that no test meets by chance."""
    async with await Rest.over(store) as made:
        yield made


@pytest.fixture
async def server(store: Khepri) -> AsyncIterator[Server]:
    """A simulation server with an open session."""
    made = Server(store, fresh("sim"))
    await made.open()
    yield made
    await made.home.close_session()
