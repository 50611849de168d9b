"""Mutate PROOF frames, signed datagrams and evidence files.

An exception that is not promised, or a proof that holds for what was never signed, is a finding. Run it as
``python -m tests.fuzz.fuzz_evidence --seconds 60 --seed 1``; a finding prints its input and ends with
status 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from itertools import groupby

import numpy as np

from bridge.errors import DecodeError, SignatureError
from bridge.jose import Jwk
from bridge.udp.bucket import TokenBucket
from bridge.udp.config import UdpConfig
from bridge.udp.events import StateReceived, StatesReceived
from bridge.udp.evidence import (
    Evidence,
    ProofVerifier,
    TickSigner,
    Unsigned,
    evidence_to_json,
    parse_evidence_untrusted,
)
from bridge.udp.evidence.proof import parse_proof_untrusted
from bridge.udp.frames import (
    State,
    encode_frame,
)
from bridge.udp.keys import Aead, derive_session_keys
from bridge.udp.wire import (
    DATA,
    DATA_HEADER,
    MAX_PLAINTEXT_BYTES,
    PROLOGUE,
)
from tests.fuzz.fuzz_udp import mutate
from tests.support.datagrams import bare_sessions
from tests.support.proofs import encode_proof

SENDER = Jwk.generate()
RECIPIENT = bytes(range(32))
SESSION = bytes(16)
WIDTH = 60


def attack_parser(frame: bytes, chance: random.Random) -> bytes:
    """A PROOF frame that parses writes back equal."""
    data = mutate(frame, chance)
    try:
        proof = parse_proof_untrusted(data)
    except DecodeError:
        return data
    if encode_proof(proof) != data:
        raise AssertionError("a proof does not write back as it was read")
    return data


def attack_file(raw: bytes, chance: random.Random) -> bytes:
    """No altered file is read and holds."""
    data = mutate(raw, chance)
    try:
        evidence = parse_evidence_untrusted(data)
        evidence.check(SENDER)
    except (DecodeError, SignatureError):
        return data
    if data != raw:
        raise AssertionError("an altered file holds")
    return data


def attack_verifier(
    ours: ProofVerifier, sequences: np.ndarray, rows: np.ndarray, chance: random.Random
) -> bytes:
    """Exactly the rows that were left alone are proven, whatever their neighbours have become."""
    altered = rows.copy()
    for _ in range(chance.randrange(6)):
        row = chance.randrange(len(altered))
        start = chance.choice((0, WIDTH, chance.randrange(altered.shape[1])))
        end = start + chance.randrange(1, 12)
        altered[row, start:end] = chance.choice((0, 255, chance.randrange(256)))
    order = sorted(range(len(rows)), key=lambda row: row + chance.choice((0, 0, 9)))
    proven = ours.verify(sequences[order], altered[order], WIDTH, now=time.monotonic())
    untouched = (altered == rows).all(axis=1)[order]
    alone = [
        ours.verify_one(int(sequences[row]), altered[row].tobytes(), WIDTH, now=time.monotonic())
        for row in order
    ]
    if (proven != untouched).any() or (alone != untouched).any():
        raise AssertionError("an altered datagram is proven, or one left alone is not")
    return altered.tobytes()


def attack_session(chance: random.Random) -> bytes:
    """A peer of a signed session with some false datagrams: no state is believed that it did not sign."""
    verifier = ProofVerifier(
        sender=SENDER,
        recipient=RECIPIENT,
        session_id=SESSION,
        checks=TokenBucket(rate=1e9, burst=1 << 30),
    )
    config = UdpConfig(keep_evidence=chance.random() < 0.5)
    _, victim = bare_sessions(config=config, verifier=verifier)
    seal = Aead(derive_session_keys(shared_secret=bytes(32), transcript=bytes(32)).initiator).seal
    count, size = chance.randrange(1, 24), chance.choice((0, 1, 40, 738))
    payloads = [chance.randbytes(size) for _ in range(count)]
    texts = [
        PROLOGUE.pack(1, 0, 0) + encode_frame(State(row, 1, payload)) for row, payload in enumerate(payloads)
    ]
    matrix = np.frombuffer(b"".join(texts), dtype=np.uint8).reshape(count, -1)
    parts = TickSigner(SENDER).sign(
        [Unsigned(RECIPIENT, SESSION, 0, matrix)], sealed_at_ms=5, salts=chance.randbytes(16 * count)
    )[0]
    proofs = [row.tobytes() for part in parts for row in part]
    sealed = []
    for sequence, (text, proof) in enumerate(zip(texts, proofs, strict=True)):
        plaintext = text + proof
        if chance.random() < 0.1:
            plaintext = mutate(plaintext, chance)[:MAX_PLAINTEXT_BYTES].ljust(PROLOGUE.size, b"\0")
        header = DATA_HEADER.pack(DATA, 2, sequence)
        sealed.append(header + seal(sequence, plaintext, header))
    for segment, run in groupby(sealed, len):
        datagrams = b"".join(run)
        if chance.random() < 0.7:
            rows = np.frombuffer(datagrams, dtype=np.uint8).reshape(-1, segment)
            victim.inbound.receive_run(memoryview(datagrams), rows, victim.address, now=100.0)
        else:
            for start in range(0, len(datagrams), segment):
                victim.inbound.receive_datagram(datagrams[start : start + segment], victim.address, now=100.0)
    while (event := victim.next_event()) is not None:
        if not isinstance(event, StateReceived | StatesReceived):
            continue
        for state in event.states():
            if state.stream >= count or state.payload != payloads[state.stream] or state.number != 1:
                raise AssertionError("a state that the peer did not sign is believed")
            if config.keep_evidence:
                assert state.evidence is not None
                state.evidence.check(SENDER)
    return b"".join(sealed)


def main() -> int:
    """Run for a time; 1 if there was a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    end = time.monotonic() + arguments.seconds
    rounds = 0
    data = b""
    try:
        while time.monotonic() < end:
            count = chance.choice((1, 2, 7, chance.randrange(1, 60)))
            first = chance.getrandbits(40)
            plaintexts = np.frombuffer(chance.randbytes(count * WIDTH), dtype=np.uint8).reshape(count, WIDTH)
            waiting = [Unsigned(RECIPIENT, SESSION, first, plaintexts)]
            salts = chance.randbytes(16 * count)
            part = TickSigner(SENDER).sign(waiting, sealed_at_ms=rounds, salts=salts)[0][0]
            rows = np.hstack([plaintexts[: len(part)], part])
            sequences = np.arange(first, first + len(part), dtype=np.uint64)
            kept = Evidence(
                sender=SENDER.public(),
                recipient=RECIPIENT,
                session_id=SESSION,
                sequence=first,
                plaintext=plaintexts[0].tobytes(),
                proof=part[0].tobytes(),
            )
            ours = ProofVerifier(
                sender=SENDER,
                recipient=RECIPIENT,
                session_id=SESSION,
                checks=TokenBucket(rate=1e9, burst=1 << 30),
            )
            for _ in range(20):
                data = attack_parser(kept.proof, chance)
                data = attack_file(evidence_to_json(kept), chance)
                data = attack_verifier(ours, sequences, rows, chance)
                data = attack_session(chance)
                rounds += 1
    except Exception:
        print(f"finding in round {rounds}, seed {arguments.seed}: {data.hex()}", file=sys.stderr)  # noqa: T201
        raise
    print(f"{rounds} rounds, no finding")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
