"""What the holder of a credential may be."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """As whom somebody speaks; what each may do is a table in ``docs/protocol.md`` §7."""

    PLAYER = "player"
    """speaks in its own name"""
    SERVER = "server"
    """runs simulation sessions by REST; a player's, since operators' servers join by distribution"""
    OPERATOR = "operator"
    """may do what the masters may, and enrols and revokes"""
