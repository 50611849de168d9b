from __future__ import annotations

import pytest

from bridge.errors import SignatureError
from bridge.homeserver.rest.issuing import refusing
from bridge.homeserver.rest.problems import ProblemError, as_problem


def test_what_does_not_hold_ends_as_the_problem_that_was_named() -> None:
    with pytest.raises(ProblemError, match="bent") as caught, refusing("bad_proof"):
        raise SignatureError("bent")
    assert caught.value.kind == "bad_proof"


def test_what_the_signer_refuses_is_not_the_callers_fault() -> None:
    assert as_problem(SignatureError("too many")).kind == "not_signed"
