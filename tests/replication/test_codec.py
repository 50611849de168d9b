import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import DecodeError
from bridge.replication.codec import (
    MAX_RECORDS,
    POSITION_STEP,
    RECORD,
    VELOCITY_STEP,
    decode_records_untrusted,
    decode_state_untrusted,
    dequantise,
    encode_records,
    encode_state,
    quantise,
    state_hash,
)
from bridge.replication.world import WorldState

positions = st.lists(st.floats(-2e6, 2e6), min_size=3, max_size=3)
velocities = st.lists(st.floats(-300, 300), min_size=3, max_size=3)
ticks = st.integers(0, 2**32 - 1)


def state(tick: int, position: list[float], velocity: list[float]) -> WorldState:
    return WorldState(tick=tick, position=np.array(position), velocity=np.array(velocity))


@given(ticks, positions, velocities)
def test_quantising_errs_by_at_most_half_a_step(
    tick: int, position: list[float], velocity: list[float]
) -> None:
    back = decode_state_untrusted(encode_state(state(tick, position, velocity)))
    assert back.tick == tick
    assert np.abs(back.position - position).max() <= POSITION_STEP / 2 + 1e-9 * max(1.0, *map(abs, position))
    assert np.abs(back.velocity - velocity).max() <= VELOCITY_STEP / 2 + 1e-9


@given(ticks, positions, velocities)
def test_a_state_taken_over_hashes_as_it_did_before(
    tick: int, position: list[float], velocity: list[float]
) -> None:
    """R0-27: both hosts simulate from the quantised state."""
    before = state(tick, position, velocity)
    assert state_hash(decode_state_untrusted(encode_state(before))) == state_hash(before)


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 2**64 - 1), ticks), max_size=MAX_RECORDS))
def test_records_survive_the_datagram(rows: list[tuple[int, int, int]]) -> None:
    handles, epochs, stamps = ([row[i] for row in rows] for i in range(3))
    records = quantise(handles, epochs, stamps, np.zeros((len(rows), 3)), np.zeros((len(rows), 3)))
    back = decode_records_untrusted(encode_records(records))
    assert back.tobytes() == records.tobytes()
    assert [int(e) for e in back["epoch"]] == [e & 0xFFFF for e in epochs]


def test_more_records_than_fit_are_refused_by_the_sender() -> None:
    many = np.zeros(MAX_RECORDS + 1, dtype=RECORD)
    assert len(encode_records(many[:MAX_RECORDS])) <= 1150
    with pytest.raises(ValueError, match="do not fit"):
        encode_records(many)


@given(st.binary(max_size=1300))
def test_any_bytes_decode_or_raise_decode_error(data: bytes) -> None:
    """R0-14: malformed input is dropped without a crash."""
    try:
        records = decode_records_untrusted(data)
    except DecodeError:
        return
    assert encode_records(records) == data


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x02\x00\x00\x00",
        b"\x01\x01\x00\x00",
        b"\x01\x00\x00\x01",
        b"\x01\x00\x00\x00\x00",
        b"\x01\x00\x00\x2d" + bytes(45 * 26),
    ],
)
def test_a_wrong_version_flag_or_length_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_records_untrusted(payload)


@pytest.mark.parametrize("data", [b"", bytes(25), b"\x00\x01" + bytes(24), b"\x00\x00\x00\x01" + bytes(22)])
def test_a_released_state_names_no_handle_and_no_epoch(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_state_untrusted(data)


def test_a_runaway_simulation_saturates_instead_of_wrapping() -> None:
    wild = state(1, [float("inf"), -float("inf"), float("nan")], [1e9, -1e9, 0.0])
    back = decode_state_untrusted(encode_state(wild))
    assert back.position.tolist() == pytest.approx([2147483.647, -2147483.648, 0.0])
    assert back.velocity.tolist() == pytest.approx([327.67, -327.68, 0.0])


@given(st.binary(min_size=22, max_size=22))
def test_any_state_of_a_peer_encodes_to_the_bytes_it_came_in(data: bytes) -> None:
    """R0-27: also the lowest numbers, which have no positive counterpart."""
    assert encode_state(decode_state_untrusted(bytes(4) + data)) == bytes(4) + data


def test_the_lowest_numbers_survive() -> None:
    data = bytes(8) + b"\x80\x00\x00\x00" * 3 + b"\x80\x00" * 3
    assert encode_state(decode_state_untrusted(data)) == data


def test_one_record_dequantises_to_its_state() -> None:
    records = quantise([3], [7], [9], np.array([[1.0, 2.0, 3.0]]), np.array([[0.5, 0.0, -0.5]]))
    one = dequantise(records[0])
    assert (one.tick, one.position.tolist(), one.velocity.tolist()) == (9, [1.0, 2.0, 3.0], [0.5, 0.0, -0.5])
