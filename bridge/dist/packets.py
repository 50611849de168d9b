"""Packets between two nodes that are connected: from bytes to messages.

Source: Erlang "Distribution Protocol", section "Protocol between Connected Nodes" (an empty packet is a tick);
"External Term Format", section "Distribution Header". Where both sides have distribution headers (atom cache,
fragments), every packet has one; else every packet is a pass-through one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from bridge.dist.config import DistConfig
from bridge.dist.control import WITH_PAYLOAD, Send, parse_control_untrusted
from bridge.dist.events import Answered, DistEvent, Received
from bridge.dist.fragments import Assembler, FragmentedMessage
from bridge.dist.headers import AtomCache, Atoms, size_without_new_atoms
from bridge.dist.unfinished import AT_ONCE, Unfinished
from bridge.errors import DecodeError, PeerLimitError
from bridge.etf import Pid, decode_bare_untrusted, decode_prefix_untrusted

_ANSWER_HEADS: Final = 8
"""beginnings of answers that are tried; each shape of a result may have a header of its own"""
_USUAL_BYTES: Final = 4_096
"""bytes that a remembered beginning may have; the header of a usual one has tens, and the peer chooses it"""
_USUAL_HEADERS: Final = 256
"""headers whose newest send is remembered; the peer chooses them, so there is a ceiling"""


@dataclass(frozen=True, slots=True)
class _Usual:
    """The beginning of packets that bring messages to one process."""

    prefix: bytes
    size: int
    control: Send
    atoms: Atoms


class Packets:
    """What a connection that stands has received.

    Args:
        config: of the connection.
        answers_to: as for ``DistConnection``.
        events: where to put what comes.

    Attributes:
        unfinished: whether messages wait to be decoded.
    """

    def __init__(self, config: DistConfig, answers_to: Pid | None, events: deque[DistEvent]) -> None:
        self._config = config
        self._limits = config.limits
        self._events = events
        self._headers = False
        self._fragments = False
        self._cache = AtomCache()
        self._assembler = Assembler(
            max_message_bytes=config.max_packet_bytes,
            max_sequences=config.max_sequences,
            max_held_bytes=config.max_held_bytes,
        )
        # By header, the newest send's bytes up to its payload: all answers to one process begin alike, and
        # since an encoded term tells its own end, equal bytes are an equal term. A header with new atoms is
        # never a key: its flags say so.
        self._usual: dict[bytes, _Usual] = {}
        self._answers_to = answers_to
        # Beginnings of such packets, up to the words of the reference: beginning, its size, atoms.
        self._answer_heads: list[tuple[bytes, int, Atoms]] = []
        self._answers: list[tuple[bytes, Any]] = []
        self._unfinished = Unfinished(answers_to)
        self.unfinished = False

    @property
    def receptive(self) -> bool:
        """Whether what waits to be decoded is less than one message may be."""
        return self._unfinished.held_bytes < self._config.max_packet_bytes

    def agree(self, *, headers: bool, fragments: bool) -> None:
        """What both sides have, by the handshake."""
        self._headers = headers
        self._fragments = fragments

    def receive_untrusted(self, data: bytes | bytearray) -> int:
        """Take all whole packets; gives how many bytes they were.

        Raises:
            DecodeError: the peer broke the protocol; the connection ends.
            PeerLimitError: it went over a limit; likewise.
        """
        pos = 0
        size = len(data)
        # Answers are read in place, where a limit of a term's bytes would count all that follows it.
        in_place = type(data) is bytes and size <= self._limits.max_bytes
        heads = self._answer_heads if in_place else []
        while size - pos >= 4:
            length = int.from_bytes(data[pos : pos + 4], "big")
            if length == 0:
                pos += 4
                continue
            if length > self._config.max_packet_bytes:
                raise PeerLimitError("max_packet_bytes", self._config.max_packet_bytes, "bytes")
            end = pos + 4 + length
            if end > size:
                break
            if heads and self._answer(data, pos + 4, end):
                pos = end
                continue
            if self._answers:
                # What comes after an answer is told after it: the end of the process that gave it, say.
                self.report_answers()
            if length > 1 and data[pos + 5] == 70 and self._headers:
                self._next_fragment(memoryview(data)[pos + 4 : end])
            elif type(data) is bytes:
                self._packet(data[pos + 4 : end])
            else:
                self._packet(bytes(memoryview(data)[pos + 4 : end]))
            pos = end
        return pos

    def _answer(self, data: Any, start: int, end: int) -> bool:
        """Take the packet between the two if it begins as an answer does."""
        for head, size, atoms in self._answer_heads:
            if data.startswith(head, start):
                at = start + size + 12
                result, after = decode_bare_untrusted(data, at, self._limits, atoms)
                if after != end:
                    raise DecodeError("an answer is larger or smaller than its packet")
                self._answers.append((data[at - 12 : at], result))
                return True
        return False

    def _learn_answer(self, packet: bytes, payload: int, atoms: Atoms) -> None:
        """Remember what a packet begins with whose payload, at ``payload``, is an answer."""
        at = payload if self._headers else payload + 1
        # A pair, and a NEWER_REFERENCE_EXT of three words; then its node, by name or by number, and creation.
        if packet[at : at + 5] != b"h\x02Z\x00\x03":
            return
        at += 5
        match packet[at]:
            case 82:
                at += 2
            case 119:
                at += 2 + packet[at + 1]
            case _:
                return
        at += 4
        if len(self._answer_heads) >= _ANSWER_HEADS:
            self._answer_heads.pop()
        self._answer_heads.insert(0, (packet[:at], at, atoms))

    def _packet(self, packet: bytes) -> None:
        if not self._headers:
            if packet[0] != 112:
                raise DecodeError(f"a packet of kind {packet[0]}; only pass-through (112) was agreed")
            self._message(packet, 1)
        elif packet[:2] == b"\x83D" and len(packet) > 2:
            start = 2 + size_without_new_atoms(packet[2])
            known = self._usual.get(packet[:start])
            if known is None or not packet.startswith(known.prefix):
                self._message(packet, start)
                return
            payload, end = decode_bare_untrusted(packet, known.size, self._limits, known.atoms)
            if end != len(packet):
                raise DecodeError("bytes follow the payload")
            if known.control.to == self._answers_to:
                self._learn_answer(packet, known.size, known.atoms)
            self._tell(Received(control=known.control, payload=payload))
        elif packet[:2] == b"\x83E" and self._fragments:
            self._first_fragment(packet)
        else:
            raise DecodeError(f"a packet that begins with {packet[:2]!r}; distribution headers were agreed")

    def _message(self, packet: bytes, start: int) -> None:
        """Take a whole message; its control message is at ``start`` unless the header has new atoms."""
        usual_header = packet[:start]
        atoms: Atoms = ()
        if self._headers:
            atoms, start = self._references(packet, 2)
        term, after = self._term(packet, start, atoms)
        payload = None
        if after < len(packet):
            payload, end = self._term(packet, after, atoms)
            if end != len(packet):
                raise DecodeError("bytes follow the payload")
        elif type(term) is tuple and term and type(term[0]) is int and term[0] in WITH_PAYLOAD:
            raise DecodeError("the payload is missing")
        control = parse_control_untrusted(term, payload)
        if type(control) is Send and start == len(usual_header) and after <= _USUAL_BYTES:
            if self._headers:
                if len(self._usual) >= _USUAL_HEADERS:
                    self._usual.clear()
                self._usual[usual_header] = _Usual(packet[:after], after, control, atoms)
            if control.to == self._answers_to:
                self._learn_answer(packet, after, atoms)
        if control is not None:
            self._tell(Received(control=control, payload=payload))

    def _references(self, packet: bytes, offset: int) -> tuple[Atoms, int]:
        replaced = self._cache.replaced
        found = self._cache.read_untrusted(packet, offset)
        if self._cache.replaced != replaced:
            # Headers seen before may mean other atoms now.
            self._usual.clear()
            self._answer_heads.clear()
        return found

    def _term(self, packet: bytes, offset: int, atoms: Atoms) -> tuple[Any, int]:
        if self._headers:
            return decode_bare_untrusted(packet, offset, self._limits, atoms)
        return decode_prefix_untrusted(packet, offset, self._limits)

    def _first_fragment(self, packet: bytes) -> None:
        sequence, fragment = _fragment_numbers(packet)
        atoms, start = self._references(packet, 18)
        limits = self._limits
        term, after = decode_bare_untrusted(packet, start, limits, atoms)
        parse_control_untrusted(term, None)  # before the rest of it is waited for
        message = FragmentedMessage(term, atoms, fragment, packet[after:], limits)
        self._fragmented(self._assembler.start(sequence, message))

    def _next_fragment(self, packet: memoryview) -> None:
        if packet[0] != 131:
            raise DecodeError(f"a packet of kind {packet[0]}; distribution headers were agreed")
        self._fragmented(self._assembler.add(*_fragment_numbers(packet), packet[18:]))

    def _fragmented(self, message: FragmentedMessage | None) -> None:
        if message is None:
            return
        if message.size > AT_ONCE and not message.expected:
            self._unfinished.put_large(message, parse_control_untrusted(message.control, None))
            self.unfinished = True
            return
        payload = message.payload_untrusted() if message.size or message.control[0] in WITH_PAYLOAD else None
        control = parse_control_untrusted(message.control, payload)
        if control is not None:
            self._tell(Received(control=control, payload=payload))

    def _tell(self, event: Received) -> None:
        if self.unfinished and self._unfinished.must_wait(event.control):
            self._unfinished.put_behind(event)
        else:
            self._events.append(event)

    def report_answers(self) -> None:
        """Make an event of the answers that were not taken."""
        if self._answers:
            self._events.append(Answered(answers=self._answers))
            self._answers = []

    def take_answers(self) -> list[tuple[bytes, Any]] | None:
        """As ``DistConnection.take_answers``."""
        if self._events or not self._answers or self.unfinished:
            return None
        answers, self._answers = self._answers, []
        return answers

    def decode_on_untrusted(self) -> None:
        """Decode one step of what is ``unfinished``.

        Raises:
            DecodeError, PeerLimitError: as for ``receive_untrusted``.
        """
        self._events.extend(self._unfinished.step_untrusted())
        self.unfinished = len(self._unfinished) > 0

    def drop_unfinished(self) -> None:
        """Tell nothing of what is not decoded."""
        self._unfinished.clear()
        self.unfinished = False

    def end(self) -> None:
        """The connection ended: answers are told, and what is not whole is dropped."""
        self.report_answers()
        self._assembler.clear()
        self.drop_unfinished()


def _fragment_numbers(packet: bytes | memoryview) -> tuple[int, int]:
    """Sequence id and fragment id."""
    if len(packet) < 18:
        raise DecodeError("a fragment is truncated")
    return int.from_bytes(packet[2:10], "big"), int.from_bytes(packet[10:18], "big")
