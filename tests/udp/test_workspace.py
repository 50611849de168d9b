from __future__ import annotations

from bridge.udp.wire import DATA_HEADER_BYTES, TAG_BYTES
from bridge.udp.workspace import RUN_ROWS, Workspace


def test_views_are_of_the_rows_of_the_matrices() -> None:
    buffers = Workspace().buffers(100)
    buffers.datagrams[3] = 7
    buffers.plaintexts[RUN_ROWS - 1] = 9
    assert bytes(buffers.header_views[3]) == bytes([7]) * DATA_HEADER_BYTES
    assert bytes(buffers.sealed_views[3]) == bytes([7]) * (100 - DATA_HEADER_BYTES)
    assert bytes(buffers.plaintext_views[-1]) == bytes([9]) * (100 - DATA_HEADER_BYTES - TAG_BYTES)
    assert bytes(buffers.sealed_views[2]) == bytes(100 - DATA_HEADER_BYTES)


def test_the_sizes_that_have_memory_are_few() -> None:
    workspace = Workspace()
    first = workspace.buffers(100)
    assert workspace.buffers(100) is first
    for size in range(101, 120):
        workspace.buffers(size)
    assert workspace.buffers(100) is not first
