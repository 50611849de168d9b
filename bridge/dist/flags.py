"""Capabilities that two nodes tell each other in the handshake.

Source: Erlang "Distribution Protocol", section "Distribution Flags"; values as in erts' ``dist.h``.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Final


class DistFlag(IntFlag):
    """One bit each, of 64."""

    PUBLISHED = 1 << 0  # a visible node; a hidden one leaves it out
    EXTENDED_REFERENCES = 1 << 2
    DIST_MONITOR = 1 << 3
    FUN_TAGS = 1 << 4
    DIST_MONITOR_NAME = 1 << 5
    NEW_FUN_TAGS = 1 << 7
    EXTENDED_PIDS_PORTS = 1 << 8
    EXPORT_PTR_TAG = 1 << 9
    BIT_BINARIES = 1 << 10
    NEW_FLOATS = 1 << 11
    UNICODE_IO = 1 << 12
    DIST_HDR_ATOM_CACHE = 1 << 13
    SMALL_ATOM_TAGS = 1 << 14
    UTF8_ATOMS = 1 << 16
    MAP_TAG = 1 << 17
    BIG_CREATION = 1 << 18
    SEND_SENDER = 1 << 19
    BIG_SEQTRACE_LABELS = 1 << 20
    EXIT_PAYLOAD = 1 << 22
    FRAGMENTS = 1 << 23
    HANDSHAKE_23 = 1 << 24
    UNLINK_ID = 1 << 25
    MANDATORY_25_DIGEST = 1 << 26  # stands for all that OTP 25 made mandatory
    SPAWN = 1 << 32
    NAME_ME = 1 << 33
    V4_NC = 1 << 34
    ALIAS = 1 << 35
    ALTACT_SIG = 1 << 37


DIGEST_25: Final = (
    DistFlag.EXTENDED_REFERENCES
    | DistFlag.FUN_TAGS
    | DistFlag.NEW_FUN_TAGS
    | DistFlag.EXTENDED_PIDS_PORTS
    | DistFlag.EXPORT_PTR_TAG
    | DistFlag.BIT_BINARIES
    | DistFlag.NEW_FLOATS
    | DistFlag.UTF8_ATOMS
    | DistFlag.MAP_TAG
    | DistFlag.BIG_CREATION
    | DistFlag.HANDSHAKE_23
)
"""what OTP 25 demands of a peer, and what ``MANDATORY_25_DIGEST`` expands to"""

_DEMANDED_24: Final = (
    DistFlag.EXTENDED_REFERENCES
    | DistFlag.EXTENDED_PIDS_PORTS
    | DistFlag.NEW_FUN_TAGS
    | DistFlag.UTF8_ATOMS
    | DistFlag.BIG_CREATION
)
_DEMANDED_26: Final = DIGEST_25 | DistFlag.UNLINK_ID | DistFlag.V4_NC

DEMANDED: Final[dict[int, DistFlag]] = {
    24: _DEMANDED_24,
    25: DIGEST_25,
    26: _DEMANDED_26,
    27: _DEMANDED_26,
    28: _DEMANDED_26,
    29: _DEMANDED_26,
}
"""by OTP release, what a node of it demands of a peer: ``DFLAG_DIST_MANDATORY`` of its ``dist.h``; for 24,
what 25 demands without what its notes call new"""

MANDATORY: Final = DIGEST_25
"""what this side demands: all of it has been in every OTP since 24"""

OFFERED: Final = (
    DIGEST_25
    | DistFlag.MANDATORY_25_DIGEST
    | DistFlag.UNLINK_ID  # demanded by OTP 26 and later
    | DistFlag.V4_NC  # demanded by OTP 26 and later
    | DistFlag.DIST_MONITOR
    | DistFlag.DIST_MONITOR_NAME
    | DistFlag.SMALL_ATOM_TAGS
    # Both or none: fragments have the atom cache's header, and without its flag OTP ends the connection.
    | DistFlag.DIST_HDR_ATOM_CACHE
    | DistFlag.FRAGMENTS
    | DistFlag.EXIT_PAYLOAD
    | DistFlag.SPAWN  # without it OTP's rpc and erpc give up before they ask
    | DistFlag.ALIAS  # answers to gen:call are then dropped by the runtime when they come late
)

REFUSED: Final = (
    # A fresh name for each connection leaks one atom in every peer, for ever.
    DistFlag.NAME_ME
    # Priority messages of OTP 28: mailboxes of this side have one order. Without the flag they come as
    # ordinary messages.
    | DistFlag.ALTACT_SIG
    # SEND with its sender, which nothing here asks for.
    | DistFlag.SEND_SENDER
)


def expand(flags: int) -> DistFlag:
    """The peer's flags with the digest written out; unknown bits are kept."""
    known = DistFlag(flags)
    return known | DIGEST_25 if known & DistFlag.MANDATORY_25_DIGEST else known
