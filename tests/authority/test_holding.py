import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bridge.authority.holding import Holdings, Phase
from bridge.errors import InvalidStateError


def test_a_grant_with_its_release_is_acted_on() -> None:
    holdings = Holdings()
    assert holdings.grant("ball", 5).phase is Phase.HOLDING
    assert [h.entity for h in holdings.held()] == ["ball"]


def test_a_grant_whose_release_is_due_is_not_acted_on_until_that_release_came() -> None:
    holdings = Holdings()
    holdings.wait("ball", 6, awaited=5)
    assert holdings.held() == []
    with pytest.raises(InvalidStateError, match="no release of 4"):
        holdings.receive_release("ball", 6, 4)
    with pytest.raises(InvalidStateError, match="no release of 5 for 7"):
        holdings.receive_release("ball", 7, 5)
    assert holdings.receive_release("ball", 6, 5).phase is Phase.HOLDING
    with pytest.raises(InvalidStateError):
        holdings.receive_release("ball", 6, 5)


def test_what_was_stopped_is_no_longer_held_and_resumes_only_on_a_refusal() -> None:
    holdings = Holdings()
    holdings.grant("ball", 5)
    holdings.stop("ball")
    assert holdings.held() == []
    with pytest.raises(InvalidStateError):
        holdings.stop("ball")
    assert holdings.resume("ball").epoch == 5
    with pytest.raises(InvalidStateError, match="nothing to resume"):
        holdings.resume("ball")


def test_an_old_grant_is_refused() -> None:
    holdings = Holdings()
    holdings.grant("ball", 5)
    holdings.stop("ball")
    holdings.follow("ball", 6)
    with pytest.raises(InvalidStateError, match="a grant of 5 after 6"):
        holdings.grant("ball", 5)
    with pytest.raises(InvalidStateError):
        holdings.wait("ball", 5, awaited=4)
    assert holdings.follow("ball", 3).epoch == 6


def test_what_is_no_more_is_not_held() -> None:
    holdings = Holdings()
    for number, entity in enumerate(("ball", "cup", "net")):
        holdings.grant(entity, number + 1)
    holdings.forget("ball")
    assert list(holdings.names_held) == [holding.entity for holding in holdings.held()] == ["cup", "net"]


def test_an_unknown_entity_is_followed_at_epoch_zero() -> None:
    assert (Holdings()["cup"].phase, Holdings()["cup"].epoch) == (Phase.FOLLOWING, 0)


class TwoServers(RuleBasedStateMachine):
    """Two honest servers and a homeserver that orders grants: never both hold (R0-41)."""

    def __init__(self) -> None:
        super().__init__()
        self.servers = (Holdings(), Holdings())
        self.servers[0].grant("ball", 1)
        self.epoch, self.holder = 1, 0
        self.due: int | None = None

    @rule()
    def push(self) -> None:
        giver, taker = self.servers[self.holder], self.servers[1 - self.holder]
        if giver["ball"].phase is not Phase.HOLDING:
            return
        giver.stop("ball")
        self.epoch += 1
        giver.follow("ball", self.epoch)
        taker.grant("ball", self.epoch)
        self.holder = 1 - self.holder

    @rule()
    def pull(self) -> None:
        if self.due is not None:
            return
        self.epoch += 1
        self.holder = 1 - self.holder
        self.servers[self.holder].wait("ball", self.epoch, awaited=self.epoch - 1)
        self.due = self.epoch

    @rule()
    def release(self) -> None:
        if self.due is None:
            return
        giver, taker = self.servers[1 - self.holder], self.servers[self.holder]
        giver.stop("ball")
        giver.follow("ball", self.due)
        taker.receive_release("ball", self.due, self.due - 1)
        self.due = None

    @rule(epoch=st.integers(0, 50))
    def hear_old_news(self, epoch: int) -> None:
        if epoch < self.epoch - 1:
            self.servers[self.holder].follow("ball", epoch)

    @invariant()
    def never_two_hold(self) -> None:
        assert sum(len(server.held()) for server in self.servers) <= 1

    @invariant()
    def those_held_are_those_in_that_phase(self) -> None:
        for server in self.servers:
            ball = server["ball"]
            assert server.held() == ([ball] if ball.phase is Phase.HOLDING else [])
            assert list(server.names_held) == [holding.entity for holding in server.held()]


TestTwoServers = TwoServers.TestCase


def test_a_wait_turns_to_an_older_holder_or_ends_when_the_awaited_session_ended() -> None:
    holdings = Holdings()
    holdings.wait("ball", 9, 8)
    assert holdings.wait_anew("ball", 9, 5).awaited == 5
    with pytest.raises(InvalidStateError, match="no release of 8"):
        holdings.receive_release("ball", 9, 8)
    assert holdings.wait_no_more("ball", 9).phase is Phase.HOLDING
    with pytest.raises(InvalidStateError, match="nothing is awaited"):
        holdings.wait_no_more("ball", 9)
    with pytest.raises(InvalidStateError, match="nothing is awaited"):
        holdings.wait_anew("ball", 9, 5)


def test_a_wait_of_another_epoch_is_not_ended() -> None:
    holdings = Holdings()
    holdings.wait("ball", 9, 8)
    with pytest.raises(InvalidStateError, match="nothing is awaited for 7"):
        holdings.wait_no_more("ball", 7)
    assert holdings.held() == []
