from __future__ import annotations

import gc
import math

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bridge.udp.columns import Columns, Row


def test_rows_keep_what_is_in_them_while_others_are_added() -> None:
    columns = Columns()
    rows = []
    for n in range(100):
        rows.append(Row(columns))
        columns.sequence[rows[-1].index] = columns.note_times[rows[-1].index] = n
    assert [columns.sequence[row.index] for row in rows] == list(range(100))
    assert [columns.note_times[row.index] for row in rows] == list(range(100))


def test_a_row_that_nobody_has_any_more_is_used_again_without_what_was_in_it() -> None:
    columns = Columns()
    kept, row = Row(columns), Row(columns)
    at = row.index
    columns.sequence[at] = columns.notes[at] = 7
    columns.acks_from[at] = 1.0
    columns.ciphers[at], columns.addresses[at] = AESGCM(bytes(16)), ("192.0.2.1", 1)
    del row
    gc.collect()
    assert (columns.ciphers[at], columns.addresses[at]) == (None, None)
    again = [Row(columns) for _ in range(3)]
    assert at in [row.index for row in again]
    assert kept.index not in [row.index for row in again]
    assert (columns.sequence[at], columns.notes[at], columns.acks_from[at]) == (0, 0, math.inf)
