import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import DecodeError
from bridge.etf import Atom, Pid, decode_term, encode_term
from bridge.registry.lessor import Lost, Renewed, Streaming, lessor_message, renew, streams
from tests.support.terms import terms

SESSION = b"s" * 16
PID = Pid(Atom("sim1@127.0.0.1"), 1, 0, 1)


def test_a_renewal_names_its_number_the_tick_the_load_and_the_recalls_obeyed() -> None:
    term = renew(PID, session=SESSION, number=7, tick=420, load=3, obeyed=[("ball", 5)])
    assert term == (Atom("renew"), PID, SESSION, 7, 420, 3, [(b"ball", 5)])
    assert decode_term(encode_term(term)) == term


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (
            (Atom("renewed"), SESSION, 7, 2, [(b"ball", 5), (b"sack", 6)]),
            Renewed(SESSION, 7, 2, (("ball", 5), ("sack", 6))),
        ),
        ((Atom("lost"), SESSION), Lost(SESSION)),
        ((Atom("streaming"), 9, SESSION, [b"ball"]), Streaming(9, SESSION, ("ball",))),
    ],
)
def test_what_a_lessor_sends_is_read(term: Any, message: object) -> None:
    assert lessor_message(term) == message
    assert lessor_message(decode_term(encode_term(term))) == message


def test_an_answer_gives_the_questions_reference_back() -> None:
    question = Streaming(9, SESSION, ("ball", "sack"))
    answer = streams(question, load=2, entities=["sack"], released=[("ball", 5)])
    assert answer == (Atom("streams"), 9, SESSION, 2, [b"sack"], [(b"ball", 5)])


@pytest.mark.parametrize(
    "term",
    [
        Atom("renewed"),
        (Atom("lost"), SESSION, 1),
        (Atom("lots"), SESSION),
        (Atom("renewed"), SESSION, 1, 1, [b"ball"]),
        (Atom("streaming"), 9, SESSION, [Atom("ball")]),
    ],
)
def test_anything_else_is_refused(term: Any) -> None:
    with pytest.raises(DecodeError):
        lessor_message(term)


@given(terms)
def test_no_term_ends_the_reader_otherwise(term: Any) -> None:
    with contextlib.suppress(DecodeError):
        lessor_message(term)


@given(st.binary(max_size=8))
def test_a_name_that_is_no_text_is_read_with_marks(name: bytes) -> None:
    message = lessor_message((Atom("streaming"), 1, SESSION, [name]))
    assert isinstance(message, Streaming)
    assert message.entities == (name.decode(errors="replace"),)
