"""Bytes to terms.

Source of the format: Erlang "External Term Format", section by tag. One loop with a stack of open
containers; rejected: a function per tag, which costs a call per element and ends at Python's recursion limit.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import repeat
from math import isfinite
from typing import Any, Final

from bridge.errors import DecodeError, PeerLimitError
from bridge.etf.keys import CROWD, MAX_HASHED_DEPTH, build_map, erlang_map, wary_map
from bridge.etf.limits import DEFAULT_LIMITS, TermLimits
from bridge.etf.rare import (
    REFERENCE_WORDS,
    WORDS,
    atom_at,
    big_at,
    known_atoms,
    not_cached,
    rare_at,
    truncated,
)
from bridge.etf.steps import PART, STEP, Place, Steps
from bridge.etf.terms import Atom, ImproperList, Reference

_U16: Final = struct.Struct(">H").unpack_from
_U32: Final = struct.Struct(">I").unpack_from
_I32: Final = struct.Struct(">i").unpack_from
_F64: Final = struct.Struct(">d").unpack_from

_TIMES: Final = [(None,) * n for n in range(256)]
_ROOT, _TAIL = 0, 1
"""what is open that has no tag of its own: the term itself, and what follows the bar of a list"""


def decode_term(data: bytes, *, limits: TermLimits = DEFAULT_LIMITS) -> Any:
    """The one term that ``term_to_binary/1,2`` wrote, with nothing after it.

    Args:
        data: starts with 131; may be compressed. Never trusted.
        limits: what the term may ask for.

    Raises:
        DecodeError: malformed, truncated, or something follows the term.
        PeerLimitError: over one of the limits.
    """
    return decode_term_untrusted(data, limits)


def decode_term_untrusted(data: bytes, limits: TermLimits = DEFAULT_LIMITS) -> Any:
    """Like ``decode_term``; the name marks the boundary where it is called inside the package."""
    term, end = decode_prefix_untrusted(data, 0, limits)
    if end != len(data):
        raise DecodeError(f"{len(data) - end} bytes follow the term")
    return term


def decode_prefix_untrusted(data: bytes, offset: int, limits: TermLimits = DEFAULT_LIMITS) -> tuple[Any, int]:
    """The term at ``offset`` (its 131) and where it ends; a compressed one must end the data.

    Raises:
        DecodeError: malformed or truncated.
        PeerLimitError: over one of the limits.
    """
    if len(data) - offset > limits.max_bytes:
        raise PeerLimitError("max_bytes", limits.max_bytes, "bytes")
    if type(data) is not bytes:
        data = bytes(data)
    try:
        if data[offset] != 131:
            raise DecodeError(f"a term starts with 131, not {data[offset]}")
        if data[offset + 1] == 80:
            inflated = _inflate(data, offset + 2, limits)
            term, end = _decode(inflated, 0, limits, ())
            if end != len(inflated):
                raise DecodeError("bytes follow the term inside the compressed data")
            return term, len(data)
        return _decode(data, offset + 1, limits, ())
    except (IndexError, struct.error):
        raise DecodeError("the term is truncated") from None
    except UnicodeDecodeError:
        raise DecodeError("an atom is not UTF-8") from None


def decode_bare_untrusted(
    data: bytes,
    offset: int,
    limits: TermLimits = DEFAULT_LIMITS,
    atoms: Sequence[Atom | bool] = (),
) -> tuple[Any, int]:
    """The term at ``offset`` without a 131, as after a distribution header, and where it ends.

    Args:
        data: a packet, or the fragments of one put together.
        offset: of the term's tag.
        limits: what the term may ask for; ``max_bytes`` counts all that follows ``offset``.
        atoms: what ATOM_CACHE_REF (tag 82) refers to, by index: the header's table; ``true`` and ``false`` as
            ``bool``, as the decoder gives them.

    Raises:
        DecodeError: malformed or truncated, or an index that ``atoms`` does not have.
        PeerLimitError: over one of the limits.

    Source: Erlang "External Term Format", section "Distribution Header".
    """
    if len(data) - offset > limits.max_bytes:
        raise PeerLimitError("max_bytes", limits.max_bytes, "bytes")
    if type(data) is not bytes:
        data = bytes(data)
    try:
        return _decode(data, offset, limits, atoms)
    except (IndexError, struct.error):
        raise DecodeError("the term is truncated") from None
    except UnicodeDecodeError:
        raise DecodeError("an atom is not UTF-8") from None


class Decoding:
    """The decoding of a term in steps, each of which takes a millisecond or two.

    Args:
        data: the term without a 131, and nothing after it.
        limits: as for ``decode_bare_untrusted``.
        atoms: likewise.
        size: elements of a step.

    Attributes:
        value: the term, once ``step_untrusted`` has said that it stands.
    """

    __slots__ = ("_atoms", "_data", "_limits", "_steps", "value")

    def __init__(
        self,
        data: bytes,
        limits: TermLimits = DEFAULT_LIMITS,
        atoms: Sequence[Atom | bool] = (),
        *,
        size: int = STEP,
    ) -> None:
        self.value: Any = None
        self._data = data
        self._limits = limits
        self._atoms = atoms
        place: Place = (0, 0, limits.max_atoms, _watched(limits), False, [], _ROOT, [], repeat(None, 1))
        self._steps = Steps(place, limits, size)

    def step_untrusted(self) -> bool:
        """Decode on; whether the term stands.

        Raises:
            DecodeError: malformed or truncated, or something follows the term.
            PeerLimitError: over one of the limits.
        """
        steps = self._steps
        if steps.building is not None:
            steps.build()
            return False
        if len(self._data) > self._limits.max_bytes:
            raise PeerLimitError("max_bytes", self._limits.max_bytes, "bytes")
        try:
            value, end = _decode(self._data, 0, self._limits, self._atoms, steps)
        except (IndexError, struct.error):
            raise DecodeError("the term is truncated") from None
        except UnicodeDecodeError:
            raise DecodeError("an atom is not UTF-8") from None
        if end < 0:
            return False
        if end != len(self._data):
            raise DecodeError(f"{len(self._data) - end} bytes follow the term")
        self.value = value
        return True


def _inflate(data: bytes, start: int, limits: TermLimits) -> bytes:
    (size,) = _U32(data, start)
    if size > limits.max_inflated_bytes:
        raise PeerLimitError("max_inflated_bytes", limits.max_inflated_bytes, "bytes")
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(memoryview(data)[start + 4 :], size + 1)
    except zlib.error as error:
        raise DecodeError(f"the compressed term does not inflate: {error}") from None
    # A byte more than claimed was asked for, so that a larger term shows without being inflated.
    if len(inflated) != size or not inflater.eof or inflater.unused_data:
        raise DecodeError(f"the compressed term is not of the {size} bytes it claims")
    return inflated


def _watched(limits: TermLimits) -> int:
    """Where the first look at the depth is due: where keys get too deep for ``hash``; the next: the limit."""
    return MAX_HASHED_DEPTH if limits.max_depth > MAX_HASHED_DEPTH else limits.max_depth


def _decode(
    data: bytes, pos: int, limits: TermLimits, cached: Sequence[Atom | bool], steps: Steps | None = None
) -> tuple[Any, int]:
    """The term and where it ends; with ``steps``, one step of it, and -1 where it is not whole yet."""
    size = len(data)
    stack: list[tuple[int, list[Any], Iterator[None]]]
    items: list[Any]
    left: Iterator[None]
    value: Any
    if steps is None:
        room = limits.max_elements
        unseen = limits.max_atoms
        watched = _watched(limits)
        # Whether something that was met may make it dangerous to hash the keys of a map as they are.
        wary = False
        stack = []
        kind = _ROOT
        items = []
        left = repeat(None, 1)
    else:
        pos, room, unseen, watched, wary, stack, kind, items, left = steps.place
        room = steps.grant(room)
    atoms = known_atoms
    while True:
        # One turn an element. The tests are in the order of how often a tag occurs in answers to calls.
        for _ in left:
            tag = data[pos]
            if tag == 119:
                end = pos + 2 + data[pos + 1]
                try:
                    items.append(atoms[data[pos:end]])
                    pos = end
                except KeyError:
                    value, pos, unseen = atom_at(data, pos, unseen, limits)
                    items.append(value)
            elif tag == 109:
                pos += 5
                end = pos + _U32(data, pos - 4)[0]
                if end > size:
                    truncated()
                items.append(data[pos:end])
                pos = end
            elif tag == 97:
                items.append(data[pos + 1])
                pos += 2
            elif tag == 98:
                items.append(_I32(data, pos + 1)[0])
                pos += 5
            elif tag < 97:
                if tag == 82:
                    index = data[pos + 1]
                    if index >= len(cached):
                        not_cached(cached, index)
                    items.append(cached[index])
                    pos += 2
                elif tag == 70:
                    value = _F64(data, pos + 1)[0]
                    if not isfinite(value):
                        raise DecodeError("a float is not finite")
                    items.append(value)
                    pos += 9
                elif tag == 90:
                    # The usual one: each answer to a call has it. Others are left to _rare.
                    end = pos + 5 + data[pos + 4]
                    node = atoms.get(data[pos + 3 : end])
                    count = data[pos + 2]
                    if type(node) is Atom and count in REFERENCE_WORDS and not data[pos + 1]:
                        words = WORDS[count + 1](data, end)
                        items.append(Reference(node, words[0], words[1:]))
                        pos = end + 4 * count + 4
                    else:
                        value, pos, unseen = rare_at(tag, data, pos + 1, unseen, limits, cached)
                        items.append(value)
                else:
                    value, pos, unseen = rare_at(tag, data, pos + 1, unseen, limits, cached)
                    items.append(value)
            elif tag == 104 or tag == 108 or tag == 116 or tag == 105:
                if tag == 104:
                    count = data[pos + 1]
                    pos += 2
                else:
                    count = _U32(data, pos + 1)[0]
                    pos += 5
                    if tag == 116:
                        count *= 2
                # Each element is a byte at least, so a false count is found before anything is made for it.
                if count > size - pos:
                    truncated()
                if not count and tag != 108:
                    items.append({} if tag == 116 else ())
                    continue
                if len(stack) >= watched:
                    if watched == limits.max_depth:
                        raise PeerLimitError("max_depth", watched, "levels")
                    watched = limits.max_depth
                    wary = True
                stack.append((kind, items, left))
                kind = tag
                items = []
                left = iter(_TIMES[count]) if count < 256 else repeat(None, count)
                room -= count
                if room < 0:
                    if steps is None:
                        raise PeerLimitError("max_elements", limits.max_elements, "elements")
                    return steps.pause_in(count, (pos, room, unseen, watched, wary, stack, kind, items, left))
                break
            elif tag == 106:
                items.append([])
                pos += 1
            elif tag == 107:
                start = pos + 3
                pos = start + _U16(data, pos + 1)[0]
                if pos > size:
                    truncated()
                room -= pos - start
                if room < 0:
                    if steps is None:
                        raise PeerLimitError("max_elements", limits.max_elements, "elements")
                    room = steps.overdraw(room)
                items.append(list(data[start:pos]))
            elif tag == 110 or tag == 111:
                value, pos = big_at(tag, data, pos + 1)
                items.append(value)
            else:
                value, pos, unseen = rare_at(tag, data, pos + 1, unseen, limits, cached)
                items.append(value)
        else:
            # All elements of what is open are there.
            if kind == 116:
                count = len(items)
                if wary or count >= CROWD:
                    if steps is not None and count >= steps.size:
                        return steps.pause_building(
                            build_map(items, wary=True),
                            (pos, room, unseen, watched, wary, stack, kind, items, left),
                        )
                    value = wary_map(items)
                else:
                    try:
                        if count == 2:
                            value = {items[0]: items[1]}
                        elif count == 4:
                            key, value, key2, value2 = items
                            value = {key: value, key2: value2}
                        else:
                            pairs = iter(items)
                            value = dict(zip(pairs, pairs))  # noqa: B905  # it is one iterator, of an even number
                    except TypeError:
                        value = erlang_map(items)
                    else:
                        if 2 * len(value) != count:
                            value = erlang_map(items)
            elif kind == 104:
                value = tuple(items)
            elif kind == 108:
                follows = data[pos]
                if follows == 106:
                    pos += 1
                    value = items
                elif follows == 108:
                    # A list as the tail of a list is one list; going on in place keeps a chain linear.
                    count = _U32(data, pos + 1)[0]
                    pos += 5
                    if count > size - pos:
                        truncated()
                    left = repeat(None, count)
                    room -= count
                    if room < 0:
                        if steps is None:
                            raise PeerLimitError("max_elements", limits.max_elements, "elements")
                        return steps.pause_in(
                            count, (pos, room, unseen, watched, wary, stack, kind, items, left)
                        )
                    continue
                else:
                    kind = _TAIL
                    left = repeat(None, 1)
                    continue
            elif kind == _ROOT:
                return items[0], pos
            elif kind == _TAIL:
                value = _with_tail(items)
            elif kind == PART:
                assert steps is not None
                return steps.pause_after_part((pos, room, unseen, watched, wary, stack, kind, items, left))
            else:
                value = tuple(items)
            kind, items, left = stack.pop()
            items.append(value)


def _with_tail(items: list[Any]) -> Any:
    """The list whose last item is what follows the bar."""
    tail = items.pop()
    if not items:
        return tail  # Nothing is before the bar, which OTP reads so too, and never writes.
    if type(tail) is list:
        items += tail
        return items
    return ImproperList(items, tail)
