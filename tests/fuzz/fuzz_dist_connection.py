"""Packets for a distribution connection that stands: it may end, it must not raise, hold too much or misread.

Each case is a new connection after its handshake, or in the middle of it. It gets whole messages, fragments
of several senders and changes of the atom cache, in any pieces, most of them as a peer would send them and
some mutated. What arrived unharmed must be what was sent; what is held must stay under the limits.

Run as ``python tests/fuzz/fuzz_dist_connection.py --seconds 60 --seed 1``.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from bridge.dist import (
    Answered,
    Connected,
    Disconnected,
    DistConfig,
    DistConnection,
    DistEvent,
    HandshakeFailed,
    NameReceived,
    Received,
    Send,
    Status,
)
from bridge.errors import ProtocolError
from bridge.etf import Atom, Pid, Reference, TermLimits, encode_bare, encode_term, set_atom_budget
from tests.support.headers import Entry, first_fragment, framed, next_fragment, normal
from tests.support.pair import WITHOUT_HEADERS, connected_pair, drain_events, pair, roundtrip_until_quiet

CONFIG = DistConfig(
    max_packet_bytes=4_096,
    max_sequences=4,
    max_held_bytes=8_192,
    limits=TermLimits(
        max_depth=32, max_elements=1_000, max_bytes=4_096, max_inflated_bytes=4_096, max_atoms=50
    ),
)
NODE = Atom("a@h")
TO = Pid(Atom("b@h"), 1, 0, 6)
PID = Pid(NODE, 1, 0, 5)
FIELDS: list[Any] = [PID, TO, Reference(NODE, 5, (1,)), Atom("rex"), 1, 0, [], (NODE, NODE, 1), b"x", 2**64]
TEXTS = [b"true", b"false", b"", b"rex", b"b@h", "名".encode(), b"a" * 255]
_WORDS = struct.Struct(">III").unpack
PLACES = [0, 1, 255, 256, 1023, 2047]


class FindingError(Exception):
    """A property that does not hold."""


class Peer:
    """Writes what a peer may send, and knows what must arrive of it."""

    def __init__(self, source: random.Random) -> None:
        self._random = source
        self._places: dict[int, bytes] = {}
        self._fragments: dict[int, tuple[int, list[bytes], Any]] = {}
        self._sequence = 0
        self._answers = 0
        self.packets: list[bytes] = []
        self.expected: list[Any] = []

    def whole(self) -> None:
        """A message in one packet, with atoms of the cache."""
        entries, atoms = self._entries()
        payload = b"\x68" + bytes((len(atoms) + 1,)) + b"".join(b"R" + bytes((i,)) for i in range(len(atoms)))
        value = self._random.choice(FIELDS)
        packet = normal(entries, encode_bare((2, Atom(""), TO)) + payload + encode_bare(value))
        self.packets.append(packet)
        self.expected.append((*atoms, value))

    def answer(self) -> None:
        """A message ``{Reference, Result}``, which one process gets in another form."""
        self._answers += 1
        entries, atoms = self._entries()
        value = self._random.choice(FIELDS)
        last = b"R\x00" if atoms and self._random.random() < 0.5 else encode_bare(value)
        reference = Reference(NODE, 5, (self._answers, 0, 0))
        packet = encode_bare((2, Atom(""), TO)) + b"h\x02" + encode_bare(reference) + last
        self.packets.append(normal(entries, packet))
        self.expected.append((reference, atoms[0] if last == b"R\x00" else value))

    def fragment(self) -> None:
        """The next fragment of a message, or the first of a new one."""
        if self._fragments and (len(self._fragments) > 3 or self._random.random() < 0.7):
            sequence = self._random.choice(list(self._fragments))
            number, pieces, value = self._fragments.pop(sequence)
            self.packets.append(next_fragment(sequence, number, pieces.pop(0)))
            if pieces:
                self._fragments[sequence] = number - 1, pieces, value
            else:
                self.expected.append(value)
            return
        self._sequence += self._random.choice([1, 1, 1, 2**40])
        value = self._random.choice(
            [bytes(300), (1, (NODE, bytes(200))), [bytes(100), NODE], (bytes(50), [3]), tuple(FIELDS)]
        )
        data = encode_bare(value)
        size = self._random.randrange(1, len(data) + 2)
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        entries, _ = self._entries()
        first = encode_bare((2, Atom(""), TO)) + pieces.pop(0)
        self.packets.append(first_fragment(self._sequence, len(pieces) + 1, first, entries))
        if pieces:
            self._fragments[self._sequence] = len(pieces), pieces, value
        else:
            self.expected.append(value)

    def _entries(self) -> tuple[list[Entry], list[Atom | bool]]:
        entries: list[Entry] = []
        atoms: list[Atom | bool] = []
        for _ in range(self._random.choice([0, 0, 1, 2, 3, 7])):
            place = self._random.choice(PLACES)
            text = self._places.get(place)
            if text is None or self._random.random() < 0.2:
                text = self._places[place] = self._random.choice(TEXTS)
                entries.append((place, text))
            else:
                entries.append((place, None))
            atoms.append({b"true": True, b"false": False}.get(text, Atom(text.decode())))
        return entries, atoms


def nearly_control(source: random.Random) -> bytes:
    """A packet around a control tuple that is nearly right."""
    control = (source.randrange(39), *(source.choice(FIELDS) for _ in range(source.randrange(7))))
    payload = encode_bare(source.choice(FIELDS)) if source.random() < 0.6 else b""
    return normal([], encode_bare(control) + payload)


def mutate(source: random.Random, packet: bytes) -> bytes:
    """A packet with a change that keeps most of it."""
    data = bytearray(packet)
    at = source.randrange(len(data))
    match source.randrange(6):
        case 0:
            data[at] = source.randrange(256)
        case 1:
            data[at] ^= 1 << source.randrange(8)
        case 2:
            del data[at:]
        case 3:
            data[at:at] = source.randbytes(source.randrange(1, 4))
        case 4:
            del data[at : at + source.randrange(1, 4)]
        case 5:
            data += data[at:]
    return bytes(data)


def feed(source: random.Random, connection: DistConnection, data: bytes) -> list[DistEvent]:
    """Give bytes in any pieces; the events, while the limits are watched."""
    events: list[DistEvent] = []
    piece = source.choice([1, 7, 50, 1_000, len(data) or 1])
    for start in range(0, len(data), piece):
        connection.receive_data(data[start : start + piece], now=1.0)
        events += drain_events(connection)
        assembler = connection._packets._assembler
        known = sum(len(usual.prefix) for usual in connection._packets._usual.values())
        heads = sum(size for _, size, _ in connection._packets._answer_heads)
        held = len(connection._buffer), len(assembler), assembler.held_bytes, known, heads
        if any(amount > most for amount, most in zip(held, (4_100, 4, 8_192, 1 << 20, 40_000), strict=True)):
            raise FindingError(f"more is held than the limits allow: {held}")
    return events


def check_end(events: list[DistEvent], connection: DistConnection) -> None:
    """At most one end, as the last event, with an error of the tree that was promised."""
    for event in events[:-1]:
        if isinstance(event, Disconnected | HandshakeFailed):
            raise FindingError(f"events after the end: {events}")
    if events and isinstance(last := events[-1], Disconnected):
        if not isinstance(last.error, ProtocolError) or connection.connected:
            raise FindingError(f"an end of another kind: {last}")
    elif not all(
        isinstance(event, Received | Answered | NameReceived | Connected | HandshakeFailed)
        for event in events
    ):
        raise FindingError(f"another event: {events}")


def handshake_case(source: random.Random) -> int:
    """A handshake with a changed byte or two."""
    a, b = pair(config_b=CONFIG)
    for side, other in ((a, b), (b, a), (a, b), (b, a)):
        data = bytearray(b"".join(side.data_to_send()))
        if data and source.random() < 0.4:
            data[source.randrange(len(data))] = source.randrange(256)
        if source.random() < 0.1:
            data += source.randbytes(source.randrange(30))
        events = feed(source, other, bytes(data))
        check_end(events, other)
        if any(isinstance(event, NameReceived) for event in events):
            other.answer_name(source.choice([Status.OK, Status.OK, Status.ALIVE, Status.NOK]), now=1.0)
            check_end(drain_events(other), other)
    return 0


def plain_case(source: random.Random) -> int:
    """Pass-through packets with nearly right control messages."""
    _, b = connected_pair(config_b=CONFIG, flags_a=WITHOUT_HEADERS)
    data = b""
    for _ in range(4):
        control = (source.randrange(39), *(source.choice(FIELDS) for _ in range(source.randrange(7))))
        payload = encode_term(source.choice(FIELDS)) if source.random() < 0.6 else b""
        packet = b"p" + encode_term(control) + payload
        data += framed(mutate(source, packet) if source.random() < 0.3 else packet)
    events = feed(source, b, data)
    check_end(events, b)
    return len(events)


def header_case(source: random.Random) -> int:
    """Headers, fragments and changes of the cache; unharmed, all of it must arrive."""
    a, b = pair(config_b=CONFIG, answers_to_b=source.choice([None, TO]))
    roundtrip_until_quiet(a, b, now=0.0)
    peer = Peer(source)
    for _ in range(source.randrange(1, 25)):
        source.choices([peer.fragment, peer.whole, peer.answer], [5, 3, 3])[0]()
    harmed = source.random() < 0.7
    packets = peer.packets
    if harmed:
        for _ in range(source.choice([1, 1, 2, 5])):
            at = source.randrange(len(packets))
            match source.randrange(6):
                case 0:
                    packets.insert(at, nearly_control(source))
                case 1:
                    del packets[at]
                    packets = packets or [b"\x83"]
                case 2:
                    packets.insert(at, packets[source.randrange(len(packets))])
                case _:
                    packets[at] = mutate(source, packets[at]) or b"\x83"
    events = feed(source, b, b"".join(map(framed, packets)))
    check_end(events, b)
    received: list[Any] = []
    for event in events:
        match event:
            case Received():
                received.append(event.payload)
            case Answered():
                received += [(Reference(NODE, 5, _WORDS(words)), result) for words, result in event.answers]
    if not harmed and (received != peer.expected or not b.connected):
        raise FindingError(f"{peer.expected!r} was sent and {received!r} arrived: {events[-1:]}")
    return len(received)


def both_case(source: random.Random) -> int:
    """What one side of this package sends is what the other receives, in the order for each process."""
    a, b = connected_pair()
    sent: dict[Pid, list[Any]] = {}
    got: dict[Pid, list[Any]] = {}
    for number in range(source.randrange(1, 8)):
        to = Pid(TO.node, source.randrange(3), 0, 6)
        payload = (number, bytes(source.choice([1, 65_000, 65_525, 65_536, 200_000, 400_000])))
        a.send(Send(to=to), payload, now=1.0)
        sent.setdefault(to, []).append(payload)
        for chunk in a.data_to_send(portion=source.choice([0, 1, 262_144])):
            b.receive_data(chunk, now=1.0)
    while a.wants_to_send:
        for chunk in a.data_to_send():
            b.receive_data(chunk, now=1.0)
    for event in drain_events(b):
        if not isinstance(event, Received) or not isinstance(event.control, Send):
            raise FindingError(f"another event: {event}")
        got.setdefault(event.control.to, []).append(event.payload)
    if sent != got:
        raise FindingError("messages were lost, changed or disordered")
    return len(sent)


def main() -> None:
    """Fuzz for as long as asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    set_atom_budget(None)
    end = time.monotonic() + options.seconds
    tried = received = findings = 0
    while time.monotonic() < end and findings < 10:
        tried += 1
        # A source of its own for each, so that a finding comes again without those before it.
        source = random.Random(options.seed * 1_000_000_007 + tried)
        case = source.choices([header_case, plain_case, handshake_case, both_case], [80, 10, 9, 1])[0]
        try:
            received += case(source)
        except Exception:
            findings += 1
            sys.stderr.write(f"finding in {case.__name__}, execution {tried}:\n{traceback.format_exc()}")
    sys.stdout.write(f"{tried} executions, {received} messages, {findings} findings, seed {options.seed}\n")
    if findings:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
