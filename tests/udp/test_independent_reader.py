"""docs/protocol.md is enough to write a peer from: one that shares no code talks to the engine."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import json
import sys
from pathlib import Path

import pytest

from bridge.udp.config import UdpConfig
from bridge.udp.engine import UdpEngine
from bridge.udp.events import MessageReceived, SessionClosed, StateReceived, UdpEvent
from bridge.udp.peers import Peer
from tests.support.datagrams import sorted_keys

READER = Path(__file__).with_name("independent_reader.py")
ORDERED = [bytes([n]) * size for n, size in enumerate((0, 10, 3000, 40_000, 1))]
UNORDERED = [bytes([n]) * size for n, size in enumerate((7, 0, 20_000, 1100))]


def digest(message: bytes) -> str:
    return hashlib.sha256(message).hexdigest()


def test_the_reader_shares_no_code() -> None:
    roots = set()
    for node in ast.walk(ast.parse(READER.read_text())):
        match node:
            case ast.Import(names=names):
                roots |= {alias.name.partition(".")[0] for alias in names}
            case ast.ImportFrom(module=str() as module):
                roots.add(module.partition(".")[0])
    assert roots - set(sys.stdlib_module_names) == {"cryptography"}


@pytest.mark.parametrize("ours", [4, 1 << 24], ids=["both change keys", "the reader changes keys"])
async def test_a_peer_written_from_the_document_holds_a_session(ours: int) -> None:
    low, high, _ = sorted_keys()
    events: list[UdpEvent] = []
    # One signature may be checked unasked, so that the next INIT is answered by a RETRY.
    config = UdpConfig(handshake_burst=1, handshakes_per_second=0.001, rekey_after_datagrams=ours)
    async with UdpEngine(config, identity=high, on_event=events.append) as engine:
        engine.add_peer(Peer(name="reader", public_key=low.public(), address=("127.0.0.1", 9)))
        reader = await asyncio.create_subprocess_exec(
            sys.executable, "-I", str(READER), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert reader.stdin is not None
        request = {
            "port": engine.local_address[1],
            "key": low.to_dict(),
            "server": high.public().to_dict(),
            "want": {"states": 20, "ordered": len(ORDERED), "unordered": len(UNORDERED), "phases": 4},
        }
        reader.stdin.write(json.dumps(request).encode())
        reader.stdin.close()
        async with asyncio.timeout(30):
            await serve(engine, events)
            output = await reader.stdout.read() if reader.stdout is not None else b""
            assert await reader.wait() == 0
    report = json.loads(output)
    assert report["unanswered"] == 1
    # More where it sent again, since the answer took longer than it waits.
    assert report["retries"] >= 1
    assert report["ordered"] == [digest(message) for message in ORDERED]
    assert report["unordered"] == [[n, digest(message)] for n, message in enumerate(UNORDERED)]
    assert all(number == value for number, value in report["states"])
    assert len(report["states"]) >= 20
    assert min(report["phases"]) >= 4
    assert report["echoes"] > 10

    read = {event.ordered: event.payload for event in events if isinstance(event, MessageReceived)}
    assert read == {True: b"hello, in order", False: b"hello, out of order"}
    states = [event for event in events if isinstance(event, StateReceived)]
    assert [int.from_bytes(event.payload) for event in states] == sorted(event.number for event in states)
    assert {event.stream for event in states} == {9}
    (closed,) = (event for event in events if isinstance(event, SessionClosed))
    assert (closed.by_peer, closed.detail, closed.undelivered) == (True, "done", ())


async def serve(engine: UdpEngine, events: list[UdpEvent]) -> None:
    """Send a state every few milliseconds, and all messages at first, until the reader closes."""
    while (session := engine.session("reader")) is None:
        await asyncio.sleep(0.002)
    for message in ORDERED:
        session.send_reliable(message)
    for message in UNORDERED:
        session.send_unordered(message)
    number = 0
    while not session.is_closed:
        assert session.send_state(number.to_bytes(4, "big"), 3) == number
        number += 1
        await asyncio.sleep(0.002)
