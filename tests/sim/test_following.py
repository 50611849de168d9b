from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.sim.dataplane.messages import Command, Follow, Unfollow
from bridge.sim.following import Following
from bridge.sim.slots import Slots

names = st.sampled_from([f"e{number}" for number in range(8)])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("first"), names),
        st.tuples(st.just("gave"), names),
        st.tuples(st.just("show"), st.sets(names), st.sets(names)),
    ),
    max_size=30,
)


class Followed:
    """What the data plane follows."""

    def __init__(self, *, follow: int = 2, capacity: int = 64) -> None:
        self.now: set[str] = set()
        self.slots = Slots(server="sim1", capacity=capacity, follow=capacity)
        self.following = Following(slots=self.slots, follow=follow, tell=self.tell)

    def free(self, entity: str) -> None:
        """Another one needs its slot."""
        slot = self.slots.drop(entity)
        assert slot is not None
        self.slots.free(slot)

    def tell(self, command: Command) -> None:
        match command:
            case Follow(entity=entity):
                self.now.add(entity)
            case Unfollow(entity=entity):
                self.now.discard(entity)

    def show(self, *ghosts: str, held: tuple[str, ...] = ()) -> None:
        self.now.difference_update(held)
        self.following.show(set(ghosts), held=held)


def test_ghosts_have_a_budget_beside_that_of_the_first_ones_that_came() -> None:
    some = Followed()
    for entity in ("far", "away", "none"):
        some.following.first(entity)
    assert some.now == {"far", "away"}
    some.show("near", "here", "away")
    assert some.now == {"far", "away", "near", "here"}
    assert some.following.ghosts == {"near", "here", "away"}


def test_what_is_near_no_more_is_followed_no_more_unless_it_was_one_of_the_first() -> None:
    some = Followed(follow=1)
    some.following.first("far")
    some.show("near", "far")
    some.show()
    assert some.now == {"far"}


def test_what_was_held_is_followed_anew_after_it_was_given_away() -> None:
    some = Followed(follow=1)
    some.following.first("ball")
    some.show(held=("ball",))
    assert some.now == set()
    some.following.gave("ball")
    some.show("ball")
    assert some.now == some.following.ghosts == {"ball"}


def test_what_came_and_went_between_two_looks_is_followed_anew() -> None:
    some = Followed(follow=1)
    some.following.first("ball")
    some.now.clear()
    some.following.gave("ball")
    some.show("ball")
    assert some.now == {"ball"}


def test_without_room_nothing_is_followed() -> None:
    some = Followed(capacity=2)
    some.show("near", "here")
    assert len(some.now) == len(some.following.ghosts) == 1


@given(steps)
def test_the_data_plane_follows_the_ghosts_and_no_more_than_so_many_others(
    steps: list[tuple[str, str] | tuple[str, set[str], set[str]]],
) -> None:
    some = Followed()
    for step in steps:
        match step:
            case ("first", str() as entity):
                some.following.first(entity)
            case ("gave", str() as entity):
                some.now.discard(entity)
                some.following.gave(entity)
            case ("show", ghosts, held):
                assert isinstance(held, set)
                some.show(*(set(ghosts) - held), held=tuple(held))
                assert some.following.ghosts == set(ghosts) - held
        assert some.following.ghosts <= some.now
        assert len(some.now - some.following.ghosts) <= 2


def test_what_lost_its_slot_is_followed_anew_when_there_is_room() -> None:
    some = Followed(capacity=4)
    some.following.first("far")
    some.show("near")
    some.show("near", "more")
    assert some.following.ghosts == {"near"}
    for entity in ("far", "near"):
        assert some.slots.is_wanted(entity)
        some.free(entity)
        assert not some.slots.is_wanted(entity)
    assert some.following.ghosts == set()
    some.show("near")
    assert some.following.ghosts == {"near"}
