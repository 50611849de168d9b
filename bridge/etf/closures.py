"""What is inside a fun with an environment, copied without being understood.

Source: Erlang "External Term Format", NEW_FUN_EXT. A closure is only of use to the node that made it, so its
bytes are kept; but a packet with a distribution header writes atoms as numbers of that packet's table, which
mean nothing later. So it is walked once and such atoms are written out. The walk knows sizes and numbers of
subterms and builds nothing. It refuses what does not add up: OTP drops the connection over a fun that is
none.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from bridge.errors import DecodeError, PeerLimitError
from bridge.etf.limits import TermLimits

_U16: Final = struct.Struct(">H").unpack_from
_U32: Final = struct.Struct(">I").unpack_from

_HEAD: Final = 25
"""bytes of arity, uniq, index and number of free variables; module, index, uniq and pid are terms after it"""
_FIXED: Final = {97: 2, 98: 5, 70: 9, 99: 32, 106: 1}
_SIZE_8: Final = {119: 2, 115: 2, 110: 3}
_SIZE_16: Final = {118: 3, 100: 3, 107: 3}
_SIZE_32: Final = {109: 5, 111: 6, 77: 6}
"""bytes before the content, by the width of the field after the tag that gives the content's size"""
_CHILDREN_32: Final = {105: (1, 0), 108: (1, 1), 116: (2, 0)}
"""factor and addend that make subterms of the count"""
_NAMED: Final = {88: 12, 103: 9, 101: 5, 120: 12, 89: 8, 102: 5}
"""bytes after the name"""
_ATOMS: Final = (119, 118, 115, 100)


def spell_out(
    data: bytes, start: int, end: int, name: Callable[[int], Any], limits: TermLimits
) -> tuple[bytes, int]:
    """A closure's content with every ATOM_CACHE_REF written out.

    Args:
        data: the packet.
        start: after the closure's size field.
        end: where that size says that it ends.
        name: the atom of a number in the packet's table; raises ``DecodeError`` where there is none.
        limits: each atom written out counts as one of ``max_atoms``, which bounds how far the bytes can grow.

    Returns:
        the content, and how many atoms were written out.

    Raises:
        DecodeError: the content is not that of a fun.
        PeerLimitError: it refers to more than ``max_atoms`` atoms by number.
    """
    out = bytearray(data[start : start + _HEAD])
    left = 4 + _U32(data, start + 21)[0]
    pos = copied = start + _HEAD
    named = 0
    # What is left of each fun around the one being walked, where its size was written and where it must end.
    around: list[tuple[int, int, int]] = []
    size_at = -1

    def atom(at: int) -> int:
        nonlocal copied, named
        tag = data[at]
        if tag == 82:
            named += 1
            if named > limits.max_atoms:
                raise PeerLimitError("max_atoms", limits.max_atoms, "atoms written out in funs")
            out.extend(data[copied:at])
            out.extend(name(data[at + 1]).wire)
            copied = at + 2
            return copied
        if tag not in _ATOMS:
            raise DecodeError(f"tag {tag} where an atom belongs")
        return at + 2 + data[at + 1] if tag in _SIZE_8 else at + 3 + _U16(data, at + 1)[0]

    while True:
        while not left:
            if pos != end:
                raise DecodeError("a fun is not of the size it claims")
            out += data[copied:pos]
            copied = pos
            if not around:
                return bytes(out), named
            out[size_at : size_at + 4] = (len(out) - size_at).to_bytes(4, "big")
            left, size_at, end = around.pop()
        if left > end - pos:
            raise DecodeError("a fun is truncated")
        left -= 1
        tag = data[pos]
        if tag in _FIXED:
            pos += _FIXED[tag]
        elif tag == 82:
            pos = atom(pos)
        elif tag in _SIZE_8:
            pos += _SIZE_8[tag] + data[pos + 1]
        elif tag in _SIZE_16:
            pos += _SIZE_16[tag] + _U16(data, pos + 1)[0]
        elif tag in _SIZE_32:
            pos += _SIZE_32[tag] + _U32(data, pos + 1)[0]
        elif tag == 104:
            left += data[pos + 1]
            pos += 2
        elif tag in _CHILDREN_32:
            factor, more = _CHILDREN_32[tag]
            left += _U32(data, pos + 1)[0] * factor + more
            pos += 5
        elif tag in _NAMED:
            pos = atom(pos + 1) + _NAMED[tag]
        elif tag in (90, 114):
            words = _U16(data, pos + 1)[0]
            pos = atom(pos + 3) + 4 * words + (4 if tag == 90 else 1)
        elif tag == 113:
            pos = atom(atom(pos + 1)) + 2
        elif tag == 112:
            out += data[copied : pos + 5 + _HEAD]
            around.append((left, size_at, end))
            size_at = len(out) - _HEAD - 4
            end = pos + 1 + _U32(data, pos + 1)[0]
            left = 4 + _U32(data, pos + 26)[0]
            pos = copied = pos + 5 + _HEAD
        else:
            raise DecodeError(f"tag {tag} inside a fun is none of the format")
