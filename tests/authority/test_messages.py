import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.authority.messages import (
    MAX_BORDER,
    MAX_BOX_BYTES,
    MAX_RELIEF,
    Accepted,
    Bind,
    Border,
    Offer,
    PeerMessage,
    Release,
    Released,
    Relief,
    Room,
    Update,
    decode_message_untrusted,
    decode_release_untrusted,
    encode_message,
    release_context,
)
from bridge.errors import DecodeError

TRACE = bytes(range(16))
EXAMPLES: list[PeerMessage] = [
    Released(trace=TRACE, hop=2, entity="ball", epoch=2**63, box="a.b"),
    Accepted(trace=TRACE, hop=2, entity="ball", epoch=9),
    Offer(trace=TRACE, hop=0, entity="ball", epoch=8, owner="Player1", box="a.b"),
    Bind(handle=65_535, entity="ball", epoch=1),
    Update(trace=TRACE, hop=0, entity="ball", epoch=2**63, by="P", velocity=(1.0, -2.5, 0.0), owner="Q"),
    Update(trace=TRACE, hop=0, entity="ball", epoch=1, by="P", velocity=(0.0, 0.0, 0.0)),
    Relief(entities=tuple(f"e{n}" for n in range(MAX_RELIEF))),
    Room(load=7, entities=()),
    Border(near=tuple((f"e{n}", n / 3) for n in range(MAX_BORDER)), more=True),
    Border(near=(), more=False),
]


@pytest.mark.parametrize("message", EXAMPLES)
def test_a_message_survives_the_wire(message: PeerMessage) -> None:
    assert decode_message_untrusted(encode_message(message)) == message


def test_a_release_survives_its_box() -> None:
    release = Release(entity="ball", epoch=7, state=bytes(26))
    assert decode_release_untrusted(encode_message(release)) == release


@pytest.mark.parametrize(
    "bad",
    [
        ["accepted", TRACE[:15], 0, "ball", 1],
        ["accepted", TRACE, -1, "ball", 1],
        ["accepted", TRACE, 65, "ball", 1],
        ["accepted", TRACE, 0, "", 1],
        ["accepted", TRACE, 0, "b" * 256, 1],
        ["accepted", TRACE, 0, "ball", -1],
        ["border", [["ball", -0.5]], False],
        ["border", [["", 0.5]], False],
        ["border", [["ball", 0.5]] * (MAX_BORDER + 1), False],
        ["bind", 65_536, "ball", 1],
        ["released", TRACE, 0, "ball", 1, "x" * (MAX_BOX_BYTES + 1)],
        ["update", TRACE, 0, "ball", 1, "P", [1.0, 2.0]],
        ["update", TRACE, 0, "ball", 1, "P", [1.0, 2.0, 3.0], ""],
        ["relief", ["e"] * (MAX_RELIEF + 1)],
        ["room", -1, []],
        ["nonsense"],
        [],
        {"type": "bind"},
    ],
)
def test_a_value_out_of_its_range_is_refused(bad: object) -> None:
    with pytest.raises(DecodeError):
        decode_message_untrusted(msgspec.msgpack.encode(bad))


def test_a_name_that_is_no_utf_8_is_refused() -> None:
    for kind in (EXAMPLES[1], Release(entity="ball", epoch=7, state=b"")):
        data = encode_message(kind).replace(b"ball", b"b\xffll")
        for decode in (decode_message_untrusted, decode_release_untrusted):
            with pytest.raises(DecodeError):
                decode(data)


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_raise_decode_error(data: bytes) -> None:
    for decode in (decode_message_untrusted, decode_release_untrusted):
        with contextlib.suppress(DecodeError):
            decode(data)


def test_deep_nesting_is_refused_without_exhausting_the_stack() -> None:
    with pytest.raises(DecodeError):
        decode_message_untrusted(b"\x91" * 100_000)


def test_a_releases_context_names_epoch_and_entity() -> None:
    assert release_context("ball:1", 7) == "7:ball:1"
