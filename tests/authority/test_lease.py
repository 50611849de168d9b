import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.authority.lease import Lease
from bridge.errors import ConfigurationError

L, X = 3_000, 500
SESSION = b"s" * 16


def lease() -> Lease:
    return Lease(SESSION, L, margin_ns=X)


def test_nothing_may_be_done_before_the_first_acknowledgement() -> None:
    new = lease()
    assert new.is_over(0)
    new.renewal(100)
    assert new.is_over(100)


def test_a_lease_counts_from_before_its_renewal_was_sent_and_is_left_a_margin_before_its_end() -> None:
    held = lease()
    number = held.renewal(1_000)
    assert held.acknowledged(number)
    assert held.acts_until_ns == 1_000 + L - X
    assert not held.is_over(3_499)
    assert held.is_over(3_500)


def test_an_acknowledgement_takes_all_earlier_renewals_with_it_and_counts_once() -> None:
    held = lease()
    first, second = held.renewal(0), held.renewal(500)
    assert held.acknowledged(second)
    assert not held.acknowledged(second)
    assert not held.acknowledged(first)
    assert held.acts_until_ns == 500 + L - X


def test_a_number_that_was_never_sent_is_no_news() -> None:
    held = lease()
    assert not held.acknowledged(1)
    assert held.acts_until_ns == 0


def test_a_lease_that_was_over_goes_on_with_the_next_acknowledgement() -> None:
    held = lease()
    assert held.acknowledged(held.renewal(0))
    assert held.is_over(10_000)
    assert held.acknowledged(held.renewal(10_000))
    assert not held.is_over(10_001)


def test_a_lost_session_stays_lost() -> None:
    held = lease()
    first, second = held.renewal(0), held.renewal(1)
    assert held.acknowledged(first)
    held.lose()
    assert held.is_over(2)
    assert not held.acknowledged(second)
    assert held.acts_until_ns == 0


def test_a_silent_lessor_costs_no_memory() -> None:
    held = lease()
    numbers = [held.renewal(turn * held.interval_ns) for turn in range(1_000)]
    assert not held.acknowledged(numbers[0])
    assert held.acknowledged(numbers[-1])


def test_a_lease_within_its_own_margin_is_refused_in_words() -> None:
    with pytest.raises(ConfigurationError, match="KB_LEASE_MS"):
        Lease(SESSION, 500, margin_ns=500)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2_000),  # until the next renewal
            st.integers(0, 5_000),  # to the lessor
            st.integers(0, 5_000),  # until its beat is submitted
            st.integers(0, 5_000),  # until the acknowledgement is here
            st.booleans(),  # whether it arrives at all
        ),
        min_size=1,
        max_size=30,
    )
)
def test_no_schedule_of_messages_lets_a_holder_act_after_its_lessor_could_have_ended_its_session(
    schedule: list[tuple[int, int, int, int, bool]],
) -> None:
    """The lessor counts L and a margin from the submission of a beat, the holder from before it sent."""
    held = lease()
    events: list[tuple[int, int, str, int]] = []
    now = 0
    for number, (pause, there, waits, back, arrives) in enumerate(schedule, start=1):
        now += pause
        events.append((now, number, "send", 0))
        if arrives:
            events.append((now + there + waits + back, number, "answer", now + there + waits))
    ends = 0  # at the lessor, of the newest beat that was acknowledged
    for at, number, kind, submitted in sorted(events, key=lambda event: (event[0], event[2] == "answer")):
        if kind == "send":
            assert held.renewal(at) == number
        else:
            # It acknowledges nothing once it could have ended the session.
            ends = max(ends, submitted + L)
            held.acknowledged(number)
            assert held.acts_until_ns + X <= ends
