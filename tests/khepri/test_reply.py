import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import (
    ClosedError,
    DeadlineError,
    HandshakeError,
    KhepriError,
    NodeDownError,
    OutcomeUnknownError,
    ProtocolError,
    RemoteError,
)
from bridge.etf import Atom
from bridge.khepri import (
    InvalidRequestError,
    NodeNotFoundError,
    StoreTimeoutError,
    StoreUnavailableError,
    TransactionAbortedError,
    UnknownKhepriError,
    UnknownOutcomeError,
)
from bridge.khepri.reply import _BY_REASON, is_transient, khepri_error, unwrap
from tests.support.terms import terms

OK, ERROR = Atom("ok"), Atom("error")


def refusal(reason: str, **props: object) -> object:
    return (ERROR, (Atom(reason), {Atom(name): value for name, value in props.items()}))


@given(terms)
def test_the_value_of_an_ok_comes_through_untouched(value: object) -> None:
    assert unwrap((OK, value)) is value


def test_a_refusal_is_the_class_of_its_reason_and_keeps_what_was_said() -> None:
    with pytest.raises(NodeNotFoundError) as caught:
        unwrap(refusal("node_not_found", message=b"no node at this path", path=[Atom("stock")]))
    assert str(caught.value) == "node_not_found: no node at this path"
    assert caught.value.reason == Atom("node_not_found")
    assert caught.value.props["path"] == [Atom("stock")]


def test_a_reason_of_a_newer_homeserver_is_kept_as_it_came() -> None:
    with pytest.raises(UnknownKhepriError) as caught:
        unwrap(refusal("melted", degrees=90))
    assert (str(caught.value), caught.value.props) == ("melted", {"degrees": 90})


def test_a_message_that_is_no_text_does_not_hide_the_reason() -> None:
    assert str(khepri_error(Atom("aborted"), {Atom("message"): b"\xff"})) == "aborted: \ufffd"
    assert str(khepri_error(Atom("aborted"), {Atom("message"): 7})) == "aborted: 7"


@given(terms)
def test_any_answer_is_a_value_a_refusal_or_a_broken_protocol(answer: object) -> None:
    with contextlib.suppress(KhepriError, ProtocolError):
        unwrap(answer)


@given(st.sampled_from(sorted(_BY_REASON)))
def test_every_reason_has_a_class_of_the_one_tree(reason: str) -> None:
    error = khepri_error(Atom(reason), {})
    assert isinstance(error, KhepriError | RemoteError)
    assert not isinstance(error, UnknownKhepriError)


def test_every_reason_has_a_class_of_its_own() -> None:
    assert len(set(_BY_REASON.values())) == len(_BY_REASON)


def test_the_classes_cover_the_reasons_of_the_protocol() -> None:
    text = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    listed = re.search(r"^### Reasons\n(.*?), and those of §7", text, re.DOTALL | re.MULTILINE)
    assert listed is not None
    named = set(re.findall(r"`([a-z_]+)`", re.sub(r"\(.*?\)", "", listed[1])))
    assert named <= set(_BY_REASON)


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (khepri_error(Atom("no_leader"), {}), True),
        (khepri_error(Atom("store_not_running"), {}), True),
        (khepri_error(Atom("timeout"), {}), True),
        (NodeDownError("hs1@127.0.0.1"), True),
        (DeadlineError("late"), True),
        (OutcomeUnknownError("late"), True),
        (HandshakeError("refused"), True),
        (khepri_error(Atom("poison"), {}), False),
        (khepri_error(Atom("outcome_unknown"), {}), False),
        (ClosedError("closed"), False),
        (ProtocolError("nonsense"), False),
    ],
)
def test_only_what_says_nothing_about_the_request_is_worth_repeating(
    error: Exception, transient: bool
) -> None:
    assert is_transient(error) is transient


def test_classes_tell_apart_who_must_act() -> None:
    assert _BY_REASON["aborted"] is TransactionAbortedError
    assert issubclass(_BY_REASON["invalid_path"], InvalidRequestError)
    assert _BY_REASON["timeout"] is StoreTimeoutError
    assert issubclass(_BY_REASON["no_leader"], StoreUnavailableError)
    assert _BY_REASON["outcome_unknown"] is UnknownOutcomeError
