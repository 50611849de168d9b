from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import DecodeError, LimitExceededError
from bridge.homeserver.signer.messages import (
    LENGTH_BYTES,
    MAX_FRAME_BYTES,
    Answer,
    AskKeys,
    AskStatus,
    Keys,
    Question,
    Refused,
    Sign,
    Signed,
    Status,
    decode_answer_untrusted,
    decode_question_untrusted,
    encode_frame,
    frame_length_untrusted,
)

QUESTIONS: list[Question] = [Sign(typ="kb-access+jwt", claims=b"{}"), AskKeys(), AskStatus()]
ANSWERS: list[Answer] = [
    Signed(token="a.b.c"),
    Keys(keys=("{}",)),
    Status(instance="emerald", signed={"a": 1}, refused=0),
    Refused(reason="no"),
]


def test_messages_read_back() -> None:
    for question in QUESTIONS:
        frame = encode_frame(question)
        assert frame_length_untrusted(frame[:LENGTH_BYTES]) == len(frame) - LENGTH_BYTES
        assert decode_question_untrusted(frame[LENGTH_BYTES:]) == question
    for answer in ANSWERS:
        assert decode_answer_untrusted(encode_frame(answer)[LENGTH_BYTES:]) == answer


def test_an_answer_is_no_question() -> None:
    with pytest.raises(DecodeError):
        decode_question_untrusted(encode_frame(ANSWERS[0])[LENGTH_BYTES:])
    with pytest.raises(DecodeError):
        decode_answer_untrusted(encode_frame(QUESTIONS[0])[LENGTH_BYTES:])


@given(st.binary(max_size=64))
def test_junk_raises_nothing_else(junk: bytes) -> None:
    for decode in (decode_question_untrusted, decode_answer_untrusted):
        try:
            decode(junk)
        except DecodeError:
            continue


def test_frames_are_bounded_both_ways() -> None:
    assert frame_length_untrusted(MAX_FRAME_BYTES.to_bytes(4)) == MAX_FRAME_BYTES
    with pytest.raises(LimitExceededError):
        frame_length_untrusted((MAX_FRAME_BYTES + 1).to_bytes(4))
    with pytest.raises(LimitExceededError):
        encode_frame(Sign(typ="a", claims=bytes(MAX_FRAME_BYTES)))
