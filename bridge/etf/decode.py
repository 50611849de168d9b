"""Bytes to terms.

Source of the format: Erlang "External Term Format", section by tag. One loop with a stack of open
containers; rejected: a function per tag, which costs a call per element and ends at Python's recursion limit.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import repeat
from math import isfinite
from typing import Any, Final, NoReturn

from bridge.errors import ConfigurationError, DecodeError, LimitExceededError
from bridge.etf.closures import spell_out
from bridge.etf.limits import DEFAULT_LIMITS, TermLimits
from bridge.etf.mapping import ErlangMap
from bridge.etf.terms import (
    MAX_ATOM_CHARACTERS,
    Atom,
    BitString,
    Closure,
    ExportFun,
    ImproperList,
    Pid,
    Port,
    Reference,
)

_U16: Final = struct.Struct(">H").unpack_from
_U32: Final = struct.Struct(">I").unpack_from
_I32: Final = struct.Struct(">i").unpack_from
_F64: Final = struct.Struct(">d").unpack_from
_PID: Final = struct.Struct(">III").unpack_from
_OLD_PID: Final = struct.Struct(">IIB").unpack_from
_OLD_PORT: Final = struct.Struct(">IB").unpack_from
_NEW_PORT: Final = struct.Struct(">II").unpack_from
_V4_PORT: Final = struct.Struct(">QI").unpack_from
_WORDS: Final = [struct.Struct(f">{n}I").unpack_from for n in range(7)]

_REFERENCE_WORDS: Final = range(1, 6)
_TIMES: Final = [(None,) * n for n in range(256)]
_ROOT, _TAIL = 0, 1
"""what is open that has no tag of its own: the term itself, and what follows the bar of a list"""

_MAX_HASHED_DEPTH: Final = 64
"""levels of a tuple used as a key of ``dict``; a deeper one makes the map an ``ErlangMap``"""
_CROWD: Final = 1_024
"""items of a map, two for each key, from which on it is worth looking whether their hashes collide"""
_MAX_COLLISIONS: Final = 64
"""keys that share a hash with another one before it takes them for an attack; honest ones hardly ever do"""
_CACHE_SIZE: Final = 8_192
"""entries of the cache of atoms; when full it is emptied, since a hit is only a saving"""
_atoms: Final[dict[bytes, Any]] = {}


def decode_term(data: bytes, *, limits: TermLimits = DEFAULT_LIMITS) -> Any:
    """The one term that ``term_to_binary/1,2`` wrote, with nothing after it.

    Args:
        data: starts with 131; may be compressed. Never trusted.
        limits: what the term may ask for.

    Raises:
        DecodeError: malformed, truncated, or something follows the term.
        LimitExceededError: over one of the limits.
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
        LimitExceededError: over one of the limits.
    """
    if len(data) - offset > limits.max_bytes:
        raise LimitExceededError("max_bytes", limits.max_bytes, "bytes")
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
        LimitExceededError: over one of the limits.

    Source: Erlang "External Term Format", section "Distribution Header".
    """
    if len(data) - offset > limits.max_bytes:
        raise LimitExceededError("max_bytes", limits.max_bytes, "bytes")
    if type(data) is not bytes:
        data = bytes(data)
    try:
        return _decode(data, offset, limits, atoms)
    except (IndexError, struct.error):
        raise DecodeError("the term is truncated") from None
    except UnicodeDecodeError:
        raise DecodeError("an atom is not UTF-8") from None


def _inflate(data: bytes, start: int, limits: TermLimits) -> bytes:
    (size,) = _U32(data, start)
    if size > limits.max_inflated_bytes:
        raise LimitExceededError("max_inflated_bytes", limits.max_inflated_bytes, "bytes")
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(memoryview(data)[start + 4 :], size + 1)
    except zlib.error as error:
        raise DecodeError(f"the compressed term does not inflate: {error}") from None
    # A byte more than claimed was asked for, so that a larger term shows without being inflated.
    if len(inflated) != size or not inflater.eof or inflater.unused_data:
        raise DecodeError(f"the compressed term is not of the {size} bytes it claims")
    return inflated


def _truncated() -> NoReturn:
    raise DecodeError("the term is truncated")


def _decode(data: bytes, pos: int, limits: TermLimits, cached: Sequence[Atom | bool]) -> tuple[Any, int]:
    size = len(data)
    room = limits.max_elements
    unseen = limits.max_atoms
    # Where the next look at the depth is due: first where keys get too deep to be hashed, then at the limit.
    watched = _MAX_HASHED_DEPTH if limits.max_depth > _MAX_HASHED_DEPTH else limits.max_depth
    # Whether something that was met may make it dangerous to hash the keys of a map as they are.
    wary = False
    atoms = _atoms
    stack: list[tuple[int, list[Any], Iterator[None]]] = []
    kind = _ROOT
    items: list[Any] = []
    left: Iterator[None] = repeat(None, 1)
    value: Any
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
                    value, pos, unseen = _atom_at(data, pos, unseen, limits)
                    items.append(value)
            elif tag == 109:
                pos += 5
                end = pos + _U32(data, pos - 4)[0]
                if end > size:
                    _truncated()
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
                        _not_cached(cached, index)
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
                    if type(node) is Atom and count in _REFERENCE_WORDS and not data[pos + 1]:
                        words = _WORDS[count + 1](data, end)
                        items.append(Reference(node, words[0], words[1:]))
                        pos = end + 4 * count + 4
                    else:
                        value, pos, unseen = _rare(tag, data, pos + 1, unseen, limits, cached)
                        items.append(value)
                else:
                    value, pos, unseen = _rare(tag, data, pos + 1, unseen, limits, cached)
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
                        if count >= _CROWD:
                            wary = True
                # Each element is a byte at least, so a false count is found before anything is made for it.
                if count > size - pos:
                    _truncated()
                if not count and tag != 108:
                    items.append({} if tag == 116 else ())
                    continue
                room -= count
                if room < 0:
                    raise LimitExceededError("max_elements", limits.max_elements, "elements")
                if len(stack) >= watched:
                    if watched == limits.max_depth:
                        raise LimitExceededError("max_depth", watched, "levels")
                    watched = limits.max_depth
                    wary = True
                stack.append((kind, items, left))
                kind = tag
                items = []
                left = iter(_TIMES[count]) if count < 256 else repeat(None, count)
                break
            elif tag == 106:
                items.append([])
                pos += 1
            elif tag == 107:
                start = pos + 3
                pos = start + _U16(data, pos + 1)[0]
                if pos > size:
                    _truncated()
                room -= pos - start
                if room < 0:
                    raise LimitExceededError("max_elements", limits.max_elements, "elements")
                items.append(list(data[start:pos]))
            elif tag == 110 or tag == 111:
                value, pos = _big(tag, data, pos + 1)
                items.append(value)
            else:
                value, pos, unseen = _rare(tag, data, pos + 1, unseen, limits, cached)
                items.append(value)
        else:
            # All elements of what is open are there.
            if kind == 116:
                if wary:
                    value = _map(items)
                else:
                    count = len(items)
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
                        value = _erlang_map(items, wary=False)
                    else:
                        if 2 * len(value) != count:
                            value = _erlang_map(items, wary=False)
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
                        _truncated()
                    room -= count
                    if room < 0:
                        raise LimitExceededError("max_elements", limits.max_elements, "elements")
                    left = repeat(None, count)
                    continue
                else:
                    kind = _TAIL
                    left = repeat(None, 1)
                    continue
            elif kind == _ROOT:
                return items[0], pos
            elif kind == _TAIL:
                value = _with_tail(items)
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
    if type(tail) is ImproperList:
        raise DecodeError("an improper list inside the tail of a list")
    return ImproperList(items, tail)


def _map(items: list[Any]) -> Any:
    """A map of keys and values in turn, of which nothing is known."""
    keys = items[::2]
    if all(type(key) is not tuple or _is_shallow(key) for key in keys):
        try:
            if not _collide(keys):
                plain = dict(zip(keys, items[1::2], strict=True))
                if len(plain) == len(keys):
                    return plain
        except TypeError:
            pass  # a list or a map among the keys
    return _erlang_map(items, wary=True)


def _erlang_map(items: list[Any], *, wary: bool) -> ErlangMap:
    """A map that no ``dict`` can hold."""
    keys = items[::2]
    values = items[1::2]
    if len(keys) == 1:
        return ErlangMap.of_distinct(keys, values)
    # Keys differ where tuples in place of lists do, which is found faster than by encoding them.
    flat = [tuple(key) if type(key) is list else key for key in keys]
    if not wary or all(type(key) is not tuple or _is_shallow(key) for key in flat):
        try:
            if not _collide(flat) and len(set(flat)) == len(flat):
                return ErlangMap.of_distinct(keys, values)
        except TypeError:
            pass  # a map, or a list in a list
    try:
        return ErlangMap(zip(keys, values, strict=True))
    except ConfigurationError:
        raise DecodeError("a key occurs twice in a map") from None


def _collide(keys: list[Any]) -> bool:
    """Whether many keys have one hash, which for numbers and tuples of them anybody can bring about.

    A ``dict`` of such takes quadratic time. A set of the hashes does not, since those of one value are equal.
    """
    return len(keys) > _MAX_COLLISIONS and len(keys) - len(set(map(hash, keys))) > _MAX_COLLISIONS


def _is_shallow(key: tuple[Any, ...]) -> bool:
    """Whether Python may hash a tuple: it recurses in C without a check, which a deep one takes down."""
    level = [key]
    for _ in range(_MAX_HASHED_DEPTH):
        level = [inner for outer in level for inner in outer if type(inner) is tuple]
        if not level:
            return True
    return False


def _big(tag: int, data: bytes, pos: int) -> tuple[int, int]:
    """The integer of a SMALL_BIG_EXT or LARGE_BIG_EXT after its tag, and where it ends."""
    if tag == 110:
        length = data[pos]
        pos += 1
    else:
        (length,) = _U32(data, pos)
        pos += 4
    sign = data[pos]
    end = pos + 1 + length
    if end > len(data):
        _truncated()
    if sign > 1:
        raise DecodeError(f"the sign of an integer is 0 or 1, not {sign}")
    value = int.from_bytes(data[pos + 1 : end], "little")
    return (-value if sign else value), end


def _count_atom(unseen: int, limits: TermLimits) -> int:
    if not unseen:
        raise LimitExceededError("max_atoms", limits.max_atoms, "new atoms")
    return unseen - 1


def _new_atom(raw: bytes, text: str) -> Any:
    if len(text) > MAX_ATOM_CHARACTERS:
        raise DecodeError(f"an atom of {len(text)} characters; {MAX_ATOM_CHARACTERS} is the most")
    value: Any = {"true": True, "false": False}.get(text)
    if value is None:
        value = Atom(text)
    if len(_atoms) >= _CACHE_SIZE:
        _atoms.clear()
    _atoms[raw] = value
    return value


def _not_cached(cached: Sequence[Atom | bool], index: int) -> NoReturn:
    raise DecodeError(f"tag 82 refers to atom {index} of a table of {len(cached)}")


def _cached_name(cached: Sequence[Atom | bool], index: int) -> Atom:
    if index >= len(cached):
        _not_cached(cached, index)
    value = cached[index]
    return Atom("true" if value else "false") if isinstance(value, bool) else value


def _atom_at(data: bytes, pos: int, unseen: int, limits: TermLimits) -> tuple[Any, int, int]:
    """The atom at its tag: value (a bool for true and false), its end, what is left of the budget."""
    tag = data[pos]
    if tag in (119, 115):
        start, length = pos + 2, data[pos + 1]
    elif tag in (118, 100):
        start, length = pos + 3, _U16(data, pos + 1)[0]
    else:
        raise DecodeError(f"tag {tag} where an atom belongs")
    end = start + length
    if end > len(data):
        _truncated()
    raw = data[pos:end]
    value = _atoms.get(raw)
    if value is None:
        unseen = _count_atom(unseen, limits)
        value = _new_atom(raw, data[start:end].decode("utf-8" if tag in (119, 118) else "latin-1"))
    return value, end, unseen


def _name_at(
    data: bytes, pos: int, unseen: int, limits: TermLimits, cached: Sequence[Atom | bool]
) -> tuple[Atom, int, int]:
    tag = data[pos]
    if tag == 119:
        end = pos + 2 + data[pos + 1]
        value = _atoms.get(data[pos:end])
        if type(value) is Atom:
            return value, end, unseen
    if tag == 82:
        return _cached_name(cached, data[pos + 1]), pos + 2, unseen
    value, end, unseen = _atom_at(data, pos, unseen, limits)
    if type(value) is bool:
        value = Atom("true" if value else "false")
    return value, end, unseen


def _rare(
    tag: int, data: bytes, pos: int, unseen: int, limits: TermLimits, cached: Sequence[Atom | bool]
) -> tuple[Any, int, int]:
    """One element of a rarer kind; ``pos`` is after its tag."""
    value: Any
    match tag:
        case 90:  # NEWER_REFERENCE_EXT
            (count,) = _U16(data, pos)
            if count not in _REFERENCE_WORDS:
                raise DecodeError(f"a reference of {count} words")
            node, end, unseen = _name_at(data, pos + 2, unseen, limits, cached)
            words = _WORDS[count + 1](data, end)
            return Reference(node, words[0], words[1:]), end + 4 * count + 4, unseen
        case 118 | 115 | 100:  # ATOM_UTF8_EXT, SMALL_ATOM_EXT, ATOM_EXT
            return _atom_at(data, pos - 1, unseen, limits)
        case 88 | 103:  # NEW_PID_EXT, PID_EXT
            node, end, unseen = _name_at(data, pos, unseen, limits, cached)
            pos = end + (12 if tag == 88 else 9)
            if tag == 88:
                number, serial, creation = _PID(data, end)
            else:
                number, serial, creation = _OLD_PID(data, end)
            return Pid(node, number, serial, creation), pos, unseen
        case 114:  # NEW_REFERENCE_EXT
            (count,) = _U16(data, pos)
            if count not in _REFERENCE_WORDS:
                raise DecodeError(f"a reference of {count} words")
            node, end, unseen = _name_at(data, pos + 2, unseen, limits, cached)
            return Reference(node, data[end], _WORDS[count](data, end + 1)), end + 1 + 4 * count, unseen
        case 101:  # REFERENCE_EXT
            node, end, unseen = _name_at(data, pos, unseen, limits, cached)
            number, creation = _OLD_PORT(data, end)
            return Reference(node, creation, (number,)), end + 5, unseen
        case 120:  # V4_PORT_EXT
            node, end, unseen = _name_at(data, pos, unseen, limits, cached)
            return Port(node, *_V4_PORT(data, end)), end + 12, unseen
        case 89:  # NEW_PORT_EXT
            node, end, unseen = _name_at(data, pos, unseen, limits, cached)
            return Port(node, *_NEW_PORT(data, end)), end + 8, unseen
        case 102:  # PORT_EXT
            node, end, unseen = _name_at(data, pos, unseen, limits, cached)
            return Port(node, *_OLD_PORT(data, end)), end + 5, unseen
        case 113:  # EXPORT_EXT
            module, end, unseen = _name_at(data, pos, unseen, limits, cached)
            function, end, unseen = _name_at(data, end, unseen, limits, cached)
            if data[end] != 97:
                raise DecodeError("the arity of an export fun is a small integer")
            return ExportFun(module, function, data[end + 1]), end + 2, unseen
        case 112:  # NEW_FUN_EXT; its size counts itself
            end = pos + _U32(data, pos)[0]
            if end > len(data):
                _truncated()
            # arity 1, uniq 16, index 4, number of free variables 4, then at least module, index, uniq and pid
            if end - pos < 4 + 25 + 4:
                raise DecodeError("a fun is too short to be one")
            content, written = spell_out(data, pos + 4, end, partial(_cached_name, cached), limits)
            if written > unseen:
                raise LimitExceededError("max_atoms", limits.max_atoms, "atoms written out in funs")
            return Closure(content), end, unseen - written
        case 77:  # BIT_BINARY_EXT
            (length,) = _U32(data, pos)
            bits = data[pos + 4]
            end = pos + 5 + length
            if end > len(data):
                _truncated()
            raw = data[pos + 5 : end]
            if bits > 8 or (length == 0) != (bits == 0):
                raise DecodeError(f"a bit string of {length} bytes with {bits} bits in the last")
            return (raw if bits in (0, 8) else BitString(raw, bits)), end, unseen
        case 99:  # FLOAT_EXT
            end = pos + 31
            if end > len(data):
                _truncated()
            try:
                value = float(data[pos:end].rstrip(b"\0"))
            except ValueError:
                raise DecodeError("a float is no number") from None
            if not isfinite(value):
                raise DecodeError("a float is not finite")
            return value, end, unseen
        case 121:  # LOCAL_EXT
            raise DecodeError(
                "a term written with the option local can be read only by the node that wrote it"
            )
        case _:
            raise DecodeError(f"tag {tag} is none of the format, or of a part of it that was not agreed")
