"""Distribution headers: which atoms a packet refers to by number.

Source: Erlang "External Term Format", section "Distribution Header". Only reading is here: what this side
sends has a header without references. Measured for the eight atoms of a call, references would save 66 of its
158 bytes and OTP 25 0.5 of the 1.5 µs to read it; an encoder here would pay a look-up for each atom and a
header for each message, where an atom now is one append of bytes that it carries along.
"""

from __future__ import annotations

from typing import Any, Final

from bridge.errors import DecodeError
from bridge.etf import Atom

CACHE_SIZE: Final = 2_048
"""atoms that one direction of a connection remembers: eight segments of 256"""

_NEW: Final = 8
"""bit of a reference's four flags; the other three are the segment"""
_LONG_ATOMS: Final = 1
"""bit of the last four flags: lengths of atoms have two bytes"""

Atoms = tuple[Any, ...]
"""what ATOM_CACHE_REF refers to by index; ``true`` and ``false`` are ``bool``, as the decoder gives them"""


def size_without_new_atoms(count: int) -> int:
    """Bytes of ``count`` references, their number and flags included, where all are in the cache already."""
    return 2 + count + (count >> 1) if count else 1


class AtomCache:
    """What the peer has told this side to remember.

    Attributes:
        replaced: how often a place got another atom; what was learnt from earlier headers may be false then.
    """

    __slots__ = ("_places", "replaced")

    def __init__(self) -> None:
        self._places: list[Atom | bool | None] = [None] * CACHE_SIZE
        self.replaced = 0

    def read_untrusted(self, packet: bytes, offset: int) -> tuple[Atoms, int]:
        """Take the references of a packet.

        Args:
            packet: holds their number at ``offset``.
            offset: after the tag of the header, and after the numbers of a fragment.

        Returns:
            The atoms by index, and where the control message starts.

        Raises:
            DecodeError: truncated, an atom that is none, or a place that nothing was put in.
        """
        try:
            return self._read(packet, offset)
        except IndexError:
            raise DecodeError("a distribution header is truncated") from None

    def _read(self, packet: bytes, offset: int) -> tuple[Atoms, int]:
        count = packet[offset]
        if not count:
            return (), offset + 1
        flags = offset + 1
        at = flags + count // 2 + 1
        width = 2 if _nibble(packet, flags, count) & _LONG_ATOMS else 1
        places = self._places
        atoms: list[Any] = []
        for index in range(count):
            flag = _nibble(packet, flags, index)
            place = (flag & 7) << 8 | packet[at]
            at += 1
            if flag & _NEW:
                start = at + width
                end = start + int.from_bytes(packet[at:start], "big")
                if start > len(packet) or end > len(packet):
                    raise DecodeError("a distribution header is truncated")
                atom = _atom(packet[start:end])
                at = end
                if places[place] is not atom:
                    self.replaced += places[place] is not None
                    places[place] = atom
            else:
                known = places[place]
                if known is None:
                    raise DecodeError(f"a distribution header refers to place {place}, which is empty")
                atom = known
            atoms.append(atom)
        return tuple(atoms), at


def _nibble(packet: bytes, flags: int, index: int) -> int:
    return packet[flags + (index >> 1)] >> (4 if index & 1 else 0) & 15


def _atom(raw: bytes) -> Atom | bool:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise DecodeError("an atom is not UTF-8") from None
    if len(text) > 255:
        raise DecodeError(f"an atom of {len(text)} characters; 255 is the most")
    if text == "true":
        return True
    return False if text == "false" else Atom(text)
