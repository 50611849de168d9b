"""bridge.udp.heap: what a tick frees, the next one has."""

from __future__ import annotations

import subprocess
import sys

_TICKS = """
import resource, sys
import numpy as np
from bridge.udp import keep_freed_memory

def tick():
    arrays = [np.ones((12_000, 4)) for _ in range(6)]
    del arrays

assert sys.argv[1] == "as it is" or keep_freed_memory()
tick()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    tick()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 20)
"""


def _faults(how: str) -> int:
    """Page faults of a tick in a process of its own."""
    done = subprocess.run([sys.executable, "-c", _TICKS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_a_tick_that_frees_megabytes_faults_no_page_where_the_process_keeps_them() -> None:
    kept, given_back = _faults("kept"), _faults("as it is")
    assert kept < 5
    assert given_back > 100
