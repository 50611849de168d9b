import hashlib

import numpy as np
import pytest

from bridge.replication.bindings import Bindings
from bridge.replication.records import Records, full_records
from bridge.replication.world import WorldState
from tests.support.states import together

SESSION = bytes(range(16))


def records(*handles: int) -> Records:
    some = together([WorldState(tick=1, position=np.zeros(3), velocity=np.zeros(3)) for _ in handles])
    return full_records(np.array(handles), np.zeros(len(handles)), some)[None, :]


def bound(**changed: object) -> Bindings:
    told = {"handle": 7, "entity": "ball", "epoch": 2**48 + 5, "session": SESSION} | changed
    bindings = Bindings()
    bindings.bind(9, "cup", 1, SESSION)
    bindings.bind(**told)  # type: ignore[arg-type]
    return bindings


def test_two_sides_that_agree_have_one_digest_whatever_the_order_of_the_records() -> None:
    digests = bound().digests(records(7, 9))
    assert digests.shape == (1, 16)
    assert bound().match(records(9, 7, 7), digests).tolist() == [True]


@pytest.mark.parametrize(
    "changed", [{"handle": 8}, {"entity": "bowl"}, {"epoch": 5}, {"session": bytes(16)}, {"epoch": 2**48 + 6}]
)
def test_whoever_understood_a_bind_otherwise_refuses_the_payload(changed: dict[str, object]) -> None:
    digests = bound().digests(records(7, 9))
    assert bound(**changed).match(records(7, 9), digests).tolist() == [False]


def test_only_the_handles_in_a_payload_count() -> None:
    digests = bound().digests(records(9))
    assert bound(entity="bowl").match(records(9), digests).tolist() == [True]


def test_a_handle_never_bound_has_a_token_of_zeros_also_beyond_the_table() -> None:
    bindings = Bindings()
    zeros = hashlib.sha256(bytes(32)).digest()[:16]
    assert bindings.digests(records(3, 65_535)).tobytes() == zeros
    bindings.bind(65_535, "ball", 1, SESSION)
    assert bindings.digests(records(3, 65_535)).tobytes() != zeros


def test_a_digest_is_what_the_protocol_says() -> None:
    """``docs/protocol.md`` §6."""
    tokens = [
        hashlib.sha256(
            (7).to_bytes(2, "big") + (2**48 + 5).to_bytes(8, "big") + b"\x10" + SESSION + b"ball"
        ).digest()[:16],
        hashlib.sha256((9).to_bytes(2, "big") + (1).to_bytes(8, "big") + b"\x10" + SESSION + b"cup").digest()[
            :16
        ],
    ]
    assert bound().digests(records(9, 7)).tobytes() == hashlib.sha256(b"".join(tokens)).digest()[:16]
