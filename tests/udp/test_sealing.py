from __future__ import annotations

import numpy as np
import pytest

from bridge.udp.keys import Aead, SealingPhases, derive_session_keys
from bridge.udp.sealing import Sealer
from bridge.udp.wire import DATA, DATA_HEADER, NO_ECHO, PROLOGUE, State, parse_frames_untrusted
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
