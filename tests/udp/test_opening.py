from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bridge.udp.columns import Columns, Row
from bridge.udp.keys import OpeningPhases, SealingPhases, derive_session_keys
from bridge.udp.opening import Opener
from bridge.udp.replay import WINDOW
from bridge.udp.sealing import Sealer
from bridge.udp.statistics import DropReason
from bridge.udp.wire import (
    NO_ECHO,
    PROLOGUE,
)
from bridge.udp.workspace import Matrix, Workspace

KEYS = derive_session_keys(shared_secret=bytes(32), transcript=bytes(32)).initiator
PLAINTEXT = PROLOGUE.pack(5, 0, NO_ECHO)


def sealing_phases() -> SealingPhases:
    return SealingPhases(KEYS, after_datagrams=1, after_seconds=3600.0, now=0.0)


def sealed(count: int, *, skip: int = 0) -> list[bytes]:
    row = Row(Columns())
    sealer = Sealer(sealing_phases(), remote_connection_id=1, workspace=Workspace(), row=row)
    row.columns.sequence[row.index] = skip
    return [sealer.seal(PLAINTEXT + bytes([n % 256])) for n in range(count)]


def as_run(datagrams: list[bytes]) -> Matrix:
    return np.frombuffer(b"".join(datagrams), dtype=np.uint8).reshape(len(datagrams), -1)


def opener() -> Opener:
    return Opener(OpeningPhases(KEYS), sealing=sealing_phases(), keep=lambda: 1.0, workspace=Workspace())


@given(st.sets(st.integers(0, 39), min_size=1))
def test_a_run_opens_to_what_each_datagram_alone_does_and_marks_the_same(kept: set[int]) -> None:
    datagrams = [datagram for n, datagram in enumerate(sealed(40)) if n in kept]
    together, alone = opener(), opener()
    run = together.open_run(as_run(datagrams))
    assert run is not None
    together.mark_run(run.sequences)
    for datagram, sequence, plaintext in zip(datagrams, run.sequences.tolist(), run.plaintexts, strict=True):
        assert alone.open(datagram, now=0.0) == (sequence, plaintext.tobytes())
        alone.replay.mark(sequence)
    assert together.replay.acknowledgement() == alone.replay.acknowledgement()


def test_what_waits_of_a_short_run_holds_no_more_memory_than_its_size() -> None:
    datagrams = sealed(4)
    run = opener().open_run(as_run(datagrams))
    assert run is not None
    assert run.plaintexts.base is None or run.plaintexts.base.nbytes <= 4 * len(datagrams[0])


def test_a_run_out_of_order_or_seen_before_is_left_to_be_looked_at_one_by_one() -> None:
    datagrams = sealed(10)
    receiving = opener()
    assert receiving.open_run(as_run(datagrams[::-1])) is None
    assert receiving.open_run(as_run([datagrams[0], datagrams[0], datagrams[2]])) is None
    run = receiving.open_run(as_run(datagrams))
    assert run is not None
    receiving.mark_run(run.sequences)
    assert receiving.open_run(as_run(datagrams)) is None
    assert receiving.open(datagrams[3], now=0.0) is DropReason.REPLAYED


def test_a_run_wider_than_the_window_is_looked_at_one_by_one() -> None:
    first, *_ = sealed(1)
    last, *_ = sealed(1, skip=WINDOW)
    assert opener().open_run(as_run([first, last])) is None


def test_a_forged_datagram_marks_nothing() -> None:
    datagrams = sealed(5)
    datagrams[2] = datagrams[2][:-1] + bytes([datagrams[2][-1] ^ 1])
    receiving = opener()
    assert receiving.open_run(as_run(datagrams)) is None
    assert receiving.replay.largest == -1
    assert receiving.open(datagrams[2], now=0.0) is DropReason.FORGED


def test_a_run_of_the_next_key_phase_opens_once_its_first_datagram_was_looked_at_alone() -> None:
    sealer = Sealer(sealing_phases(), remote_connection_id=1, workspace=Workspace())
    old = sealer.seal(PLAINTEXT)
    sealer.phases.acknowledge(0)
    sealer.phases.prepare(1, follow=0, now=0.0)
    datagrams = [sealer.seal(PLAINTEXT) for _ in range(5)]
    receiving = opener()
    assert receiving.open_run(as_run(datagrams)) is None
    assert receiving.open(datagrams[0], now=10.0) == (1, PLAINTEXT)
    run = receiving.open_run(as_run(datagrams[1:]))
    assert run is not None
    assert run.sequences.tolist() == [2, 3, 4, 5]
    assert receiving.open(old, now=10.9) == (0, PLAINTEXT)
    assert receiving.open(old, now=11.0) is DropReason.KEY_PHASE
