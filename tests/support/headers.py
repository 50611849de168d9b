"""Writes distribution headers, as OTP does and this package does not."""

from __future__ import annotations

from collections.abc import Sequence

Entry = tuple[int, bytes | None]
"""a place in the cache, and the atom to put there (``None``: what is there)"""


def references(entries: Sequence[Entry], *, long_atoms: bool = False) -> bytes:
    """The number of references, their flags and the references."""
    if not entries:
        return b"\0"
    nibbles = [(place >> 8) | (8 if text is not None else 0) for place, text in entries]
    nibbles.append(1 if long_atoms else 0)
    nibbles += [0] * (len(nibbles) % 2)
    flags = bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=True))
    body = b""
    for place, text in entries:
        body += bytes((place & 255,))
        if text is not None:
            body += len(text).to_bytes(2 if long_atoms else 1, "big") + text
    return bytes((len(entries),)) + flags + body


def normal(entries: Sequence[Entry], rest: bytes, *, long_atoms: bool = False) -> bytes:
    """A packet with a whole message."""
    return b"\x83D" + references(entries, long_atoms=long_atoms) + rest


def first_fragment(sequence: int, fragment: int, rest: bytes, entries: Sequence[Entry] = ()) -> bytes:
    """A packet with the beginning of a message that has ``fragment`` fragments."""
    return b"\x83E" + sequence.to_bytes(8, "big") + fragment.to_bytes(8, "big") + references(entries) + rest


def next_fragment(sequence: int, fragment: int, rest: bytes) -> bytes:
    """A packet with more of a message."""
    return b"\x83F" + sequence.to_bytes(8, "big") + fragment.to_bytes(8, "big") + rest


def framed(packet: bytes) -> bytes:
    """A packet behind its length."""
    return len(packet).to_bytes(4, "big") + packet
