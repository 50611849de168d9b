from __future__ import annotations

import pytest

from bridge.errors import (
    AuthorityError,
    BridgeError,
    ConfigurationError,
    DeadlineError,
    HandshakeError,
    NodeDownError,
    OutcomeUnknownError,
    ProtocolError,
)
from bridge.etf import Atom
from bridge.homeserver.rest.problems import as_problem
from bridge.khepri import NoLeaderError, UnknownOutcomeError
from bridge.registry import ConflictError, NotHolderError


def _refusal(cls: type[AuthorityError], reason: str) -> AuthorityError:
    return cls(reason, reason=Atom(reason))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_refusal(ConflictError, "conflict"), "conflict"),
        (_refusal(NotHolderError, "no_session"), "no_session"),
        (_refusal(AuthorityError, "something_new"), "refused"),
        (_refusal(AuthorityError, "reserved_name"), "reserved_name"),
        (ConfigurationError("a name has 1 to 255 bytes"), "invalid_request"),
        (OutcomeUnknownError("late"), "outcome_unknown"),
        (UnknownOutcomeError("forgotten", reason=Atom("outcome_unknown")), "outcome_forgotten"),
        (NoLeaderError("no leader", reason=Atom("no_leader")), "unavailable"),
        (DeadlineError("late"), "unavailable"),
        (NodeDownError("a@b"), "unavailable"),
        (HandshakeError("cookie"), "unavailable"),
    ],
)
def test_each_error_is_a_problem_of_its_kind(error: BridgeError, kind: str) -> None:
    assert as_problem(error).kind == kind


def test_what_may_pass_says_when_to_ask_again() -> None:
    assert as_problem(DeadlineError("late")).headers == {"Retry-After": "1"}


def test_a_refusal_tells_what_the_homeserver_said_of_it_and_no_more() -> None:
    props = {"winner": b"Player2", "epoch": 1 << 60, "session": b"secret", "member": Atom("owner")}
    error = ConflictError("conflict", reason=Atom("conflict"), props=props)
    assert as_problem(error).members == {"winner": "Player2", "epoch": str(1 << 60), "member": "owner"}


def test_a_defect_shows_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    shown = as_problem(ProtocolError("the cookie is secret"))
    assert (shown.kind, "secret" in str(shown)) == ("internal", False)
    assert "unexpected error" in caplog.text
