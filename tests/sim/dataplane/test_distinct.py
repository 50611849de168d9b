from __future__ import annotations

from bridge.sim.dataplane.distinct import RECENT, Distinct


def test_a_message_that_comes_again_counts_once() -> None:
    seen = Distinct()
    for message in (b"a", b"b", b"a", b"c", b"b"):
        seen.add(message)
    assert seen.count == 3


def test_repetitions_are_noticed_among_the_newest_and_no_more_than_those_are_kept() -> None:
    seen = Distinct()
    messages = [number.to_bytes(4, "big") for number in range(2 * RECENT)]
    for message in messages:
        seen.add(message)
    assert (seen.count, len(seen._recent)) == (2 * RECENT, RECENT)
    for message in messages[RECENT:]:
        seen.add(message)
    assert seen.count == 2 * RECENT
