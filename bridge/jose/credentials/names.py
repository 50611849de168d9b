"""What may be a name: of a server, an entity, a player, a scene, an instance (``docs/protocol.md`` §1).

A name is a component of a path, in the store as in a URL, and is shown to people. So one that would be taken
for several components, or for a step, is none, nor is one that a terminal would obey.
"""

from __future__ import annotations

from typing import Final

MAX_NAME_BYTES: Final = 255
NAME_PATTERN: Final = r"[^/\x00-\x1f\x7f-\x9f]+$"
"""what a name consists of, a regular expression without its beginning; ``.`` and ``..`` match and are none"""


def name_fault(text: str) -> str | None:
    """Why a text is no name; ``None`` where it is one."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "is no text of whole characters"
    if not 1 <= size <= MAX_NAME_BYTES:
        return f"has {size} bytes of UTF-8, and a name has 1 to {MAX_NAME_BYTES}"
    if "/" in text or text in (".", ".."):
        return "has a `/`, or is `.` or `..`: no path can hold it"
    if any(char < " " or "\x7f" <= char <= "\x9f" for char in text):
        return "has a control character"
    return None
