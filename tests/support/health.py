"""Members as they would describe themselves."""

from __future__ import annotations

from typing import Any

from bridge.khepri import MemberHealth


def member_health(**changed: Any) -> MemberHealth:
    """A follower in a cluster of three, but for what is given."""
    told: dict[str, Any] = {
        "node": "hs1@h",
        "store": "homeserver",
        "type": "homeserver",
        "instance": "local",
        "running": True,
        "role": "follower",
        "term": 4,
        "leader": "hs2@h",
        "members": ("hs1@h", "hs2@h", "hs3@h"),
        "absent": (),
        "commit_index": 100,
        "last_applied": 100,
        "khepri": "0.16.0",
        "otp": "25",
    }
    return MemberHealth(**(told | changed))
