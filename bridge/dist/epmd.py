"""Requests to the Erlang port mapper and its answers.

Source: Erlang "Distribution Protocol", section "EPMD Protocol".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from bridge.errors import DecodeError

_HIDDEN: Final = 72
_VISIBLE: Final = 77
_VERSION: Final = 6
NAMES_REQUEST: Final = b"\0\1n"
"""NAMES_REQ: all names of one port mapper"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """Where a node listens."""

    port: int
    hidden: bool
    highest_version: int


def encode_alive2(name: str, port: int, *, hidden: bool) -> bytes:
    """ALIVE2_REQ for the part of a node name before ``@``; it holds as long as its connection."""
    raw = name.encode()
    kind = _HIDDEN if hidden else _VISIBLE
    body = struct.pack(">BHBBHHH", 120, port, kind, 0, _VERSION, _VERSION, len(raw)) + raw + b"\0\0"
    return len(body).to_bytes(2, "big") + body


def parse_alive2(data: bytes) -> int | None:
    """The creation that the port mapper gave, or ``None`` where the name is taken.

    Args:
        data: 4 bytes (ALIVE2_RESP, result and 16-bit creation) or 6 (ALIVE2_X_RESP, 32-bit creation).

    Raises:
        DecodeError: no answer to ALIVE2_REQ.
    """
    if (len(data) == 6 and data[0] == 118) or (len(data) == 4 and data[0] == 121):
        creation = int.from_bytes(data[2:], "big")
    else:
        raise DecodeError("the port mapper did not answer the registration")
    return None if data[1] else creation


def encode_port_please(name: str) -> bytes:
    """PORT_PLEASE2_REQ for the part of the node name before ``@``."""
    body = b"z" + name.encode()
    return len(body).to_bytes(2, "big") + body


def parse_port_please(data: bytes) -> Registered | None:
    """Where the node listens, or ``None`` where none is registered; the stream ends after the answer.

    Raises:
        DecodeError: no answer to PORT_PLEASE2_REQ.
    """
    if len(data) < 2 or data[0] != 119:
        raise DecodeError("the port mapper did not answer the look-up")
    if data[1] != 0:
        return None
    try:
        port, kind, _protocol, highest, _lowest = struct.unpack_from(">HBBHH", data, 2)
    except struct.error:
        raise DecodeError("the port mapper's answer is truncated") from None
    return Registered(port=port, hidden=kind == _HIDDEN, highest_version=highest)


def parse_names(data: bytes) -> dict[str, int]:
    """Port by the part of each registered name before ``@``; the stream ends after the answer.

    Args:
        data: 4 bytes of the port mapper's own port, then a line ``name … at port …`` for each node.

    Raises:
        DecodeError: no answer to NAMES_REQ.
    """
    if len(data) < 4:
        raise DecodeError("the port mapper's answer is truncated")
    names = {}
    try:
        for line in data[4:].decode().splitlines():
            name, port = line.removeprefix("name ").rsplit(" at port ", 1)
            names[name] = int(port)
    except ValueError:
        raise DecodeError("the port mapper did not answer with names") from None
    return names
