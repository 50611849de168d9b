from __future__ import annotations

import pytest

from bridge.authority import MAX_BORDER, Border, decode_message_untrusted
from bridge.registry import ServerRecord
from bridge.sim.dataplane.messages import SendMessage
from bridge.sim.following import Following
from bridge.sim.ghosts import Ghosts
from tests.support.sealing import SESSION, Bench, record


class Near(Bench):
    """A session that follows what is near it."""

    def __init__(self, budget: int | None = None) -> None:
        super().__init__()
        self.following = Following(slots=self.standing.slots, follow=0, tell=self.plane.tell)
        self.ghosts = Ghosts(
            standing=self.standing,
            following=self.following,
            budget=budget,
            reached=lambda server: server in self.plane.reached,
        )

    def hears(self, server: str, *near: tuple[str, float], now: float, more: bool = False) -> None:
        self.ghosts.take(server, Border(near=near, more=more), now=now)

    def told(self) -> list[Border]:
        sent = [c for c in self.plane.told if isinstance(c, SendMessage)]
        self.plane.told.clear()
        return [m for c in sent if isinstance(m := decode_message_untrusted(c.message), Border)]


def test_what_a_neighbour_tells_of_is_followed_until_a_while_after_it_does_not() -> None:
    here = Near()
    here.hears("sim2", ("ball", 3.0), ("sack", 1.0), now=0.0)
    assert here.following.ghosts == {"ball", "sack"}
    here.hears("sim2", ("sack", 1.0), now=10.0)
    assert here.following.ghosts == {"ball", "sack"}
    here.ghosts.settle(now=13.0)
    assert here.following.ghosts == {"sack"}


def test_a_list_counts_once_it_is_whole() -> None:
    here = Near()
    here.hears("sim2", ("ball", 3.0), now=0.0)
    here.hears("sim2", ("sack", 1.0), now=9.0, more=True)
    assert here.following.ghosts == {"ball"}
    here.hears("sim2", ("ball", 3.0), now=9.0)
    here.ghosts.settle(now=20.0)
    assert here.following.ghosts == {"ball", "sack"}


def test_the_nearest_of_all_neighbours_are_followed_as_far_as_the_budget_goes() -> None:
    here = Near(budget=2)
    here.hears("sim2", ("a", 3.0), ("b", 1.0), now=0.0)
    here.hears("sim3", ("c", 2.0), now=0.0)
    assert here.following.ghosts == {"b", "c"}


def test_what_a_dead_neighbour_told_of_last_is_followed_until_somebody_else_has_it() -> None:
    here = Near()
    here.standing.entities["ball"] = record(1)
    here.hears("sim2", ("ball", 3.0), now=0.0)
    here.ghosts.settle(now=100.0)
    assert here.following.ghosts == {"ball"}
    here.standing.entities["ball"] = record(2, server="sim3")
    here.ghosts.settle(now=101.0)
    assert here.following.ghosts == {"ball"}
    here.ghosts.settle(now=104.0)
    assert here.following.ghosts == set()


def test_what_was_given_away_is_seen_from_that_moment_on_and_what_is_held_is_no_ghost() -> None:
    """R0-A5: the giver is not blind while the entity is in flight."""
    here = Near()
    here.standing.entities["ball"] = record(1, server="sim1", session=SESSION)
    here.standing.holdings.grant("ball", 1)
    here.hears("sim2", ("ball", 3.0), now=0.0)
    assert here.following.ghosts == set()
    here.standing.holdings.stop("ball")
    here.standing.holdings.follow("ball", 2)
    here.ghosts.keep("ball", "sim2", now=1.0)
    assert here.following.ghosts == {"ball"}
    # Its taker's list comes before the feed, and again after it.
    here.hears("sim2", ("ball", 1.0), now=1.6)
    here.standing.entities["ball"] = record(2)
    here.hears("sim2", ("ball", 1.0), now=2.6)
    here.ghosts.settle(now=9.0)
    assert here.following.ghosts == {"ball"}


def test_what_is_on_its_way_here_goes_on_to_be_seen_until_it_is_held() -> None:
    """R0-A5: the taker is not blind while the entity is in flight."""
    here = Near()
    here.hears("sim2", ("ball", 3.0), now=0.0)
    for entity in ("ball", "sack"):
        here.standing.entities[entity] = record(2, entity=entity, server="sim1", session=SESSION)
    here.hears("sim2", ("ball", 3.0), ("sack", 3.0), now=0.1)
    assert here.following.ghosts == {"ball"}
    here.standing.holdings.grant("ball", 2)
    here.ghosts.settle(now=0.2)
    assert here.following.ghosts == set()


def test_neighbours_are_told_what_is_near_them_when_it_is_news_and_again_after_a_while() -> None:
    here = Near()
    here.ghosts.tell("sim2", [("ball", 3.0)], now=0.0)
    assert here.told() == []
    here.plane.reached.add("sim2")
    here.ghosts.tell("sim2", [], now=0.1)
    assert here.told() == []
    here.ghosts.tell("sim2", [("ball", 3.0)], now=0.2)
    assert here.told() == [Border(near=(("ball", 3.0),), more=False)]
    here.ghosts.tell("sim2", [("ball", 2.0)], now=0.5)
    assert here.told() == []
    here.ghosts.tell("sim2", [("ball", 2.0)], now=1.5)
    assert here.told() == [Border(near=(("ball", 2.0),), more=False)]
    here.ghosts.tell("sim2", [], now=1.6)
    assert here.told() == [Border(near=(), more=False)]
    here.ghosts.tell("sim2", [], now=9.0)
    assert here.told() == []


def test_a_neighbour_that_began_anew_is_told_all_anew() -> None:
    here = Near()
    here.plane.reached.add("sim2")
    for session in (b"o" * 16, b"p" * 16):
        here.standing.servers.learn(
            ServerRecord(
                server="sim2", session=session, key=b"{}", thumbprint="t", host="127.0.0.1", port=4000
            )
        )
        here.ghosts.tell("sim2", [("ball", 3.0)], now=0.0)
        assert len(here.told()) == 1


@pytest.mark.parametrize(("count", "parts"), [(MAX_BORDER, 1), (MAX_BORDER + 1, 2)])
def test_a_long_list_takes_more_messages(count: int, parts: int) -> None:
    here = Near()
    here.plane.reached.add("sim2")
    near = [(f"e{number}", float(number)) for number in range(count)]
    here.ghosts.tell("sim2", near, now=0.0)
    told = here.told()
    assert [one.more for one in told] == [True] * (parts - 1) + [False]
    assert [pair for one in told for pair in one.near] == near


def test_a_neighbour_that_lists_more_than_there_is_room_for_is_not_believed_all_of_it() -> None:
    here = Near()
    for _ in range(3):
        here.hears("sim2", *((f"e{n}", 1.0) for n in range(MAX_BORDER)), now=0.0, more=True)
    here.hears("sim2", now=0.0)
    assert len(here.following.ghosts) <= 4
