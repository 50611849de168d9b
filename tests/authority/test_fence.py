from hypothesis import given
from hypothesis import strategies as st

from bridge.authority.fence import Fence, Verdict


def test_a_late_ex_owner_is_refused() -> None:
    """R0-33: after the hand-over only the new owner's updates are accepted."""
    fence = Fence()
    fence.raise_to("ball", 7, "old")
    assert fence.judge("ball", 7, "old") is Verdict.ACCEPTED
    fence.raise_to("ball", 8, "new")
    assert fence.judge("ball", 7, "old") is Verdict.LATE
    assert fence.judge("ball", 8, "new") is Verdict.ACCEPTED


def test_state_from_another_key_than_the_holders_is_foreign() -> None:
    fence = Fence()
    fence.raise_to("ball", 7, "holder")
    assert fence.judge("ball", 7, "thief") is Verdict.FOREIGN


def test_a_claim_to_an_epoch_the_homeserver_has_not_told_is_early() -> None:
    fence = Fence()
    fence.raise_to("ball", 7, "holder")
    assert fence.judge("ball", 8, "holder") is Verdict.EARLY
    assert fence.judge("cup", 1, "holder") is Verdict.UNKNOWN


def test_nobody_may_speak_for_a_dormant_entity() -> None:
    fence = Fence()
    fence.raise_to("ball", 7, "")
    assert fence.judge("ball", 7, "holder") is Verdict.FOREIGN


def test_a_key_learned_after_the_grant_completes_it() -> None:
    fence = Fence()
    fence.raise_to("ball", 7, "")
    assert fence.raise_to("ball", 7, "holder")
    assert not fence.raise_to("ball", 7, "holder")
    assert fence.judge("ball", 7, "holder") is Verdict.ACCEPTED


@given(st.lists(st.tuples(st.integers(1, 50), st.sampled_from("abc"))))
def test_the_fence_never_goes_down(grants: list[tuple[int, str]]) -> None:
    fence, highest = Fence(), 0
    for epoch, key in grants:
        fence.raise_to("ball", epoch, key)
        highest = max(highest, epoch)
        assert fence.epoch("ball") == highest
        assert fence.judge("ball", highest - 1, key) is Verdict.LATE
