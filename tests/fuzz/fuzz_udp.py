"""Mutate datagrams of every kind; any exception that leaves an endpoint or a parser is a finding.

Three ways in: bytes from strangers, mutated datagrams of a real handshake and session, and authentic
datagrams with mutated frames, as a peer that turned hostile would send them. Run it as
``python -m tests.fuzz.fuzz_udp --seconds 60 --seed 1``; a finding prints its input and ends with status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import time

from bridge.errors import DecodeError, InvalidStateError, LimitExceededError
from bridge.udp.config import UdpConfig
from bridge.udp.frames import (
    Ack,
    Close,
    Credit,
    Frame,
    Message,
    MessageCredit,
    PathChallenge,
    PathResponse,
    Ping,
    Proof,
    Reliable,
    State,
    encode_frame,
    parse_frames_untrusted,
)
from bridge.udp.keys import Aead, derive_session_keys
from bridge.udp.wire import (
    COOKIE_BYTES,
    DATA,
    DATA_HEADER,
    MAX_DATAGRAM_BYTES,
    MAX_FRAMES_BYTES,
    PROLOGUE,
    encode_init,
    encode_retry,
    parse_datagram_untrusted,
)
from tests.support.datagrams import Host, Network, bare_sessions, connected_pair, single_datagrams

HOSTILE = ("198.51.100.66", 66)


def mutate(data: bytes, chance: random.Random) -> bytes:
    """A few random changes: flipped bits, replaced, inserted and removed runs."""
    altered = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        position = chance.randrange(len(altered) + 1)
        match chance.randrange(5):
            case 0 if altered:
                altered[position % len(altered)] ^= 1 << chance.randrange(8)
            case 1:
                altered[position : position + chance.randrange(9)] = chance.randbytes(chance.randrange(9))
            case 2:
                del altered[position:]
            case 3:
                altered[position:position] = altered[: chance.randrange(20)]
            case _:
                altered[position : position + 4] = chance.choice((bytes(4), b"\xff" * 4))
    return bytes(altered)


def random_frame(chance: random.Random) -> Frame:
    """A frame that is well formed and means anything."""
    number = chance.choice((0, 1, chance.randrange(1000), chance.randrange(1 << 62)))
    match chance.randrange(12):
        case 0:
            return Ack(number, chance.getrandbits(chance.choice((4, 256, 1024))))
        case 1:
            return Credit(number, number + chance.randrange(1 << 20))
        case 2:
            return State(chance.randrange(1 << 16), chance.getrandbits(32), chance.randbytes(20))
        case 3:
            return Reliable(
                chance.choice((number, chance.randrange(5000))), chance.randbytes(chance.randrange(1, 200))
            )
        case 4:
            return Close(chance.randrange(256), "over")
        case 5:
            return PathChallenge(chance.randbytes(8))
        case 6:
            return PathResponse(chance.randbytes(8))
        case 7:
            return Proof(chance.randbytes(92) + bytes((depth := chance.randrange(11),)) + bytes(32 * depth))
        case 8:
            return MessageCredit(chance.randrange(3), number)
        case 9 | 10:
            chunk = chance.randbytes(chance.randrange(1, 200))
            offset = chance.choice((0, chance.randrange(5000)))
            total = offset + len(chunk) + chance.choice((0, 200, chance.randrange(50_000)))
            return Message(chance.choice((0, 1, chance.randrange(1500))), total, offset, chunk)
        case _:
            return Ping()


def attack_endpoint(network: Network, host: Host, chance: random.Random) -> bytes:
    """A mutated datagram of the recorded traffic, from anywhere."""
    _, _, genuine = chance.choice(network.log[:40])
    datagram = mutate(genuine, chance) if chance.random() < 0.9 else chance.randbytes(chance.randrange(1300))
    if chance.random() < 0.3:
        datagram = datagram[:MAX_DATAGRAM_BYTES].ljust(MAX_DATAGRAM_BYTES, b"\0")
    if chance.random() < 0.1:
        datagram = chance.choice(
            (
                encode_retry(chance.randbytes(40), chance.randbytes(COOKIE_BYTES)),
                encode_init(genuine[5:600], chance.choice((b"", chance.randbytes(COOKIE_BYTES)))),
            )
        )
    network.inject(datagram, chance.choice((HOSTILE, host.address)), host)
    return datagram


def attack_session(chance: random.Random) -> None:
    """A peer that holds the keys and keeps no promise; memory stays bounded."""
    config = UdpConfig(max_pending_states=50)
    _, victim = bare_sessions(config=config)
    keys = derive_session_keys(shared_secret=bytes(32), transcript=bytes(32)).initiator
    phase = 0
    now = 100.0
    for sequence in range(chance.randrange(1, 60)):
        frames = b"".join(encode_frame(random_frame(chance)) for _ in range(chance.randrange(1, 4)))
        if chance.random() < 0.3:
            frames = mutate(frames, chance)
        if chance.random() < 0.1:
            # Whenever it likes, and sooner than it may.
            keys, phase = keys.next_phase(), phase + 1
        for stream in range(chance.randrange(3)):
            with contextlib.suppress(InvalidStateError, LimitExceededError):
                victim.send_state(bytes(stream), stream)
                victim.send_unordered(bytes(chance.randrange(3000)))
                victim.send_reliable(bytes(chance.randrange(3000)))
        header = DATA_HEADER.pack(DATA | phase & 1, 2, sequence)
        prologue = PROLOGUE.pack(chance.getrandbits(32), chance.getrandbits(32), chance.getrandbits(16))
        sealed = header + Aead(keys).seal(sequence, prologue + frames[:MAX_FRAMES_BYTES], header)
        victim.inbound.receive_datagram(sealed, chance.choice((HOSTILE, victim.address)), now=now)
        for datagram, _ in single_datagrams(victim.datagrams_to_send(now=now)):
            if len(datagram) > MAX_DATAGRAM_BYTES:
                raise AssertionError("a datagram above its limit")
        # A window for each kind of messages.
        if victim.statistics().reassembly_bytes > 2 * config.reliable_window_bytes:
            raise AssertionError("reassembly above its window")
        if chance.random() < 0.5:
            while victim.next_event() is not None:
                pass
        now += chance.random()
        victim.handle_timer(now=now)


def attack_parsers(chance: random.Random) -> bytes:
    """Bytes straight into the parsers; what parses writes back equal."""
    frames = b"".join(encode_frame(random_frame(chance)) for _ in range(chance.randrange(4)))
    data = mutate(frames, chance) if chance.random() < 0.8 else chance.randbytes(chance.randrange(1300))
    with contextlib.suppress(DecodeError):
        parse_datagram_untrusted(data)
    try:
        parsed = parse_frames_untrusted(data)
    except DecodeError:
        return data
    if b"".join(map(encode_frame, parsed)) != data:
        raise AssertionError("frames do not write back as they were read")
    return data


def main() -> int:
    """Run for a time; 1 if there was a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    config = UdpConfig(handshakes_per_second=1e9, handshake_burst=1_000_000)
    network, _, host = connected_pair(config=config, seed=arguments.seed)
    end = time.monotonic() + arguments.seconds
    rounds = 0
    data = b""
    try:
        while time.monotonic() < end:
            data = attack_parsers(chance)
            data = attack_endpoint(network, host, chance)
            data = b"(hostile peer)"
            attack_session(chance)
            rounds += 1
    except Exception:
        print(f"finding in round {rounds}, seed {arguments.seed}: {data.hex()}", file=sys.stderr)  # noqa: T201
        raise
    print(f"{rounds} rounds, no finding")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
