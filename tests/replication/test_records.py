import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigurationError, DecodeError
from bridge.replication.quantise import ANGULAR_VELOCITY_STEP, POSITION_STEP, VELOCITY_STEP
from bridge.replication.records import (
    COMPACT,
    DIGEST_BYTES,
    FULL,
    HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    Layout,
    Records,
    compact_records,
    decode_payloads_untrusted,
    decode_records_untrusted,
    encode_payloads,
    encode_records,
    full_records,
    records_per_payload,
    states_of,
    ticks_of,
)
from bridge.replication.world import WorldState
from tests.support.states import degrees_between, states, together

TICK = 7
BOTH = pytest.mark.parametrize("layout", [COMPACT, FULL])


def records(count: int, layout: np.dtype[np.void] = FULL) -> Records:
    some = together(
        [WorldState(tick=TICK, position=np.full(3, n), velocity=np.zeros(3)) for n in range(count)]
    )
    make = compact_records if layout == COMPACT else full_records
    return make(np.arange(count), np.arange(count), some)


@given(st.lists(states(), min_size=1, max_size=31))
def test_a_full_record_errs_by_half_a_step_in_each_field(some: list[WorldState]) -> None:
    given_ = together([WorldState(**{n: getattr(s, n) for n in s.__slots__} | {"tick": TICK}) for s in some])
    records = full_records(np.arange(len(some)), np.zeros(len(some)), given_)
    back = decode_records_untrusted(encode_payloads(records[None, :], tick=TICK)[0]).states()
    assert back.ticks.tolist() == given_.ticks.tolist()
    assert back.flags.tolist() == given_.flags.tolist()
    assert np.abs(back.positions - given_.positions).max() <= POSITION_STEP / 2 + 1e-9
    assert np.abs(back.velocities - given_.velocities).max() <= VELOCITY_STEP / 2 + 1e-12
    assert np.abs(back.angular_velocities - given_.angular_velocities).max() <= ANGULAR_VELOCITY_STEP / 2
    assert degrees_between(back.rotations, given_.rotations).max() < 0.02


@given(st.lists(states(), min_size=1, max_size=57))
def test_a_compact_record_keeps_place_rotation_and_flags(some: list[WorldState]) -> None:
    given_ = together(some)
    records = compact_records(np.arange(len(some)), np.zeros(len(some)), given_)
    back = decode_records_untrusted(encode_payloads(records[None, :], tick=TICK)[0]).states()
    assert set(back.ticks.tolist()) == {TICK}
    assert back.flags.tolist() == given_.flags.tolist()
    assert np.abs(back.positions - given_.positions).max() <= POSITION_STEP / 2 + 1e-9
    assert degrees_between(back.rotations, given_.rotations).max() < 0.6
    assert not back.velocities.any()


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 2**64 - 1)), min_size=1, max_size=31))
def test_handles_and_low_epochs_survive(rows: list[tuple[int, int]]) -> None:
    some = together([WorldState(tick=TICK, position=np.zeros(3), velocity=np.zeros(3)) for _ in rows])
    handles, epochs = (np.array([row[i] for row in rows], dtype=np.uint64) for i in range(2))
    sent = full_records(handles, epochs, some)
    back = decode_records_untrusted(encode_payloads(sent[None, :], tick=TICK).tobytes()).records[0]
    assert back["handle"].tolist() == handles.tolist()
    assert back["epoch"].tolist() == [e & 0xFFFF for e in epochs.tolist()]


@BOTH
def test_records_are_as_long_as_the_protocol_says_and_fill_a_payload(layout: np.dtype[np.void]) -> None:
    assert layout.itemsize == {COMPACT: 20, FULL: 36}[layout]
    assert records_per_payload(layout) == {COMPACT: 57, FULL: 31}[layout]
    assert records_per_payload(layout, digest=True) == {COMPACT: 56, FULL: 31}[layout]
    assert records_per_payload(layout, room=700, digest=True) == {COMPACT: 33, FULL: 18}[layout]
    per = records_per_payload(layout)
    many = encode_records(records(2 * per + 5, layout), tick=TICK)
    assert [m.shape[0] for m in many] == [2, 1]
    assert many[0].shape[1] <= MAX_PAYLOAD_BYTES
    back = [decode_payloads_untrusted(m)[0][0].records["handle"].ravel() for m in many]
    assert np.concatenate(back).tolist() == list(range(2 * per + 5))


@BOTH
def test_one_gather_makes_the_payloads_of_many_peers(layout: np.dtype[np.void]) -> None:
    all_of_them = records(200, layout)
    picks = np.random.default_rng(1).integers(0, 200, (50, 31))
    payloads = encode_payloads(all_of_them.take(picks), tick=TICK)
    (decoded,), malformed = decode_payloads_untrusted(payloads)
    assert malformed == 0
    assert decoded.records["handle"].tolist() == picks.tolist()
    assert decoded.states().positions[:, 0].reshape(50, 31) == pytest.approx(picks)


@BOTH
@given(data=st.data())
def test_what_decodes_encodes_to_the_same_bytes(layout: np.dtype[np.void], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 3))
    body = data.draw(st.binary(min_size=count * layout.itemsize, max_size=count * layout.itemsize))
    kind = 1 if layout == COMPACT else 2
    payload = bytes([2, kind, 0, count]) + bytes(4) + body
    try:
        decoded = decode_records_untrusted(payload)
    except DecodeError:
        return
    assert encode_payloads(decoded.records, tick=int(decoded.ticks[0])).tobytes() == payload
    assert np.isfinite(decoded.states().rotations).all()


@given(st.binary(max_size=1300))
def test_any_bytes_decode_or_raise_decode_error(data: bytes) -> None:
    """R0-14: malformed input is dropped without a crash."""
    try:
        decoded = decode_records_untrusted(memoryview(data))
    except DecodeError:
        return
    assert (
        encode_payloads(decoded.records, tick=int(decoded.ticks[0]), digests=decoded.digests).tobytes()
        == data
    )


GOOD = encode_payloads(records(1)[None, :], tick=TICK).tobytes()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        GOOD[:7],
        b"\x01" + GOOD[1:],
        b"\x02\x05" + GOOD[2:],
        b"\x02\x42" + GOOD[2:],
        b"\x02\x82" + GOOD[2:],
        b"\x02\x01" + GOOD[2:],
        b"\x02\x02\x00\x02" + GOOD[4:],
        GOOD + b"\0",
        GOOD[:-1],
        GOOD[:24] + b"\x80" + GOOD[25:],
        GOOD[:24] + b"\x0f\xff\xff" + GOOD[27:],
    ],
)
def test_another_version_layout_length_flag_or_component_is_refused(payload: bytes) -> None:
    decode_records_untrusted(GOOD)
    with pytest.raises(DecodeError):
        decode_records_untrusted(payload)


def test_one_damaged_payload_of_a_batch_costs_no_other() -> None:
    payloads = encode_payloads(np.tile(records(3), (5, 1)), tick=TICK)
    payloads[1, 0] = 9
    payloads[3, 24] = 0xFF
    (decoded,), malformed = decode_payloads_untrusted(payloads)
    assert malformed == 2
    assert decoded.rows.tolist() == [0, 2, 4]


def test_payloads_of_both_layouts_may_come_in_one_batch() -> None:
    # 9 compact records are as long as 5 full ones.
    some = [
        encode_payloads(records(n, layout)[None, :], tick=TICK) for n, layout in ((9, COMPACT), (5, FULL))
    ]
    decoded, malformed = decode_payloads_untrusted(np.concatenate(some))
    assert malformed == 0
    assert [(d.layout, d.rows.tolist()) for d in decoded] == [(Layout.COMPACT, [0]), (Layout.FULL, [1])]
    assert decode_payloads_untrusted(np.zeros((4, 3), dtype=np.uint8)) == ([], 4)


def test_a_digest_goes_and_comes_with_its_payload() -> None:
    digests = np.arange(32, dtype=np.uint8).reshape(2, 16)
    payloads = encode_payloads(np.tile(records(2), (2, 1)), tick=TICK, digests=digests)
    (decoded,), _ = decode_payloads_untrusted(payloads)
    assert decoded.digests is not None
    assert decoded.digests.tolist() == digests.tolist()
    second = decoded.select(np.array([False, True]))
    assert second.digests is not None
    assert (second.rows.tolist(), second.digests.tolist()) == ([1], digests[1:].tolist())


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20))
def test_states_of_any_ticks_go_in_payloads_that_tell_their_ticks(ticks: list[int]) -> None:
    near = [ticks[0], *((ticks[0] - t % 300_000) % 2**32 for t in ticks)]
    some = together([WorldState(tick=t, position=np.zeros(3), velocity=np.zeros(3)) for t in near])
    found: dict[int, int] = {}
    for tick, group in ticks_of(some):
        sent = full_records(group, 0, some.select(group), tick=tick)
        back = states_of(sent, np.full(len(group), tick, dtype=np.uint64))
        found.update(zip(group.tolist(), back.ticks.tolist(), strict=True))
    assert [found[n] for n in range(len(near))] == near


def test_no_states_have_no_tick_and_one_too_old_is_no_record() -> None:
    assert list(ticks_of(together([]))) == []
    old = together([WorldState(tick=2**32 - 65_530, position=np.zeros(3), velocity=np.zeros(3))])
    assert len(full_records([0], [0], old, tick=5)) == 1
    with pytest.raises(ValueError, match="65535 ticks"):
        full_records([0], [0], old, tick=6)


@pytest.mark.parametrize("digest", [False, True])
def test_room_for_no_record_is_refused(digest: bool) -> None:
    least = HEADER_BYTES + DIGEST_BYTES * digest + COMPACT.itemsize
    assert records_per_payload(COMPACT, room=least, digest=digest) == 1
    with pytest.raises(ConfigurationError, match=f"{least} at least"):
        records_per_payload(COMPACT, room=least - 1, digest=digest)
