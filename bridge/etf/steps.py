"""Where a decoder stops in the middle of a term, to go on later.

A large term is decoded in steps, so that nothing else has to wait for all of it. What ends a step is the
budget of elements that the decoder counts down anyway: one that decodes at once pays nothing for this.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import repeat
from typing import Any, Final

from bridge.errors import PeerLimitError
from bridge.etf.limits import TermLimits

STEP: Final = 8_192
"""elements of a step: one to two milliseconds, and some 60 KiB of what a store answers"""
PART: Final = 2
"""what is open where a step ends among the elements of a container; its tag is kept beside"""

Place = tuple[int, int, int, int, bool, list[Any], int, list[Any], Iterator[None]]
"""the decoder's position, room, unseen atoms, watched depth, wariness, stack, and of what is open kind, items
and those left"""


class Steps:
    """Budget and place of a decoder between two steps.

    Args:
        place: where the first step begins, with no room.
        limits: what the term may ask for.
        size: elements of a step.

    Attributes:
        size: as given.
        place: where the next step begins.
        building: makes the map whose items are all there, where one is too large for a step.
    """

    __slots__ = ("_limits", "_parts", "_reserve", "building", "place", "size")

    def __init__(self, place: Place, limits: TermLimits, size: int) -> None:
        self.size = size
        self.place = place
        self.building: Generator[None, None, Any] | None = None
        self._limits = limits
        self._reserve = limits.max_elements
        # Of each container that is open in parts, tag and elements that are left; inner ones last.
        self._parts: list[tuple[int, int]] = []

    def grant(self, room: int) -> int:
        """Room for the elements of the next step, in place of what is left of the last one's."""
        self._reserve += room
        granted = min(self.size, self._reserve)
        self._reserve -= granted
        return granted

    def overdraw(self, room: int) -> int:
        """The room that is left where a container took more than there was: none.

        Raises:
            PeerLimitError: the term has more than ``max_elements``.
        """
        self._reserve += room
        if self._reserve < 0:
            raise PeerLimitError("max_elements", self._limits.max_elements, "elements")
        return 0

    def pause_in(self, count: int, place: Place) -> tuple[Any, int]:
        """End the step before ``count`` elements of what is open, whose room is overdrawn.

        Returns:
            What the decoder returns for a term that is not whole.

        Raises:
            PeerLimitError: as ``overdraw``.
        """
        pos, room, unseen, watched, wary, stack, kind, items, left = place
        room = self.overdraw(room)
        size = self.size
        if count > size:
            self._parts.append((kind, count - size))
            kind, left = PART, repeat(None, size)
        self.place = (pos, room, unseen, watched, wary, stack, kind, items, left)
        return None, -1

    def pause_after_part(self, place: Place) -> tuple[Any, int]:
        """End the step after a part of the elements of what is open; returns as ``pause_in``."""
        pos, room, unseen, watched, wary, stack, _, items, _ = place
        kind, count = self._parts.pop()
        size = self.size
        if count > size:
            self._parts.append((kind, count - size))
            kind, count = PART, size
        self.place = (pos, room, unseen, watched, wary, stack, kind, items, repeat(None, count))
        return None, -1

    def pause_building(self, building: Generator[None, None, Any], place: Place) -> tuple[Any, int]:
        """End the step where all items of a large map are there; returns as ``pause_in``."""
        self.building = building
        self.place = place
        return None, -1

    def build(self) -> None:
        """Go on making the map; once it stands, the next step begins after it.

        Raises:
            DecodeError: a key occurs twice.
        """
        assert self.building is not None
        try:
            next(self.building)
        except StopIteration as end:
            pos, room, unseen, watched, wary, stack, *_ = self.place
            kind, items, left = stack.pop()
            items.append(end.value)
            self.place = (pos, room, unseen, watched, wary, stack, kind, items, left)
            self.building = None
