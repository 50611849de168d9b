"""What a data plane writes down of its acts: in memory the newest of it, and in a file, where one is kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from bridge.authority import Act, Began, Entry, Granted, HandOver
from bridge.sim.dataplane.sealing import Sealing

MAX_ENTRIES: Final = 1_024
"""records kept in memory, some two hundred transfers, unless the whole history is wanted"""


class Notes:
    """Records of one server.

    Args:
        server: its name.
        record: takes each as it is made, for a record that survives this process.
        keep_history: whether all are kept in memory, instead of the newest ``MAX_ENTRIES``.

    Attributes:
        session: in whose name it acts.
    """

    def __init__(self, server: str, *, record: Callable[[Entry], None] | None, keep_history: bool) -> None:
        self.session = b""
        self._server = server
        self._record = record
        self._entries: deque[Entry] = deque(maxlen=None if keep_history else MAX_ENTRIES)
        self._made = 0

    @property
    def dropped(self) -> int:
        """Records that memory does not hold any more."""
        return self._made - len(self._entries)

    def entries(self) -> Iterable[Entry]:
        """Those that it holds, oldest first."""
        return self._entries

    def note(self, entry: Entry) -> None:
        """Write something down."""
        self._made += 1
        self._entries.append(entry)
        if self._record is not None:
            self._record(entry)

    def granted(self, entity: str, epoch: int, *, at_ns: int) -> None:
        """The control plane said so."""
        granted = Granted(server=self._server, session=self.session, entity=entity, epoch=epoch, at_ns=at_ns)
        self.note(granted)

    def began(self, sealings: Iterable[Sealing], *, now_ns: int) -> None:
        """Their first states are about to be sealed; memory has their acts instead."""
        if self._record is None:
            return
        for sealing in sealings:
            began = Began(
                server=self._server,
                session=self.session,
                entity=sealing.entity,
                epoch=sealing.epoch,
                first_ns=now_ns,
            )
            self._record(began)

    def ended(self, sealing: Sealing) -> None:
        """Nothing more is sealed for that grant."""
        act = self.act(sealing, sealing.last_ns)
        if act is not None:
            self.note(act)

    def act(self, sealing: Sealing, last_ns: int) -> Act | None:
        """What was done under a grant so far; ``None`` where nothing was sealed."""
        if sealing.first_ns is None:
            return None
        return Act(
            server=self._server,
            session=self.session,
            entity=sealing.entity,
            epoch=sealing.epoch,
            first_ns=sealing.first_ns,
            last_ns=last_ns,
        )

    def hand_over(self, side: str, entity: str, epoch: int, digest: bytes) -> None:
        """A release was signed (``gave``) or opened (``took``)."""
        self.note(HandOver(server=self._server, side=side, entity=entity, epoch=epoch, hash=digest))
