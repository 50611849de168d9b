"""A member begins anew only when a start failed for what is on its disk."""

from __future__ import annotations

import pytest

from tests.nemesis.damage import is_unreadable

GAP = (
    "error State machine homeserver terminating. Reason: "
    "{corrupt_log,gap_between_snapshot_and_first_index,{20588,20713}}. Stack: [{ra_log,init,1,"
)
KEY = "error State machine homeserver terminating. Reason: {missing_key,4711}."
READY = "khepri_bridge: ready, with 3 members"


@pytest.mark.parametrize("said", [GAP, KEY], ids=["gap", "key"])
def test_a_start_that_fails_for_its_log_is_told(said: str) -> None:
    assert is_unreadable(f"starting\n{said}\nending with status 1\n")


@pytest.mark.parametrize("said", ["", "starting\nno room on the disk\n", f"starting\n{READY}\n{KEY}\n"])
def test_another_end_is_tried_again(said: str) -> None:
    assert not is_unreadable(said)
