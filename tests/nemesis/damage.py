"""When a homeserver has to begin anew: Ra cannot read its log any more, as after a disk that was full."""

from __future__ import annotations

from typing import Final

_READY: Final = "khepri_bridge: ready"
_MARKS: Final = (
    "missing_key",
    "missing_index",
    "corrupt_log",
    "integrity_error",
    "ra_log_segment_crc_check_failure",
    "ra_log_segment_unexpected_eof",
    "ra_log_failed_to_open_segment",
    "crc_failed_for",
    "wal_checksum_validation_failure",
    "unknown_wal_file_format",
    "could_not_read_wal_chunk",
)
"""reasons with which Ra 2.14 gives up a log that it reads (`ra_log`, `ra_log_segment`, `ra_log_wal`, …)"""


def is_unreadable(said: str) -> bool:
    """Whether a homeserver could not be started for what its own log is like.

    Args:
        said: since it was started last. What it said while it ran is no reason: the next start may succeed.
    """
    return _READY not in said and any(mark in said for mark in _MARKS)
