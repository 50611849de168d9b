from __future__ import annotations

import pytest

from bridge.udp.draft import Draft
from bridge.udp.loss import Carried
from bridge.udp.wire import (
    MAX_FRAMES_BYTES,
)


def test_what_is_added_takes_room() -> None:
    draft = Draft()
    draft.add(b"ab")
    draft.add(b"cde")
    assert (draft.pieces, draft.size, draft.room) == ([b"ab", b"cde"], 5, MAX_FRAMES_BYTES - 5)


def test_frames_that_are_not_acknowledged_leave_nothing_to_remember() -> None:
    draft = Draft()
    draft.add(b"an acknowledgement")
    assert draft.carried is None


@pytest.mark.parametrize(
    ("field", "value", "carried"),
    [
        ("run", (0, 5), Carried(run=(0, 5))),
        ("states", [(1, 2)], Carried(states=((1, 2),))),
        ("fragments", [(3, 0, 9)], Carried(fragments=((3, 0, 9),))),
        ("is_pinging", True, Carried()),
    ],
)
def test_what_is_acknowledged_is_remembered(field: str, value: object, carried: Carried) -> None:
    draft = Draft()
    setattr(draft, field, value)
    assert draft.carried == carried
