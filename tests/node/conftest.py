"""What tests of this room share: real OTP nodes, and hidden nodes that meet without one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import count

import pytest

from bridge.node import HiddenNode
from tests.support.otp import COOKIE, OtpNode, PortMapper, otp_node, port_mapper
from tests.support.port_mapper import LoopPortMapper, loop_port_mapper

_NUMBERS = count(1)


@pytest.fixture(scope="package")
def mapper() -> Iterator[PortMapper]:
    """An epmd for the tests of this room."""
    with port_mapper() as running:
        yield running


@pytest.fixture
async def otp(mapper: PortMapper) -> AsyncIterator[OtpNode]:
    """A BEAM for one test."""
    async with otp_node(mapper, "hs1") as node:
        yield node


@pytest.fixture
async def node(mapper: PortMapper) -> AsyncIterator[HiddenNode]:
    """A hidden node beside it."""
    # A name of its own for each test: epmd may not have seen yet that the one before is gone.
    name = f"node{next(_NUMBERS)}@127.0.0.1"
    async with HiddenNode(name, cookie=COOKIE, config=mapper.node_config()) as running:
        yield running


@pytest.fixture
async def names() -> AsyncIterator[LoopPortMapper]:
    """A port mapper in this loop."""
    async with loop_port_mapper() as running:
        yield running
