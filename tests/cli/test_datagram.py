from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bridge.cli.app import build_app
from bridge.errors import BridgeError, DecodeError, SignatureError
from bridge.jose import Jwk
from bridge.jose.encoding import base64url_encode
from bridge.udp import (
    Conditioner,
    MessageReceived,
    NetworkConditions,
    Peer,
    StateReceived,
    StatesReceived,
    UdpConfig,
    UdpEngine,
    UdpEvent,
)
from bridge.udp.evidence import Evidence, TickSigner, Unsigned, evidence_to_json
from bridge.udp.wire import PROLOGUE, Ping, State, encode_frame

ALICE = Jwk.generate()
BOB = Jwk.generate()
SESSION = bytes(range(16))
FRAMES = encode_frame(Ping()) + encode_frame(State(3, 9, b"north")) + encode_frame(State(4, 9, b""))
PLAINTEXT = PROLOGUE.pack(1, 2, 3) + FRAMES


def evidence(plaintext: bytes = PLAINTEXT, moment: int = 1_700_000_000_123) -> bytes:
    waiting = [Unsigned(BOB.thumbprint_bytes(), SESSION, 5, text) for text in (b"another", plaintext)]
    parts = TickSigner(ALICE).sign(waiting, sealed_at_ms=moment, salts=bytes(32))
    kept = Evidence(
        sender=ALICE.public(),
        recipient=BOB.thumbprint_bytes(),
        session_id=SESSION,
        sequence=5,
        plaintext=plaintext,
        proof=parts[1][0].tobytes(),
    )
    return evidence_to_json(kept)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "alice.jwk").write_text(ALICE.public().to_json())
    (tmp_path / "alice.pem").write_bytes(ALICE.public().to_pem())
    (tmp_path / "bob.jwk").write_text(BOB.public().to_json())
    (tmp_path / "kept").write_bytes(evidence())
    return tmp_path


def run(files: Path, *arguments: str, key: str = "alice.jwk") -> str:
    command = ["box", "verify-datagram", str(files / "kept"), "--key", str(files / key), *arguments]
    result = CliRunner().invoke(build_app(), command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("key", ["alice.jwk", "alice.pem"])
def test_who_sent_what_to_whom_is_told(files: Path, key: str) -> None:
    told: dict[str, Any] = json.loads(run(files, "--json", key=key))
    assert told == {
        "sender": ALICE.thumbprint(),
        "recipient": BOB.thumbprint(),
        "session": base64url_encode(SESSION),
        "sequence": 5,
        "sealed_at_ms": 1_700_000_000_123,
        "sealed_at": "2023-11-14T22:13:20.123Z",
        "tree_size": 2,
        "leaf": 1,
        "states": [
            {"stream": 3, "number": 9, "payload": base64url_encode(b"north")},
            {"stream": 4, "number": 9, "payload": ""},
        ],
    }


def test_people_read_lines(files: Path) -> None:
    assert run(files).splitlines() == [
        f"sender     {ALICE.thumbprint()}",
        f"recipient  {BOB.thumbprint()}",
        f"session    {base64url_encode(SESSION)}",
        "sequence   5",
        "sealed at  2023-11-14T22:13:20.123Z, as the sender claims",
        "tree       leaf 1 of 2",
        f"state      stream 3, number 9: {base64url_encode(b'north')}",
        "state      stream 4, number 9: (empty)",
    ]


def test_a_moment_beyond_the_calendar_is_told_as_a_number(files: Path) -> None:
    (files / "kept").write_bytes(evidence(moment=2**64 - 1))
    assert "18446744073709551615 ms after 1970" in run(files)


def refusal(files: Path, *arguments: str, key: str = "alice.jwk") -> BridgeError:
    with pytest.raises(BridgeError) as refused:
        run(files, *arguments, key=key)
    assert "\n" not in str(refused.value)
    return refused.value


def test_the_recipient_may_be_demanded(files: Path) -> None:
    run(files, "--recipient", BOB.thumbprint())
    assert isinstance(refusal(files, "--recipient", ALICE.thumbprint()), SignatureError)


def test_another_key_than_the_senders_is_refused(files: Path) -> None:
    assert "the evidence is about" in str(refusal(files, key="bob.jwk"))


def test_evidence_that_was_altered_is_refused(files: Path) -> None:
    kept = (files / "kept").read_bytes()
    (files / "kept").write_bytes(kept.replace(b'"sequence":5', b'"sequence":6'))
    assert isinstance(refusal(files), SignatureError)


def test_what_is_no_evidence_is_refused(files: Path) -> None:
    (files / "kept").write_bytes(b"{}")
    assert isinstance(refusal(files), DecodeError)


def test_signed_bytes_that_are_no_datagram_are_refused(files: Path) -> None:
    (files / "kept").write_bytes(evidence(PROLOGUE.pack(1, 2, 3) + b"\xff"))
    assert "is no datagram" in str(refusal(files))


async def test_what_a_real_engine_received_is_evidence_though_a_third_was_lost(files: Path) -> None:
    """Two engines over loopback, a file, the command: nothing but the file and the sender's key."""
    received: list[StateReceived] = []
    done = asyncio.Event()

    def on_event(event: UdpEvent) -> None:
        if isinstance(event, StateReceived | StatesReceived):
            received.extend(event.states())
        elif isinstance(event, MessageReceived):
            done.set()

    config = UdpConfig(signed=True, keep_evidence=True)
    bad = Conditioner(NetworkConditions(loss=0.3, seed=5), source="alice")
    async with (
        UdpEngine(config, identity=ALICE, conditioner=bad) as alice,
        UdpEngine(UdpConfig(keep_evidence=True), identity=BOB, on_event=on_event) as bob,
    ):
        alice.add_peer(Peer(name="bob", public_key=BOB.public(), address=bob.local_address))
        bob.add_peer(Peer(name="alice", public_key=ALICE.public(), address=alice.local_address))
        session = await alice.connect("bob", timeout=20)
        session.send_state(np.arange(60 * 200, dtype=np.uint8).reshape(60, 200))
        alice.flush()
        session.send_reliable(b"that was all")
        await asyncio.wait_for(done.wait(), 20)
    assert 25 < len(received) < 59
    for state in received:
        assert state.evidence is not None
        (files / "kept").write_bytes(evidence_to_json(state.evidence))
        told = json.loads(run(files, "--json", "--recipient", BOB.thumbprint()))
        assert told["sender"] == ALICE.thumbprint()
        assert told["session"] == base64url_encode(session.session_id)
        payload = base64url_encode(state.payload)
        assert told["states"] == [{"stream": state.stream, "number": state.number, "payload": payload}]
