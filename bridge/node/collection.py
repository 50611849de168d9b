"""The garbage collector does not look at what is decoded of a large answer.

Terms have no cycles, so among them there is nothing to find; and each full look at millions of them, of which
there would be a dozen while 64 MiB are decoded, holds the loop up for tenths of a second.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def counted_as_old() -> Iterator[None]:
    """What is made inside counts as old, as if the collector had looked at it and found it in use.

    So does whatever else is young: a cycle among that waits for the next full look. Where the program has
    frozen objects itself, nothing is done, since these would thaw.
    """
    if not gc.isenabled() or gc.get_freeze_count():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        # Both move whole lists; neither looks at what is in them.
        gc.freeze()
        gc.unfreeze()
        gc.enable()
