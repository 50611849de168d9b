from __future__ import annotations

import numpy as np
import pytest

from bridge.udp.frames import (
    PROOF,
    State,
    parse_frames_untrusted,
)
from bridge.udp.keys import Aead, SealingPhases, derive_session_keys
from bridge.udp.sealing import Sealer
from bridge.udp.wire import (
    DATA,
    DATA_HEADER,
    NO_ECHO,
    PROLOGUE,
)
from bridge.udp.workspace import RUN_ROWS, Workspace

ADDRESS = ("192.0.2.1", 1)
PROLOGUE_BYTES = PROLOGUE.pack(5, 0, NO_ECHO)
KEYS = derive_session_keys(shared_secret=bytes(32), transcript=bytes(32)).initiator


def make_sealer(remote_connection_id: int = 1, *, every: int = 1 << 24) -> Sealer:
    phases = SealingPhases(KEYS, after_datagrams=every, after_seconds=3600.0, now=0.0)
    return Sealer(phases, remote_connection_id=remote_connection_id, workspace=Workspace())


@pytest.mark.parametrize("count", [1, 2, RUN_ROWS])
def test_a_batch_is_what_its_rows_sealed_one_by_one_would_be(count: int) -> None:
    sealer = make_sealer(77)
    sealer.seal(PROLOGUE_BYTES)
    rows = np.arange(count * 30, dtype=np.uint64).astype(np.uint8).reshape(count, 30)
    transmit = sealer.seal_batch(PROLOGUE_BYTES, stream=300, number=9, rows=rows, address=ADDRESS)
    opener = Aead(KEYS)
    datagrams = list(transmit.datagrams())
    assert len(datagrams) == count
    for n, datagram in enumerate(datagrams):
        header = bytes(datagram[: DATA_HEADER.size])
        assert DATA_HEADER.unpack(header) == (DATA, 77, 1 + n)
        plaintext = opener.open(1 + n, datagram[DATA_HEADER.size :], header)
        assert plaintext.startswith(PROLOGUE_BYTES)
        assert parse_frames_untrusted(plaintext, PROLOGUE.size) == [State(300 + n, 9, rows[n].tobytes())]


@pytest.mark.parametrize("sizes", [(5,), (3, 2), (1, 1, 3)])
def test_what_was_reserved_is_sealed_with_its_proofs_under_its_own_numbers_and_keys(
    sizes: tuple[int, ...],
) -> None:
    sealer = make_sealer(every=1)
    rows = np.arange(5 * 30, dtype=np.uint8).reshape(5, 30)
    reserved = sealer.reserve_batch(PROLOGUE_BYTES, stream=300, number=9, rows=rows)
    single = sealer.reserve(PROLOGUE_BYTES)
    # What is sealed before the proofs are there, under other keys too, has later numbers.
    sealer.phases.acknowledge(0)
    sealer.phases.prepare(sealer.next_sequence, follow=0, now=0.0)
    assert DATA_HEADER.unpack_from(sealer.seal(PROLOGUE_BYTES)) == (DATA | 1, 1, 6)
    proofs = [np.full((count, 10 + n), PROOF, dtype=np.uint8) for n, count in enumerate(sizes)]
    transmits = sealer.seal_reserved(reserved, proofs, ADDRESS)
    assert [transmit.datagram_count for transmit in transmits] == list(sizes)
    transmits += sealer.seal_reserved(single, [np.full((1, 7), PROOF, dtype=np.uint8)], ADDRESS)
    opener = Aead(KEYS)
    datagrams = [bytes(datagram) for transmit in transmits for datagram in transmit.datagrams()]
    assert len(datagrams) == 6
    for n, datagram in enumerate(datagrams):
        header = datagram[: DATA_HEADER.size]
        assert DATA_HEADER.unpack(header) == (DATA, 1, n)
        plaintext = opener.open(n, datagram[DATA_HEADER.size :], header)
        content = plaintext.rstrip(bytes([PROOF]))
        if n < 5:
            assert parse_frames_untrusted(content, PROLOGUE.size) == [State(300 + n, 9, rows[n].tobytes())]
        else:
            assert content == PROLOGUE_BYTES


def test_one_row_is_reserved_as_the_datagram_it_is() -> None:
    sealer = make_sealer()
    rows = np.arange(30, dtype=np.uint8).reshape(1, 30)
    plaintext = sealer.reserve_batch(PROLOGUE_BYTES, stream=300, number=9, rows=rows).plaintexts
    assert isinstance(plaintext, bytes)
    assert parse_frames_untrusted(plaintext, PROLOGUE.size) == [State(300, 9, rows.tobytes())]


def test_sequences_go_on_over_single_datagrams_and_batches() -> None:
    sealer = make_sealer(1)
    rows = np.zeros((10, 4), dtype=np.uint8)
    for _ in range(3):
        sealer.seal(PROLOGUE_BYTES)
        sealer.seal_batch(PROLOGUE_BYTES, stream=0, number=0, rows=rows, address=ADDRESS)
    assert sealer.next_sequence == 33


def test_what_was_handed_out_is_not_touched_by_the_next_batch() -> None:
    sealer = make_sealer(1)
    rows = np.zeros((10, 4), dtype=np.uint8)
    first = sealer.seal_batch(PROLOGUE_BYTES, stream=0, number=0, rows=rows, address=ADDRESS)
    before = bytes(first.payload)
    sealer.seal_batch(PROLOGUE_BYTES, stream=0, number=1, rows=rows, address=ADDRESS)
    assert bytes(first.payload) == before


def test_after_a_change_of_keys_single_datagrams_and_batches_show_and_use_the_new_ones() -> None:
    sealer = make_sealer(every=1)
    sealer.seal(PROLOGUE_BYTES)
    sealer.phases.acknowledge(0)
    sealer.phases.prepare(1, follow=0, now=0.0)
    rows = np.zeros((2, 4), dtype=np.uint8)
    batch = sealer.seal_batch(PROLOGUE_BYTES, stream=0, number=0, rows=rows, address=ADDRESS)
    datagrams = [*batch.datagrams(), sealer.seal(PROLOGUE_BYTES)]
    opener = Aead(KEYS.next_phase())
    for n, datagram in enumerate(datagrams):
        header = bytes(datagram[: DATA_HEADER.size])
        assert DATA_HEADER.unpack(header) == (DATA | 1, 1, 1 + n)
        assert opener.open(1 + n, datagram[DATA_HEADER.size :], header).startswith(PROLOGUE_BYTES)
