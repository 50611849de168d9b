from __future__ import annotations

from typing import Any

import pytest

from bridge.etf import Atom, Pid, Reference
from bridge.khepri.memory.feed import MAX_SUBSCRIBERS, ChangeFeed
from bridge.khepri.memory.nodes import Payload
from bridge.khepri.memory.requests import RefusedError
from bridge.khepri.memory.tree import Tree

NODE = Atom("n@h")
PID = Pid(NODE, 1, 0, 1)
RUN = b"run of 8"


class Feeding:
    """A feed of one tree, and what it has sent."""

    def __init__(self, *, ring: int = 20_000) -> None:
        self.sent: list[Any] = []
        self.listens = True
        self.tree = Tree()
        self.feed = ChangeFeed(NODE, RUN, self.take, ring=ring)

    def take(self, pid: Pid, message: Any) -> bool:
        assert pid == PID
        self.sent.append(message)
        return self.listens

    def put(self, name: bytes, data: Any) -> None:
        self.feed.record(self.tree.put((name,), Payload(data), one=True)[1])

    def delete(self, name: bytes) -> None:
        self.feed.record(self.tree.delete((name,), one=True)[1])

    def subscribe(self, *, window: int = 10, since: Any = None, patterns: Any = (b"/",)) -> dict[str, Any]:
        request = {"pid": PID, "patterns": list(patterns), "window": window, "since": since}
        answer = self.feed.subscribe(self.tree, {Atom(name): value for name, value in request.items()})
        return {str(name): value for name, value in answer.items()}

    def told(self) -> list[tuple[Any, ...]]:
        """Sequence and path of all changes that were sent."""
        return [(change[0], *change[2]) for message in self.sent for change in message[2]]


def test_a_subscription_begins_with_what_is_there_and_goes_on_with_changes() -> None:
    feeding = Feeding()
    feeding.put(b"b", 1)
    feeding.put(b"a", 2)
    answer = feeding.subscribe()
    assert str(answer["mode"]) == "snapshot"
    assert answer["nodes"] == [([b"a"], 2), ([b"b"], 1)]
    assert answer["cursor"] == (RUN, 2)
    feeding.put(b"a", 3)
    feeding.put(b"a", 3)
    feeding.delete(b"a")
    reference = answer["subscription"]
    assert feeding.sent == [
        (Atom("kb_feed"), reference, [(3, Atom("created_or_updated"), [b"a"], 3)]),
        (Atom("kb_feed"), reference, [(4, Atom("deleted"), [b"a"])]),
    ]


def test_a_window_holds_back_what_was_not_acknowledged() -> None:
    feeding = Feeding()
    reference = feeding.subscribe(window=2)["subscription"]
    for number in range(5):
        feeding.put(f"{number}".encode(), 0)
    assert feeding.told() == [(1, b"0"), (2, b"1")]
    feeding.feed.acknowledge(reference, 1, PID)
    assert feeding.told()[2:] == [(3, b"2")]
    feeding.feed.acknowledge(reference, 3, PID)
    assert feeding.told()[3:] == [(4, b"3"), (5, b"4")]


def test_a_cursor_goes_on_where_it_was() -> None:
    feeding = Feeding()
    for number in range(3):
        feeding.put(f"{number}".encode(), 0)
    answer = feeding.subscribe(since=(RUN, 1))
    assert (str(answer["mode"]), answer["nodes"]) == ("resumed", [])
    assert feeding.told() == [(2, b"1"), (3, b"2")]
    assert str(feeding.subscribe(since=(b"another!", 1))["mode"]) == "snapshot"
    assert str(feeding.subscribe(since=(RUN, 4))["mode"]) == "snapshot"


def test_who_falls_behind_the_ring_is_told_of_a_gap() -> None:
    feeding = Feeding(ring=3)
    reference = feeding.subscribe(window=1)["subscription"]
    for number in range(5):
        feeding.put(b"a", number)
    assert feeding.sent[-1] == (Atom("kb_feed_gap"), reference)
    feeding.put(b"a", 9)
    assert len(feeding.sent) == 2
    assert str(feeding.subscribe(since=(RUN, 2))["mode"]) == "snapshot"
    assert str(feeding.subscribe(since=(RUN, 3))["mode"]) == "resumed"


def test_a_subscription_ends_when_it_is_ended_or_nobody_listens() -> None:
    feeding = Feeding()
    reference = feeding.subscribe()["subscription"]
    feeding.feed.unsubscribe(reference, Pid(NODE, 2, 0, 1))
    feeding.put(b"a", 1)
    feeding.feed.unsubscribe(reference, PID)
    feeding.put(b"a", 2)
    assert len(feeding.sent) == 1
    feeding.subscribe()
    feeding.listens = False
    feeding.put(b"a", 3)
    feeding.put(b"a", 4)
    assert len(feeding.sent) == 2


def test_only_what_is_watched_is_told() -> None:
    feeding = Feeding()
    feeding.subscribe(patterns=(b"/a", b"/b*"))
    for name in (b"a", b"ab", b"bc"):
        feeding.put(name, 1)
    assert feeding.told() == [(1, b"a"), (3, b"bc")]


def test_what_is_no_subscription_is_refused() -> None:
    feeding = Feeding()
    with pytest.raises(RefusedError, match="window 1 to 10000"):
        feeding.subscribe(window=0)
    with pytest.raises(RefusedError, match="acknowledge takes"):
        feeding.feed.acknowledge(1, 1, PID)
    with pytest.raises(RefusedError, match="unsubscribe takes"):
        feeding.feed.unsubscribe(1, PID)
    feeding.feed.acknowledge(Reference(NODE, 1, (9,)), 1, PID)
    for _ in range(MAX_SUBSCRIBERS):
        feeding.subscribe()
    with pytest.raises(RefusedError) as caught:
        feeding.subscribe()
    assert caught.value.reason == "too_large"
