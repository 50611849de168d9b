"""Both ends of a link agree, whatever crosses on the way."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from bridge.etf import Atom, Pid
from bridge.node.links import Links

_A, _B = Pid(Atom("a@h"), 1, 0, 1), Pid(Atom("b@h"), 1, 0, 1)


class _Side:
    """A process, its links, and what is on its way to it."""

    def __init__(self, own: Pid, other: Pid) -> None:
        self.own, self.other = own, other
        self.links = Links()
        self.arriving: deque[tuple[str, int]] = deque()

    @property
    def linked(self) -> bool:
        return self.links.get(self.own, self.other) is not None

    def link(self, to: _Side) -> None:
        if self.links.set_up(self.own, self.other):
            to.arriving.append(("link", 0))

    def unlink(self, to: _Side) -> None:
        undone = self.links.undo(self.own, self.other)
        if undone is not None:
            to.arriving.append(("unlink", undone[0]))

    def take(self, back: _Side) -> None:
        if not self.arriving:
            return
        kind, number = self.arriving.popleft()
        match kind:
            case "link":
                self.links.requested(self.own, self.other)
            case "unlink":
                back.arriving.append(("ack", number))
                self.links.undone(self.own, self.other)
            case _:
                self.links.acknowledged(self.own, self.other, number)


@given(st.lists(st.tuples(st.sampled_from(["link", "unlink", "take"]), st.booleans()), max_size=40))
def test_both_ends_agree_when_everything_has_arrived(steps: list[tuple[str, bool]]) -> None:
    sides = (_Side(_A, _B), _Side(_B, _A))
    for what, first in steps:
        here, there = sides if first else sides[::-1]
        getattr(here, what)(there)
    while any(side.arriving for side in sides):
        sides[0].take(sides[1])
        sides[1].take(sides[0])
    assert sides[0].linked == sides[1].linked
    assert [len(side.links) for side in sides] == [int(side.linked) for side in sides]


def test_a_link_is_asked_for_once_and_undone_once() -> None:
    links = Links()
    assert links.undo(_A, _B) is None
    assert links.set_up(_A, _B)
    assert not links.set_up(_A, _B)
    first = links.undo(_A, _B)
    assert links.undo(_A, _B) is None
    assert links.set_up(_A, _B)
    second = links.undo(_A, _B)
    assert first is not None
    assert second is not None
    assert first[0] != second[0]
    # The acknowledgement of the first comes too late to matter.
    links.acknowledged(_A, _B, first[0])
    assert len(links) == 1
    links.acknowledged(_A, _B, second[0])
    assert len(links) == 0


def test_an_exit_is_acted_on_only_while_the_link_is_active() -> None:
    links = Links()
    assert links.broke(_A, _B) is None
    links.requested(_A, _B)
    assert links.broke(_A, _B) is not None
    assert links.broke(_A, _B) is None
    links.set_up(_A, _B)
    links.undo(_A, _B)
    assert links.broke(_A, _B) is None
    assert len(links) == 0


def test_the_end_of_a_process_or_of_a_connection_forgets_its_links() -> None:
    links = Links()
    other, third = Pid(_B.node, 2, 0, 1), Pid(Atom("c@h"), 1, 0, 1)
    for pid in (_B, other, third):
        links.set_up(_A, pid)
    links.undo(_A, other)
    assert [(own, pid) for own, pid, _ in links.node_down("b@h")] == [(_A, _B)]
    assert list(links.ended(_A)) == [third]
    assert links.ended(_A) == {}
    assert len(links) == 0
