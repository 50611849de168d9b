"""Snapshots of groups for many peers, each told as differences from the newest that the peer acknowledged.

Of snapshots one copy is kept for all peers; of a peer, which tick of each group it has. Peers with one
baseline share the bytes that a group takes. Layout in ``docs/protocol.md`` §6.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bridge.errors import ConfigurationError, DecodeError, InvalidStateError
from bridge.replication.bindings import Bindings
from bridge.replication.delta import FieldBits, Seats, decode_sections_untrusted, encode_sections
from bridge.replication.records import (
    DIGEST_BYTES,
    DIGEST_FLAG,
    LAYOUT_VERSION,
    MAX_PAYLOAD_BYTES,
    Layout,
    Payloads,
)
from bridge.replication.seats import (
    COLUMNS,
    FLAGS,
    GROUP_SEATS,
    MAX_GROUPS,
    NOBODY,
    Rows,
    empty_rows,
    handles_of,
)

MAX_BASELINE_AGE: Final = 64
"""ticks; a peer that acknowledged nothing for so long is told everything anew"""
MAX_PARTS: Final = 16
"""of a section that does not fit a payload"""
MIN_ROOM_BYTES: Final = 576
"""A sixteenth of a group always fits: its seats take at most 62 bytes each."""
_PARTIAL_KEPT: Final = 8
"""sets of parts, of one tick and baseline each, of which a receiver has some and not all"""
_SENT_KEPT: Final = 256
"""payloads of a stream whose acknowledgement is awaited"""

_HEADER: Final = struct.Struct(">BBBBI")
"""version, kind, ticks a second, sections, tick"""
_SECTION: Final = struct.Struct(">HBBH")
"""group, age of the baseline in ticks (0: none), part · parts - 1 (4 bits each), length"""


_Key = tuple[int, int | None]
"""a group, and the tick of the baseline it is told from"""


class _Section(NamedTuple):
    data: bytes
    age: int
    part: int
    parts: int
    handles: npt.NDArray[np.intp]


class Told(NamedTuple):
    """What a payload tells of one group; ``age`` is that of the baseline, 0 where there is none.

    Parts belong together where all but ``part`` is the same: from another baseline other seats are told.
    """

    group: int
    tick: int
    age: int
    part: int
    parts: int


class Outgoing(NamedTuple):
    """A payload for one stream, and what it tells, for ``View.sent``."""

    payload: bytes
    told: tuple[Told, ...]


@dataclass(slots=True)
class View:
    """What one peer has: the tick of each group that it acknowledged."""

    _have: dict[int, int] = field(default_factory=dict)
    _sent: dict[int, deque[tuple[int, tuple[Told, ...]]]] = field(default_factory=dict)
    _parts: dict[tuple[int, int, int], set[int]] = field(default_factory=dict)
    """parts acknowledged, by group, tick and age of the baseline"""

    def sent(self, stream: int, number: int, outgoing: Outgoing) -> None:
        """A payload went out as a state of this stream and number."""
        self._sent.setdefault(stream, deque(maxlen=_SENT_KEPT)).append((number, outgoing.told))

    def streams(self) -> list[int]:
        """Streams whose newest acknowledged state is of interest."""
        return [stream for stream, waiting in self._sent.items() if waiting]

    def acknowledged(self, stream: int, number: int | None) -> None:
        """The newest state of a stream that the peer acknowledged (``Session.acknowledged_state``)."""
        waiting = self._sent.get(stream)
        if number is None or not waiting:
            return
        for sent, told in waiting:
            if sent == number:
                for one in told:
                    self._acknowledge(one)
        while waiting and (number - waiting[0][0]) & 0xFFFFFFFF < 1 << 31:
            waiting.popleft()

    def _acknowledge(self, told: Told) -> None:
        if told.parts > 1:
            parts = self._parts.setdefault((told.group, told.tick, told.age), set())
            parts.add(told.part)
            if len(parts) < told.parts:
                while len(self._parts) > _PARTIAL_KEPT * MAX_BASELINE_AGE:
                    del self._parts[next(iter(self._parts))]
                return
        have = self._have.get(told.group)
        if have is None or (told.tick - have) & 0xFFFFFFFF < 1 << 31:
            self._have[told.group] = told.tick
        if self._parts:
            for key in [key for key in self._parts if key[0] == told.group]:
                if (told.tick - key[1]) & 0xFFFFFFFF < 1 << 31:
                    del self._parts[key]

    def forget(self, groups: Iterable[int]) -> None:
        """The peer says that it lacks a baseline of these groups: tell them whole."""
        for group in groups:
            self._have.pop(group, None)
            for waiting in self._sent.values():
                for index, (number, told) in enumerate(waiting):
                    waiting[index] = (number, tuple(one for one in told if one.group != group))

    def baseline(self, group: int) -> int | None:
        """Tick of the group that the peer has."""
        return self._have.get(group)


class SnapshotSender:
    """Makes payloads from the newest snapshot.

    Args:
        groups: how many there are, at most ``MAX_GROUPS``.
        rate: ticks a second, 1 … 255.
        room: bytes of a payload.
        bindings: of this side's handles where sessions are signed.
    """

    def __init__(
        self, *, groups: int, rate: int, room: int = MAX_PAYLOAD_BYTES, bindings: Bindings | None = None
    ) -> None:
        if not (0 < groups <= MAX_GROUPS and 0 < rate <= 255 and room >= MIN_ROOM_BYTES):
            raise ConfigurationError(
                f"1 … {MAX_GROUPS} groups, 1 … 255 ticks a second and {MIN_ROOM_BYTES} bytes of room at least"
            )
        self._groups = groups
        self._rate = rate
        self._bindings = bindings
        self._room = room - _HEADER.size - (0 if bindings is None else DIGEST_BYTES)
        self._snapshots: dict[int, Rows] = {}
        self._tick = 0
        self._newest = empty_rows(groups * GROUP_SEATS).reshape(groups, GROUP_SEATS, COLUMNS)
        self._changed_at = np.zeros(groups, dtype=np.int64)
        self._sections: dict[_Key, list[_Section]] = {}
        self.bits = FieldBits(0, 0, 0, 0, 0, 0, 0)
        """bits of section bodies made so far, by field"""

    def publish(self, tick: int, rows: Rows) -> None:
        """Take the newest snapshot, rows of shape (groups * GROUP_SEATS, 15); it is kept, not copied.

        Args:
            tick: not before the last one, modulo 2**32. What was acknowledged of a tick is a baseline, so a
                tick that comes again has the same rows.

        Raises:
            ConfigurationError: rows of another shape.
            InvalidStateError: ticks that go back, or other rows at the same tick. Where a simulation begins
                anew, so do its sender, the views and the receivers.
        """
        if rows.shape != (self._groups * GROUP_SEATS, COLUMNS):
            raise ConfigurationError(
                f"{self._groups} groups have rows of shape {(self._groups * GROUP_SEATS, COLUMNS)}: "
                f"begin with empty_rows({self._groups * GROUP_SEATS}); not {rows.shape}"
            )
        tick &= 0xFFFFFFFF
        shaped = rows.reshape(self._groups, GROUP_SEATS, COLUMNS)
        changed = (shaped != self._newest).any(axis=(1, 2))
        if self._snapshots:
            if (tick - self._tick) & 0xFFFFFFFF >= 1 << 31:
                raise InvalidStateError(f"tick {tick} comes before {self._tick}, which was published")
            if tick == self._tick and changed.any():
                raise InvalidStateError(f"tick {tick} was published with other rows")
        self._tick = tick
        self._changed_at[changed] = self._tick
        self._snapshots[self._tick] = self._newest = shaped
        for old in [t for t in self._snapshots if (self._tick - t) & 0xFFFFFFFF > MAX_BASELINE_AGE]:
            del self._snapshots[old]
        self._sections.clear()

    def payloads(self, views: Sequence[View], groups: Iterable[int] | None = None) -> list[list[Outgoing]]:
        """Payloads of the newest snapshot, for each peer what it lacks.

        Args:
            views: of the peers.
            groups: which ones to tell, in this order; all where ``None``.

        Returns:
            For each view its payloads, in the order of streams. Each decodes alone.

        Raises:
            ConfigurationError: there is no such group.
            InvalidStateError: nothing was published.
        """
        if not self._snapshots:
            raise InvalidStateError("publish() a snapshot first")
        wanted = list(range(self._groups) if groups is None else dict.fromkeys(groups))
        if wanted and (min(wanted) < 0 or max(wanted) >= self._groups):
            raise ConfigurationError(
                f"the groups are 0 … {self._groups - 1}, not {min(wanted)} … {max(wanted)}"
            )
        lacks = [self._lacks(view, wanted) for view in views]
        self._make({key for keys in set(lacks) for key in keys} - self._sections.keys())
        # Peers that lack the same have the same payloads.
        packed = {keys: self._pack(keys) for keys in set(lacks)}
        return [packed[keys] for keys in lacks]

    def _lacks(self, view: View, groups: Iterable[int]) -> tuple[_Key, ...]:
        based = [(group, self._usable(view, group)) for group in groups]
        return tuple(key for key in based if not self._is_settled(*key))

    def _usable(self, view: View, group: int) -> int | None:
        baseline = view.baseline(group)
        return baseline if baseline in self._snapshots else None

    def _is_settled(self, group: int, baseline: int | None) -> bool:
        """Whether who has the baseline has all there is, and the baseline is not about to become too old."""
        if baseline is None:
            return False
        since = (self._tick - int(self._changed_at[group])) & 0xFFFFFFFF
        return (self._tick - baseline) & 0xFFFFFFFF <= min(since, MAX_BASELINE_AGE // 2)

    def _make(self, keys: set[_Key]) -> None:
        if not keys:
            return
        order = sorted(keys, key=lambda key: (key[0], -1 if key[1] is None else key[1]))
        empty = empty_rows(GROUP_SEATS)
        now = self._snapshots[self._tick][[group for group, _ in order]]
        base = np.stack([empty if t is None else self._snapshots[t][group] for group, t in order])
        ages = np.array([0 if t is None else (self._tick - t) & 0xFFFFFFFF for _, t in order])
        told = (now != base).any(axis=2)
        room = self._room - _SECTION.size
        bodies, bits = encode_sections(now, base, told, ages=ages, rate=self._rate)
        self.bits = FieldBits(*(a + b for a, b in zip(self.bits, bits, strict=True)))
        for index, key in enumerate(order):
            masks, parts = told[index : index + 1], [bodies[index]]
            while max(map(len, parts)) > room:
                masks = _halved(masks)
                same = np.zeros(len(masks), dtype=np.intp)
                parts, _ = encode_sections(
                    now[index + same], base[index + same], masks, ages=ages[index + same], rate=self._rate
                )
            self._sections[key] = [
                self._section(key, now[index], mask, body, part, len(parts), int(ages[index]))
                for part, (mask, body) in enumerate(zip(masks, parts, strict=True))
            ]

    def _section(
        self,
        key: _Key,
        now: Rows,
        mask: Seats,
        body: bytes,
        part: int,
        parts: int,
        age: int,
    ) -> _Section:
        header = _SECTION.pack(key[0], age, part << 4 | parts - 1, len(body))
        taken = now[mask & (now[:, FLAGS] != NOBODY)]
        return _Section(header + body, age, part, parts, handles_of(taken)[0])

    def _pack(self, keys: Iterable[_Key]) -> list[Outgoing]:
        outgoing: list[Outgoing] = []
        sections: list[_Section] = []
        told: list[Told] = []
        used = 0
        for group, baseline in keys:
            for section in self._sections[group, baseline]:
                if used + len(section.data) > self._room or len(sections) == 255:
                    outgoing.append(self._payload(sections, told))
                    sections, told, used = [], [], 0
                sections.append(section)
                told.append(Told(group, self._tick, section.age, section.part, section.parts))
                used += len(section.data)
        if sections:
            outgoing.append(self._payload(sections, told))
        return outgoing

    def _payload(self, sections: list[_Section], told: list[Told]) -> Outgoing:
        kind = Layout.DELTA | (0 if self._bindings is None else DIGEST_FLAG)
        header = _HEADER.pack(LAYOUT_VERSION, kind, self._rate, len(sections), self._tick)
        digest = b""
        if self._bindings is not None:
            digest = self._bindings.digest(np.concatenate([section.handles for section in sections]))
        return Outgoing(b"".join((header, digest, *(section.data for section in sections))), tuple(told))


def _halved(masks: Seats) -> Seats:
    """Masks with twice as many rows, each with half of the seats of one."""
    order = np.cumsum(masks, axis=1)
    first = masks & (order <= (order[:, -1:] + 1) // 2)
    return np.stack((first, masks & ~first), axis=1).reshape(-1, masks.shape[1])


class Received(NamedTuple):
    """What a payload brought.

    Attributes:
        tick: of the sender, 32 bits.
        rows: of the taken seats that are not as they were, shape (n, 15): ``handles_of``, ``seen_states``.
        missing: groups that could not be read, for want of the baseline: the sender is to tell them whole.
    """

    tick: int
    rows: Rows
    missing: tuple[int, ...]


@dataclass(slots=True)
class _Group:
    shown: Rows
    tick: int | None = None
    whole: dict[int, Rows] = field(default_factory=dict)
    """snapshots that the sender may differ from, by tick"""
    partial: dict[tuple[int, int, int], tuple[Rows, set[int]]] = field(default_factory=dict)
    """what some parts told, and which, by tick, age of the baseline and number of parts less one"""


class SnapshotReceiver:
    """Reads payloads of one sender, and keeps what it may differ from: at most half a MiB of each group.

    Args:
        max_groups: groups of the sender that are read.
        bindings: of the sender's handles where sessions are signed.
    """

    def __init__(self, *, max_groups: int = 64, bindings: Bindings | None = None) -> None:
        self._max_groups = max_groups
        self._bindings = bindings
        self._groups: dict[int, _Group] = {}

    def receive_untrusted(self, payload: bytes | memoryview | Payloads) -> Received:
        """Read a payload; the order in which payloads come does not matter.

        Raises:
            DecodeError: no sender makes this, it has a digest of other bindings, or too many groups.
        """
        data = np.frombuffer(payload, dtype=np.uint8)
        tick, rate, sections, digest = self._headers(data)
        bases = [self._baseline(group, tick, age) for group, age, *_ in sections]
        lacking = {section[0] for section, base in zip(sections, bases, strict=True) if base is None}
        # One that comes late may differ from what newer ones have made needless.
        missing = tuple(sorted(group for group in lacking if self._is_newer(group, tick)))
        known = [section for section, base in zip(sections, bases, strict=True) if base is not None]
        if not known or (lacking and self._bindings is not None):
            return Received(tick, empty_rows(0), missing)
        groups, ages, numbers, starts, ends = (np.array(column) for column in zip(*known, strict=True))
        base = np.stack([base for base in bases if base is not None])
        rows, told = decode_sections_untrusted(data, starts, ends, base, ages=ages, rate=rate)
        if self._bindings is not None:
            taken = rows[told & (rows[:, :, FLAGS] != NOBODY)]
            if self._bindings.digest(handles_of(taken)[0]) != digest:
                raise DecodeError("the sender's handles mean something else there than here")
        changed = [
            self._take(int(groups[i]), tick, int(ages[i]), int(numbers[i]), rows[i], told[i])
            for i in range(len(known))
        ]
        return Received(tick, np.concatenate(changed), missing)

    def _headers(self, data: Payloads) -> tuple[int, int, list[tuple[int, int, int, int, int]], bytes]:
        whole = data.tobytes()
        start = _HEADER.size + (0 if self._bindings is None else DIGEST_BYTES)
        if len(whole) < start or len(whole) > MAX_PAYLOAD_BYTES:
            raise DecodeError(f"{len(whole)} bytes are no snapshot")
        version, kind, rate, count, tick = _HEADER.unpack_from(whole)
        expected = Layout.DELTA | (0 if self._bindings is None else DIGEST_FLAG)
        if (version, kind) != (LAYOUT_VERSION, expected) or rate == 0:
            raise DecodeError(f"a payload beginning {whole[:4].hex()} is no snapshot of layout 2")
        sections: list[tuple[int, int, int, int, int]] = []
        at = start
        for _ in range(count):
            if at + _SECTION.size > len(whole):
                raise DecodeError("a snapshot ends inside a section's header")
            group, age, number, length = _SECTION.unpack_from(whole, at)
            at += _SECTION.size
            if number >> 4 > number & 15 or age > MAX_BASELINE_AGE or length == 0:
                raise DecodeError(f"a section of group {group} is part {number:#x} with an age of {age}")
            sections.append((group, age, number, at, at + length))
            at += length
        if at != len(whole) or len({(group, number) for group, _, number, *_ in sections}) != count:
            raise DecodeError("the sections of a snapshot do not fill it, each part once")
        if len(self._groups.keys() | {group for group, *_ in sections}) > self._max_groups:
            raise DecodeError(f"more than {self._max_groups} groups")
        return tick, rate, sections, whole[_HEADER.size : start]

    def _baseline(self, group: int, tick: int, age: int) -> Rows | None:
        if age == 0:
            return empty_rows(GROUP_SEATS)
        known = self._groups.get(group)
        return None if known is None else known.whole.get((tick - age) & 0xFFFFFFFF)

    def _is_newer(self, number: int, tick: int) -> bool:
        group = self._groups.get(number)
        return group is None or group.tick is None or (tick - group.tick) & 0xFFFFFFFF < 1 << 31

    def _take(self, number: int, tick: int, age: int, parts: int, rows: Rows, told: Seats) -> Rows:
        group = self._groups.setdefault(number, _Group(empty_rows(GROUP_SEATS)))
        newer = self._is_newer(number, tick)
        if parts & 15:
            whole, heard = group.partial.setdefault((tick, age, parts & 15), (rows.copy(), set()))
            whole[told] = rows[told]
            heard.add(parts >> 4)
            while len(group.partial) > _PARTIAL_KEPT:
                del group.partial[next(iter(group.partial))]
            if len(heard) <= parts & 15:
                # Of seats told by another part, this one knows nothing.
                rows = np.where(told[:, None], rows, group.shown)
            else:
                rows = whole
                self._keep(group, tick, age, rows)
        else:
            self._keep(group, tick, age, rows)
        if not newer:
            return empty_rows(0)
        changed = (rows != group.shown).any(axis=1) & (rows[:, FLAGS] != NOBODY)
        group.shown, group.tick = rows, tick
        seen: Rows = rows[changed]
        return seen

    def _keep(self, group: _Group, tick: int, age: int, rows: Rows) -> None:
        group.whole[tick] = rows
        # A sender never goes back behind a baseline that it has named.
        oldest = MAX_BASELINE_AGE if age == 0 else age
        for other in [t for t in group.whole if oldest < (tick - t) & 0xFFFFFFFF < 1 << 31]:
            del group.whole[other]
        for key in [key for key in group.partial if oldest < (tick - key[0]) & 0xFFFFFFFF < 1 << 31]:
            del group.partial[key]
        while len(group.whole) > MAX_BASELINE_AGE + 1:
            del group.whole[next(iter(group.whole))]
