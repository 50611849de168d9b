import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import DecodeError
from bridge.replication.last_state import decode_state_untrusted, encode_state, state_hash
from bridge.replication.records import encode_payloads, full_records
from bridge.replication.world import States, WorldState
from tests.support.states import states


@given(states())
def test_a_state_taken_over_hashes_as_it_did_before(before: WorldState) -> None:
    """R0-27: both hosts simulate from the rounded state."""
    after = decode_state_untrusted(encode_state(before))
    assert state_hash(after) == state_hash(before)
    assert (after.tick, after.flags) == (before.tick, before.flags)


def test_a_state_differs_in_its_hash_by_each_field() -> None:
    changes: list[dict[str, object]] = [
        {"tick": 2},
        {"position": np.array([0, 0, 0.001])},
        {"velocity": np.array([0, 0.01, 0])},
        {"rotation": np.array([0, 0, 0.01, 1])},
        {"angular_velocity": np.array([0.002, 0, 0])},
        {"flags": 4},
    ]
    plain: dict[str, object] = {"tick": 1, "position": np.zeros(3), "velocity": np.zeros(3)}
    hashes = {state_hash(WorldState(**plain | change)) for change in [{}, *changes]}  # type: ignore[arg-type]
    assert len(hashes) == len(changes) + 1


def test_a_runaway_simulation_saturates_instead_of_wrapping() -> None:
    wild = WorldState(
        tick=1, position=np.array([np.inf, -np.inf, np.nan]), velocity=np.array([1e9, -1e9, 0.0])
    )
    back = decode_state_untrusted(encode_state(wild))
    assert back.position.tolist() == pytest.approx([2147483.647, -2147483.648, 0.0])
    assert back.velocity.tolist() == pytest.approx([327.67, -327.68, 0.0])
    assert state_hash(back) == state_hash(wild)


@given(st.binary(min_size=36, max_size=36), states())
def test_any_state_of_a_peer_encodes_to_the_bytes_it_came_in_or_is_refused(
    data: bytes, near: WorldState
) -> None:
    """R0-27: also the lowest numbers, and rotations that nobody rounded."""
    sent = bytearray(encode_state(near))
    for at in (slice(12, 24), slice(32, 44)):
        sent[at] = data[at.start - 8 : at.stop - 8]
    assert encode_state(decode_state_untrusted(bytes(sent))) == sent
    sent[24:30] = data[16:22]
    try:
        state = decode_state_untrusted(bytes(sent))
    except DecodeError:
        return
    assert encode_state(state) == sent


def test_only_one_whole_record_without_handle_epoch_age_and_digest_is_a_last_state() -> None:
    state = WorldState(tick=9, position=np.zeros(3), velocity=np.zeros(3))
    one = States.of(state)
    good = encode_state(state)
    assert len(good) == 44
    assert decode_state_untrusted(memoryview(good)).tick == 9
    two = full_records(0, 0, States.of(state))
    wrong = [
        b"",
        good[:-1],
        encode_payloads(full_records(1, 0, one)[None, :], tick=9).tobytes(),
        encode_payloads(full_records(0, 1, one)[None, :], tick=9).tobytes(),
        encode_payloads(full_records(0, 0, one, tick=10)[None, :], tick=10).tobytes(),
        encode_payloads(np.tile(two, (1, 2)), tick=9).tobytes(),
        encode_payloads(two[None, :], tick=9, digests=np.zeros((1, 16), dtype=np.uint8)).tobytes(),
        good[:24] + b"\x03" + good[25:],
    ]
    for data in wrong:
        with pytest.raises(DecodeError):
            decode_state_untrusted(data)
