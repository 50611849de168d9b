from __future__ import annotations

import numpy as np
import pytest

from bridge.udp.keys import Aead, derive_session_keys
from bridge.udp.sealing import Sealer
from bridge.udp.wire import DATA, DATA_HEADER, NO_ECHO, PROLOGUE, State, parse_frames_untrusted
from bridge.udp.workspace import RUN_ROWS, Workspace

ADDRESS = ("192.0.2.1", 1)
PROLOGUE_BYTES = PROLOGUE.pack(5, 0, NO_ECHO)
KEYS = derive_session_keys(shared_secret=bytes(32), transcript=bytes(32)).initiator


@pytest.mark.parametrize("count", [1, 2, RUN_ROWS])
def test_a_batch_is_what_its_rows_sealed_one_by_one_would_be(count: int) -> None:
    sealer = Sealer(KEYS, remote_connection_id=77, workspace=Workspace())
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
    sealer = Sealer(KEYS, remote_connection_id=1, workspace=Workspace())
    rows = np.zeros((10, 4), dtype=np.uint8)
    for _ in range(3):
        sealer.seal(PROLOGUE_BYTES)
        sealer.seal_batch(PROLOGUE_BYTES, stream=0, number=0, rows=rows, address=ADDRESS)
    assert sealer.next_sequence == 33


def test_what_was_handed_out_is_not_touched_by_the_next_batch() -> None:
    sealer = Sealer(KEYS, remote_connection_id=1, workspace=Workspace())
    rows = np.zeros((10, 4), dtype=np.uint8)
    first = sealer.seal_batch(PROLOGUE_BYTES, stream=0, number=0, rows=rows, address=ADDRESS)
    before = bytes(first.payload)
    sealer.seal_batch(PROLOGUE_BYTES, stream=0, number=1, rows=rows, address=ADDRESS)
    assert bytes(first.payload) == before
