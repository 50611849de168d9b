from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bridge.udp.wire import (
    DATA_HEADER_BYTES,
    TAG_BYTES,
)
from bridge.udp.workspace import RUN_ROWS, Matrix, RunBuffers, Workspace, row_bytes

SIZE = 100


def test_views_are_of_the_rows_of_the_matrices() -> None:
    buffers = Workspace().buffers(SIZE)
    buffers.datagrams[3] = 7
    buffers.plaintexts[RUN_ROWS - 1] = 9
    assert bytes(buffers.header_views[3]) == bytes([7]) * DATA_HEADER_BYTES
    assert bytes(buffers.sealed_views[3]) == bytes([7]) * (SIZE - DATA_HEADER_BYTES)
    assert bytes(buffers.plaintext_views[-1]) == bytes([9]) * (SIZE - DATA_HEADER_BYTES - TAG_BYTES)
    assert bytes(buffers.sealed_views[2]) == bytes(SIZE - DATA_HEADER_BYTES)


def test_the_sizes_that_have_memory_are_few() -> None:
    workspace = Workspace()
    first = workspace.buffers(100)
    assert workspace.buffers(100) is first
    for size in range(101, 120):
        workspace.buffers(size)
    assert workspace.buffers(100) is not first


@given(st.integers(1, 20), st.integers(1, 30), st.booleans())
def test_rows_as_bytes_are_the_rows_zeros_at_their_end_included(rows: int, size: int, zeros: bool) -> None:
    matrix = np.zeros((rows, size + 3), dtype=np.uint8)
    if not zeros:
        matrix[:] = np.arange(size + 3, dtype=np.uint8)
    cut = matrix[:, 1 : size + 1]
    assert row_bytes(cut) == [row.tobytes() for row in cut]


def take(buffers: RunBuffers, fill: int) -> Matrix:
    owned = buffers.owned()
    owned.matrix[:] = fill
    return owned.matrix[:5]


def test_memory_that_nobody_refers_to_is_used_again() -> None:
    buffers = Workspace().buffers(SIZE)
    address = take(buffers, 1).ctypes.data
    assert take(buffers, 2).ctypes.data == address


def test_memory_that_the_application_kept_in_any_form_is_left_alone() -> None:
    buffers = Workspace().buffers(SIZE)
    kept: list[tuple[int, Any]] = []
    forms: list[Callable[[Matrix], Any]] = [
        lambda matrix: matrix,
        lambda matrix: matrix[:, 3:],
        lambda matrix: matrix[2],
        lambda matrix: matrix[1:3].view(np.int8),
        lambda matrix: matrix.T,
        lambda matrix: memoryview(matrix[1]),
        lambda matrix: np.frombuffer(matrix[4].data, dtype=np.uint8),
        lambda matrix: matrix.reshape(-1)[::7],
    ]
    for n, form in enumerate(forms * 5):
        kept.append((n, form(take(buffers, n))))
    gc.collect()
    for n in range(50):
        take(buffers, 200 + n % 3)
    for n, value in kept:
        assert set(np.asarray(value).tobytes()) == {n}


def test_what_is_remembered_of_memory_in_use_is_bounded() -> None:
    buffers = Workspace().buffers(SIZE)
    kept = [take(buffers, n) for n in range(100)]
    assert len({matrix.ctypes.data for matrix in kept}) == 100
    assert len(buffers._owned) == 16


def test_sizes_that_change_all_the_time_do_not_have_memory_made_for_each_few_datagrams() -> None:
    workspace = Workspace()
    first = [workspace.buffers_if_worth(size, 4) for size in range(100, 104)]
    assert None not in first
    assert [workspace.buffers_if_worth(size, 4) for size in range(104, 200)] == [None] * 96
    assert [workspace.buffers_if_worth(size, 4) for size in range(100, 104)] == first


def test_a_size_that_keeps_coming_gets_memory_of_its_own() -> None:
    workspace = Workspace()
    for size in range(100, 104):
        workspace.buffers_if_worth(size, 4)
    asked = 0
    while workspace.buffers_if_worth(500, 4) is None:
        asked += 4
    assert asked < RUN_ROWS
    assert workspace.buffers_if_worth(500, 4) is workspace.buffers(500)


def test_a_sheet_is_used_again_as_long_as_it_has_that_size_and_room() -> None:
    workspace = Workspace()
    sheet = workspace.sheet(SIZE, 40)
    sheet.datagrams[3] = 7
    assert bytes(sheet.views[3]) == bytes([7]) * SIZE
    assert bytes(sheet.header_views[3]) + bytes(sheet.sealed_views[3]) == bytes(sheet.views[3])
    assert workspace.sheet(SIZE, 30) is sheet
    assert len(sheet.views) >= 40
    assert workspace.sheet(SIZE + 1, 30) is not sheet
    assert len(workspace.sheet(SIZE + 1, 400).views) >= 400
