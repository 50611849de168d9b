from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bridge.cli.app import build_app
from bridge.errors import BridgeError, DecodeError, SignatureError
from bridge.jose import Jwk
from bridge.jose.encoding import base64url_encode
from bridge.replication.bindings import Bindings
from bridge.replication.records import Records, compact_records, encode_payloads
from bridge.replication.world import States
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
from bridge.udp.evidence import (
    Evidence,
    HandleBinding,
    TickSigner,
    Unsigned,
    evidence_to_json,
    parse_evidence_untrusted,
)
from bridge.udp.frames import (
    Ping,
    State,
    encode_frame,
)
from bridge.udp.wire import (
    PROLOGUE,
)

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


BINDINGS = (
    HandleBinding(handle=3, entity="ship-1", epoch=(5 << 32) + 9, session=bytes(16)),
    HandleBinding(handle=8, entity="ship-2", epoch=70_000, session=bytes(16)),
)


def states_at(*positions: tuple[float, float, float]) -> States:
    count = len(positions)
    return States(
        ticks=np.full(count, 77, dtype=np.uint64),
        positions=np.array(positions),
        rotations=np.tile([0.0, 0.0, 0.0, 1.0], (count, 1)),
        velocities=np.zeros((count, 3)),
        angular_velocities=np.zeros((count, 3)),
        flags=np.zeros(count, dtype=np.uint8),
    )


def entity_states(*, with_digest: bool = True, bindings: tuple[HandleBinding, ...] = BINDINGS) -> bytes:
    """A datagram with a record of each binding."""
    states = states_at((1.0, 2.0, 3.0), (-4.5, 0.0, 0.25))
    records = compact_records([3, 8], [one.epoch for one in bindings], states)
    agreed = Bindings()
    for one in bindings:
        agreed.bind(one.handle, one.entity, one.epoch, one.session)
    return datagram(records, agreed if with_digest else None)


def datagram(records: Records, agreed: Bindings | None) -> bytes:
    digests = None if agreed is None else agreed.digests(records[None])
    payload = encode_payloads(records[None], tick=77, digests=digests)[0].tobytes()
    return PROLOGUE.pack(1, 2, 3) + encode_frame(State(0, 1, payload))


def keep(files: Path, plaintext: bytes, bindings: tuple[HandleBinding, ...]) -> None:
    kept = parse_evidence_untrusted(evidence(plaintext))
    (files / "kept").write_bytes(evidence_to_json(replace(kept, bindings=bindings)))


def test_with_bindings_entities_and_full_epochs_are_told(files: Path) -> None:
    keep(files, entity_states(), BINDINGS)
    (state,) = json.loads(run(files, "--json"))["states"]
    session = base64url_encode(bytes(16))
    assert state["records"] == [
        {
            "entity": "ship-1",
            "epoch": 21474836489,
            "session": session,
            "tick": 77,
            "position": [1.0, 2.0, 3.0],
        },
        {"entity": "ship-2", "epoch": 70_000, "session": session, "tick": 77, "position": [-4.5, 0.0, 0.25]},
    ]
    assert run(files).splitlines()[-1] == (
        f"state      stream 0, number 1: ship-2 at epoch 70000 of session {session}, "
        "tick 77: -4.500 0.000 0.250 m"
    )


def test_a_name_with_line_breaks_writes_no_lines_of_its_own(files: Path) -> None:
    bindings = (BINDINGS[0], replace(BINDINGS[1], entity="ship\nsender     somebody else"))
    keep(files, entity_states(bindings=bindings), bindings)
    lines = run(files).splitlines()
    assert [line for line in lines if line.startswith("sender ")] == [f"sender     {ALICE.thumbprint()}"]
    assert r"'ship\nsender     somebody else' at epoch" in lines[-1]


@pytest.mark.parametrize(
    "changed",
    [{"entity": "ship-3"}, {"epoch": 70_000 + (1 << 16)}, {"session": bytes(15) + b"1"}, {"handle": 9}],
    ids=lambda changed: next(iter(changed)),
)
def test_bindings_that_the_sender_did_not_sign_are_refused(files: Path, changed: dict[str, Any]) -> None:
    keep(files, entity_states(), (BINDINGS[0], replace(BINDINGS[1], **changed)))
    assert "bindings in the file are not those" in str(refusal(files))


def test_bindings_prove_nothing_where_the_sender_signed_no_digest(files: Path) -> None:
    keep(files, entity_states(with_digest=False), BINDINGS)
    assert "signed no digest" in str(refusal(files))


def test_bindings_beside_other_states_are_refused(files: Path) -> None:
    keep(files, PLAINTEXT, BINDINGS)
    assert "a state of other records" in str(refusal(files))


def test_a_handle_that_nobody_bound_is_refused(files: Path) -> None:
    """The sender signed a digest in which this handle stands for nothing."""
    records = compact_records([3], [0], states_at((0.0, 0.0, 0.0)))
    keep(files, datagram(records, Bindings()), BINDINGS[1:])
    assert "not of all handles" in str(refusal(files))


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
    for state in received[::12]:
        assert state.evidence is not None
        (files / "kept").write_bytes(evidence_to_json(state.evidence))
        told = json.loads(run(files, "--json", "--recipient", BOB.thumbprint()))
        assert told["sender"] == ALICE.thumbprint()
        assert told["session"] == base64url_encode(session.session_id)
        payload = base64url_encode(state.payload)
        assert told["states"] == [{"stream": state.stream, "number": state.number, "payload": payload}]
