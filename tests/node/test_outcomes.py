"""Which exception a remote outcome is, and which term a Python exception is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import (
    DeadlineError,
    NodeDownError,
    RemoteExitedError,
    RemoteRaisedError,
    RemoteRefusedError,
    RemoteThrewError,
)
from bridge.etf import Atom, Reference
from bridge.node.outcomes import (
    MAX_MESSAGE_CHARACTERS,
    erpc_failure,
    erpc_reply,
    erpc_result,
    error_reason,
    exit_reason,
    refused,
    rpc_error,
    rpc_failure,
)

_TAG = Reference(Atom("me@h"), 1, (1, 2, 3))
_STACK: list[Any] = [(Atom("m"), Atom("f"), 2, [])]
_EXIT = Atom("EXIT")
_terms = st.recursive(
    st.integers() | st.binary(max_size=4) | st.sampled_from([Atom("a"), Atom("undef"), Atom("EXIT")]),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("reason", "error", "kept"),
    [
        ((_EXIT, (Atom("badarg"), _STACK)), RemoteRaisedError, Atom("badarg")),
        ((_EXIT, (Atom("badarg"), [])), RemoteExitedError, (Atom("badarg"), [])),
        ((_EXIT, (Atom("badarg"), [1])), RemoteExitedError, (Atom("badarg"), [1])),
        ((_EXIT, Atom("stone")), RemoteExitedError, Atom("stone")),
        (Atom("notsup"), RemoteRefusedError, Atom("notsup")),
    ],
)
def test_badrpc_is_what_the_function_did(reason: Any, error: type[Exception], kept: Any) -> None:
    caught = rpc_error("hs1@h", "m:f/2", reason)
    assert type(caught) is error
    assert caught.reason == kept  # type: ignore[attr-defined]
    assert "hs1@h" in str(caught)
    assert "m:f/2" in str(caught)


def test_badrpc_of_the_node_itself() -> None:
    assert isinstance(rpc_error("hs1@h", "m:f/2", Atom("nodedown")), NodeDownError)
    assert isinstance(rpc_error("hs1@h", "m:f/2", Atom("timeout")), DeadlineError)


@given(_terms)
def test_every_reason_of_an_erpc_process_is_a_result_or_one_of_the_errors(reason: Any) -> None:
    for end in (reason, (_TAG, Atom("return"), reason), (_TAG, reason), (_TAG, Atom("error"), reason)):
        try:
            assert erpc_result("hs1@h", "m:f/2", _TAG, end) == reason
            assert end == (_TAG, Atom("return"), reason)
        except (RemoteRaisedError, RemoteThrewError, RemoteExitedError, RemoteRefusedError, NodeDownError):
            pass


@given(_terms)
def test_what_a_function_does_here_is_what_its_caller_gets_there(reason: Any) -> None:
    assert erpc_result("h", "c", _TAG, erpc_reply(_TAG, reason)) == reason
    for error in (
        RemoteRaisedError("", reason=reason, stack=_STACK),
        RemoteThrewError("", reason=reason),
        RemoteExitedError("", reason=reason),
    ):
        with pytest.raises(type(error)) as caught:
            erpc_result("h", "c", _TAG, erpc_failure(_TAG, error, []))
        assert caught.value.reason == reason


def test_erpcs_own_failures_are_told_from_the_functions() -> None:
    own = (_TAG, Atom("error"), (Atom("erpc"), Atom("system_limit")))
    with pytest.raises(RemoteRefusedError, match="system_limit"):
        erpc_result("h", "c", _TAG, own)
    with pytest.raises(NodeDownError):
        erpc_result("h", "c", _TAG, Atom("noconnection"))
    with pytest.raises(RemoteExitedError, match="killed") as caught:
        erpc_result("h", "c", _TAG, Atom("killed"))
    assert caught.value.reason is Atom("killed")
    assert isinstance(refused("h", "c", Atom("noconnection")), NodeDownError)
    assert "runs no function" in str(refused("h", "c", Atom("notsup")))


def test_a_python_exception_is_an_error_with_its_class_and_text() -> None:
    reason = (Atom("python"), b"ValueError", b"no")
    assert error_reason(ValueError("no")) == reason
    assert erpc_failure(_TAG, ValueError("no"), _STACK) == (_TAG, Atom("error"), reason, _STACK)
    assert rpc_failure(ValueError("no"), _STACK) == (Atom("badrpc"), (_EXIT, (reason, _STACK)))
    assert exit_reason(ValueError("no")) == (reason, [])
    long = error_reason(ValueError("\udc80" + "x" * 10_000))
    assert len(long[2]) == MAX_MESSAGE_CHARACTERS


def test_rpc_gives_a_thrown_term_as_a_result_and_an_exit_as_badrpc() -> None:
    assert rpc_failure(RemoteThrewError("", reason=7), _STACK) == 7
    assert rpc_failure(RemoteExitedError("", reason=7), _STACK) == (Atom("badrpc"), (_EXIT, 7))
    raised = RemoteRaisedError("", reason=7, stack=_STACK)
    assert rpc_failure(raised, []) == (Atom("badrpc"), (_EXIT, (7, _STACK)))
    assert exit_reason(RemoteExitedError("", reason=Atom("normal"))) is Atom("normal")


def test_an_exception_whose_text_cannot_be_told_is_told_by_its_arguments() -> None:
    kind, name, text = error_reason(KeyError(10**5_000, b"x"))
    assert (kind, name) == (Atom("python"), b"KeyError")
    assert text == b"(<an integer of 16610 bits>, b'x')"
