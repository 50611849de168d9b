"""What each process of a node knows of its links.

Source: Erlang "Distribution Protocol", section "Link Protocol": an unlink that was not acknowledged yet keeps
its entry, inactive, so that a LINK or an exit that crosses it is told from a later one and both sides agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from bridge.etf import Pid
from bridge.node.mailbox import Watch


@dataclass(slots=True)
class LinkEnd:
    """One end of a link.

    Attributes:
        watch: who here waits for its end, if anybody.
        unlink: id of our unlink that was not acknowledged yet; 0 while the link is active.
    """

    watch: Watch | None = None
    unlink: int = 0


class Links:
    """The ends of links that processes of this node hold, by own pid and by the other one's."""

    def __init__(self) -> None:
        self._ends: dict[Pid, dict[Pid, LinkEnd]] = {}
        self._unlinks = count(1)

    def __len__(self) -> int:
        return sum(map(len, self._ends.values()))

    def get(self, own: Pid, other: Pid) -> LinkEnd | None:
        """The active link between two processes."""
        link = self._ends.get(own, {}).get(other)
        return None if link is None or link.unlink else link

    def set_up(self, own: Pid, other: Pid, watch: Watch | None = None) -> bool:
        """Link, or let an active link have a watch; whether LINK is to be sent."""
        needed = self.get(own, other) is None
        self._ends.setdefault(own, {})[other] = LinkEnd(watch)
        return needed

    def requested(self, own: Pid, other: Pid) -> None:
        """LINK came; beside an unlink of ours it is void, since the other side has yet to see that."""
        self._ends.setdefault(own, {}).setdefault(other, LinkEnd())

    def undo(self, own: Pid, other: Pid) -> tuple[int, Watch | None] | None:
        """Unlink: the id for UNLINK_ID and the watch that the link had, or ``None`` without a link."""
        link = self.get(own, other)
        if link is None:
            return None
        watch, link.watch = link.watch, None
        link.unlink = next(self._unlinks)
        return link.unlink, watch

    def undone(self, own: Pid, other: Pid) -> LinkEnd | None:
        """UNLINK_ID came: the active link that ends by it."""
        return None if self.get(own, other) is None else self._remove(own, other)

    def acknowledged(self, own: Pid, other: Pid, number: int) -> None:
        """UNLINK_ID_ACK came."""
        link = self._ends.get(own, {}).get(other)
        if link is not None and link.unlink == number:
            self._remove(own, other)

    def broke(self, own: Pid, other: Pid) -> LinkEnd | None:
        """An exit came by a link: the link, if it is to be acted on."""
        active = self.get(own, other)
        if own in self._ends:
            self._remove(own, other)
        return active

    def ended(self, own: Pid) -> dict[Pid, LinkEnd]:
        """A process of this node ended: its active links, which are forgotten."""
        return {other: link for other, link in self._ends.pop(own, {}).items() if not link.unlink}

    def node_down(self, node: str) -> Iterator[tuple[Pid, Pid, LinkEnd]]:
        """A connection ended: each active link over it, forgotten before it is given."""
        over = [(own, other) for own, ends in self._ends.items() for other in ends if other.node.text == node]
        for own, other in over:
            # What an exit did to another process may have ended this one.
            link = self.broke(own, other)
            if link is not None:
                yield own, other, link

    def _remove(self, own: Pid, other: Pid) -> LinkEnd | None:
        ends = self._ends[own]
        link = ends.pop(other, None)
        if not ends:
            del self._ends[own]
        return link
