"""States for many sessions in one pass: those given to all at once, and those that many happen to have alone.

What may go alone is sealed by :mod:`bridge.udp.lone` over columns, and what its sessions have to tell goes
before it where there is room. All else waits in the sessions, as if each had been given its state itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, SupportsIndex

import numpy as np
import numpy.typing as npt

from bridge.errors import ConfigurationError
from bridge.udp.acknowledger import Acknowledger
from bridge.udp.columns import Columns
from bridge.udp.config import UdpConfig
from bridge.udp.frames import (
    MAX_STATE_BYTES,
)
from bridge.udp.latest import Matrix, PendingState, check_batch, check_state, plain_number
from bridge.udp.lone import FEW, LONE_BYTES, Lone, has_to_tell, may_go, seal_lone
from bridge.udp.session import Session
from bridge.udp.transmit import Transmit
from bridge.udp.workspace import Sheet, Workspace


class _Queued(NamedTuple):
    """States given to many sessions at once, row i being that of session i."""

    sessions: list[Session]
    lone: Lone


class FanOut:
    """The passes over the sessions of one endpoint.

    Attributes:
        queued: what was given and not looked at yet.
    """

    __slots__ = ("_columns", "_config", "_crowd", "_touch", "_went_alone", "_workspace", "queued")

    def __init__(
        self,
        config: UdpConfig,
        *,
        columns: Columns,
        workspace: Workspace,
        touch: Callable[[Session], None],
        went_alone: Callable[[Session], None],
    ) -> None:
        """Begin with nothing given.

        Args:
            columns: of the endpoint's sessions.
            touch: called with a session that has something to send after all.
            went_alone: called with a session the only state of which was sealed.
        """
        self._config = config
        self._columns = columns
        self._workspace = workspace
        self._touch = touch
        self._went_alone = went_alone
        self._crowd: tuple[list[Session], npt.NDArray[np.intp]] | None = None
        self.queued: _Queued | None = None

    def give(
        self, sessions: Sequence[Session], payloads: Matrix, stream: SupportsIndex = 0
    ) -> npt.NDArray[np.int64]:
        """Give many sessions their newest state of a stream: see :meth:`UdpEngine.send_states`.

        Args:
            payloads: kept until :meth:`seal_queued` or :meth:`part`, one of which is to follow at once.
        """
        check_batch(payloads)
        stream, count = plain_number(stream), len(sessions)
        if len(payloads) != count:
            raise ConfigurationError(f"{len(payloads)} states for {count} sessions: one row for each")
        if not count:
            return np.empty(0, dtype=np.int64)
        self.part()
        columns, (chosen, rows) = self._columns, self._crowd_of(sessions)
        check_state(
            stream,
            1,
            payloads.shape[1],
            max_streams=self._config.max_state_streams,
            max_state_bytes=int(np.asarray(columns.max_state_bytes)[rows].min()),
        )
        newest = np.asarray(columns.number)
        newest[rows] += 1
        np.asarray(columns.is_queued)[rows] = 1
        numbers = newest[rows].astype(np.int64)
        self.queued = _Queued(chosen, Lone(rows, stream, numbers, payloads))
        return numbers

    def _crowd_of(self, sessions: Sequence[Session]) -> tuple[list[Session], npt.NDArray[np.intp]]:
        """Sessions and their rows, remembered: a server has the same players in most of its ticks."""
        if self._crowd is not None and type(sessions) is list and self._crowd[0] == sessions:
            return self._crowd
        chosen = list(sessions)
        own = [session.row for session in chosen]
        if any(row.columns is not self._columns for row in own):
            raise ConfigurationError("a session of another engine is among them")
        if len(set(own)) < len(own):
            # Two datagrams under one sequence would give away both.
            raise ConfigurationError("a session is named twice: a stream of a session has one newest state")
        self._crowd = chosen, np.array([row.index for row in own], dtype=np.intp)
        return self._crowd

    def forget_crowd(self) -> None:
        """A session is let go: keep none of those that were together with it."""
        self._crowd = None

    def disown(self) -> None:
        """Let what was given go, in a child of the process that the sessions belong to."""
        self.queued = None

    def part(self) -> None:
        """Hand what :meth:`give` was given to its sessions, where it waits and is superseded."""
        queued, self.queued = self.queued, None
        if queued is not None:
            self._part(queued, range(len(queued.sessions)))

    def _part(self, queued: _Queued, which: Iterable[int]) -> None:
        sessions, (_, stream, numbers, payloads, _) = queued
        assert isinstance(stream, int)
        is_queued = self._columns.is_queued
        for n in which:
            session = sessions[n]
            at = session.row.index
            if is_queued[at] and not session.is_closed:
                session.outbound.latest.put_numbered(stream, payloads[n].tobytes(), int(numbers[n]))
                self._touch(session)
            is_queued[at] = 0

    def seal_queued(self, *, now: float) -> list[Transmit]:
        """Seal what may go of what :meth:`give` was given; the rest waits in its sessions."""
        queued, self.queued = self.queued, None
        if queued is None:
            return []
        columns, lone = self._columns, queued.lone
        if len(lone.rows) < FEW:
            self._part(queued, range(len(lone.rows)))
            return []
        is_queued = np.asarray(columns.is_queued)
        may = may_go(lone, columns, max_flight=self._config.max_flight_datagrams, now=now)
        may &= (np.asarray(columns.is_idle)[lone.rows] & is_queued[lone.rows]).astype(np.bool_)
        tells = may & has_to_tell(lone, columns, now=now)
        groups = self._acknowledging(queued, np.flatnonzero(tells).tolist()) if tells.any() else []
        alone = np.flatnonzero(may & ~tells)
        groups.append((lone if len(alone) == len(lone.rows) else lone.only(alone), []))
        groups.sort(key=lambda group: len(group[0].rows), reverse=True)
        transmits: list[Transmit] = []
        for group, acknowledgers in groups:
            count, size = len(group.rows), group.size
            plaintexts = self._workspace.buffers_if_worth(size, count) if count >= FEW else None
            if plaintexts is None:
                continue
            sheet = Sheet(size, count) if transmits else self._workspace.sheet(size, count)
            is_queued[group.rows] = 0
            for acknowledger in acknowledgers:
                acknowledger.told()
            transmits += seal_lone(group, columns, plaintexts, sheet, now=now)
        left = np.flatnonzero(is_queued[lone.rows])
        if len(left):
            self._part(queued, left.tolist())
        return transmits

    def _acknowledging(self, queued: _Queued, which: list[int]) -> list[tuple[Lone, list[Acknowledger]]]:
        """States with what their sessions have to tell before them, where both fit, by the length of that."""
        room = MAX_STATE_BYTES - queued.lone.payloads.shape[1]
        by_length: defaultdict[int, list[tuple[int, bytes, Acknowledger]]] = defaultdict(list)
        for n in which:
            acknowledger = queued.sessions[n].acknowledger
            frames = acknowledger.peek()
            if len(frames) <= room:
                by_length[len(frames)].append((n, frames, acknowledger))
        return [
            (queued.lone.only(np.array(chosen, dtype=np.intp), frames), list(acknowledgers))
            for chosen, frames, acknowledgers in (zip(*same, strict=True) for same in by_length.values())
        ]

    def seal_alone(
        self, sessions: Iterable[Session], *, now: float
    ) -> tuple[list[Transmit], Iterable[Session]]:
        """Seal the states of sessions that have nothing else to send; also, whom else to visit."""
        waiting: defaultdict[int, list[tuple[Session, PendingState, bytes]]] = defaultdict(list)
        rest: list[Session] = []
        for session in sessions:
            state = session.outbound.lone_state()
            if state is None or not isinstance(state.payload, bytes):
                rest.append(session)
            else:
                waiting[len(state.payload)].append((session, state, state.payload))
        transmits: list[Transmit] = []
        for length, same in waiting.items():
            size = LONE_BYTES + length
            plaintexts = self._workspace.buffers_if_worth(size, len(same)) if len(same) >= FEW else None
            if plaintexts is None:
                rest += [session for session, _, _ in same]
                continue
            lone = Lone(
                np.array([session.row.index for session, _, _ in same], dtype=np.intp),
                np.array([state.stream for _, state, _ in same], dtype=np.int64),
                np.array([state.number for _, state, _ in same], dtype=np.int64),
                np.frombuffer(b"".join([payload for _, _, payload in same]), np.uint8).reshape(
                    len(same), length
                ),
            )
            may = may_go(lone, self._columns, max_flight=self._config.max_flight_datagrams, now=now)
            may &= ~has_to_tell(lone, self._columns, now=now)
            for (session, _, _), may_this in zip(same, may.tolist(), strict=True):
                if may_this:
                    session.outbound.lone_went()
                    self._went_alone(session)
                else:
                    rest.append(session)
            if not may.all():
                lone = lone.only(np.flatnonzero(may))
            if len(lone.rows):
                sheet = Sheet(size, len(lone.rows))
                transmits += seal_lone(lone, self._columns, plaintexts, sheet, now=now)
        return transmits, rest
