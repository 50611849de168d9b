"""Datagrams from outside, docs/protocol.md §5: headers, handshakes. Inside are :mod:`bridge.udp.frames`.

Readers of bytes from the network end in ``_untrusted`` and raise only :class:`~bridge.errors.DecodeError`.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final, NamedTuple

from bridge.errors import DecodeError

MAX_DATAGRAM_BYTES: Final = 1200
"""Every datagram of this protocol: fits any path with the IPv6 minimum of 1280."""

WIRE_VERSION: Final = 2

INIT: Final = 0x10
REPLY: Final = 0x20
RETRY: Final = 0x30
DATA: Final = 0x40
"""The lowest bit is that of the key phase's number."""

DATA_HEADER: Final = struct.Struct(">BIQ")
DATA_HEADER_BYTES: Final = DATA_HEADER.size
TAG_BYTES: Final = 16
PROLOGUE: Final = struct.Struct(">IIH")
"""Sender's time stamp, echo of the newest one it received, time the echo was held."""
HOLD_UNIT_US: Final = 64
"""Microseconds in one unit of the hold time."""
MIN_DATA_BYTES: Final = DATA_HEADER_BYTES + PROLOGUE.size + TAG_BYTES
CONNECTION_ID: Final = struct.Struct(">I")
"""The connection id alone, at offset 1 of a DATA datagram."""
NO_ECHO: Final = 0xFFFF
"""Hold time that says: no stamp received yet, or held too long to time a round trip by."""

MAX_PLAINTEXT_BYTES: Final = MAX_DATAGRAM_BYTES - DATA_HEADER_BYTES - TAG_BYTES
MAX_FRAMES_BYTES: Final = MAX_PLAINTEXT_BYTES - PROLOGUE.size

_INIT_HEADER: Final = struct.Struct(">BBB")
_BOX_LENGTH: Final = struct.Struct(">H")
_REPLY_HEADER: Final = struct.Struct(">BBIH")
_PARAMETERS: Final = struct.Struct(">BBII")
_FLAG_SIGNED: Final = 1
COOKIE_BYTES: Final = 20
INIT_DIGEST_BYTES: Final = 16
RETRY_BYTES: Final = 2 + INIT_DIGEST_BYTES + COOKIE_BYTES
MAX_INIT_BOX_BYTES: Final = MAX_DATAGRAM_BYTES - _INIT_HEADER.size - COOKIE_BYTES - _BOX_LENGTH.size
"""Room for the box of an INIT: a cookie always fits in beside it."""


class Init(NamedTuple):
    """First datagram of a handshake; ``box`` is the ASCII of a signed box, ``cookie`` 20 bytes or none."""

    box: bytes
    cookie: bytes = b""


class Reply(NamedTuple):
    """Answer to an INIT, addressed to the initiator's connection id."""

    connection_id: int
    box: bytes


class Retry(NamedTuple):
    """Answer to an INIT without a good cookie: the same INIT is to come again with this one.

    ``init_digest`` is of :func:`init_digest`, so that only who saw the INIT can answer it.
    """

    init_digest: bytes
    cookie: bytes


class Data(NamedTuple):
    """Header of a sealed datagram: what follows it is ciphertext and tag."""

    phase: int
    connection_id: int
    sequence: int


class Parameters(NamedTuple):
    """What each side tells the other inside its handshake box."""

    connection_id: int
    reliable_window: int
    """Bytes it takes before granting more, of the ordered stream and of unordered messages each."""
    wants_signed: bool = False
    """Its states come with proofs, and it wants those of the other side proven."""


Datagram = Init | Reply | Retry | Data


def init_digest(box: bytes) -> bytes:
    """What a RETRY names an INIT by: the first 16 bytes of the SHA-256 of its box."""
    return hashlib.sha256(box).digest()[:INIT_DIGEST_BYTES]


def encode_init(box: bytes, cookie: bytes = b"") -> bytes:
    """An INIT datagram, padded with zeros to exactly 1200 bytes.

    Args:
        cookie: from a RETRY, 20 bytes, or none.

    Raises:
        ValueError: the box does not fit beside a cookie, whether there is one yet or not.
    """
    if len(box) > MAX_INIT_BOX_BYTES:
        raise ValueError(f"an INIT box of {len(box)} bytes; at most {MAX_INIT_BOX_BYTES}")
    header = _INIT_HEADER.pack(INIT, WIRE_VERSION, len(cookie))
    return (header + cookie + _BOX_LENGTH.pack(len(box)) + box).ljust(MAX_DATAGRAM_BYTES, b"\0")


def encode_reply(connection_id: int, box: bytes) -> bytes:
    """A REPLY datagram, never longer than an INIT.

    Raises:
        ValueError: the box does not fit.
    """
    datagram = _REPLY_HEADER.pack(REPLY, WIRE_VERSION, connection_id, len(box)) + box
    if len(datagram) > MAX_DATAGRAM_BYTES:
        raise ValueError(f"a REPLY of {len(datagram)} bytes; at most {MAX_DATAGRAM_BYTES}")
    return datagram


def encode_retry(box: bytes, cookie: bytes) -> bytes:
    """A RETRY datagram, 38 bytes, for the INIT with this box."""
    return bytes((RETRY, WIRE_VERSION)) + init_digest(box) + cookie


def parse_datagram_untrusted(data: bytes | memoryview) -> Datagram:
    """Read the outside of a datagram.

    Args:
        data: at most 1200 bytes are accepted. It is not kept: boxes are copied out.

    Raises:
        DecodeError: not a datagram of this version, wrong size, or trailing bytes.
    """
    size = len(data)
    if not DATA_HEADER_BYTES <= size <= MAX_DATAGRAM_BYTES:
        raise DecodeError("datagram size out of bounds")
    kind = data[0]
    if kind & 0xFE == DATA:
        if size < MIN_DATA_BYTES:
            raise DecodeError("datagram too short to be sealed")
        first, connection_id, sequence = DATA_HEADER.unpack_from(data)
        return Data(first & 1, connection_id, sequence)
    if data[1] != WIRE_VERSION:
        raise DecodeError("datagram of another version")
    if kind == INIT:
        return _init_untrusted(data)
    if kind == REPLY:
        _, _, connection_id, length = _REPLY_HEADER.unpack_from(data)
        if _REPLY_HEADER.size + length != size:
            raise DecodeError("REPLY length")
        return Reply(connection_id, bytes(data[_REPLY_HEADER.size :]))
    if kind == RETRY:
        if size != RETRY_BYTES:
            raise DecodeError("RETRY length")
        return Retry(bytes(data[2 : 2 + INIT_DIGEST_BYTES]), bytes(data[2 + INIT_DIGEST_BYTES :]))
    raise DecodeError("unknown datagram type")


def _init_untrusted(data: bytes | memoryview) -> Init:
    if len(data) != MAX_DATAGRAM_BYTES:
        raise DecodeError("INIT is not padded to the full size")
    cookie_length = data[2]
    if cookie_length not in (0, COOKIE_BYTES):
        raise DecodeError("INIT with a cookie of another size")
    start = _INIT_HEADER.size + cookie_length
    (length,) = _BOX_LENGTH.unpack_from(data, start)
    start += _BOX_LENGTH.size
    end = start + length
    if length > MAX_INIT_BOX_BYTES or bytes(data[end:]).strip(b"\0"):
        raise DecodeError("INIT length or padding")
    return Init(bytes(data[start:end]), bytes(data[_INIT_HEADER.size : _INIT_HEADER.size + cookie_length]))


def encode_parameters(parameters: Parameters) -> bytes:
    """The payload of a handshake box: 10 bytes."""
    connection_id, window, wants_signed = parameters
    return _PARAMETERS.pack(WIRE_VERSION, _FLAG_SIGNED if wants_signed else 0, connection_id, window)


def parse_parameters_untrusted(payload: bytes) -> Parameters:
    """Read the payload of a handshake box.

    Raises:
        DecodeError: wrong size, version or flags.
    """
    if len(payload) != _PARAMETERS.size:
        raise DecodeError("handshake parameters have another size")
    version, flags, connection_id, window = _PARAMETERS.unpack(payload)
    if version != WIRE_VERSION or flags & ~_FLAG_SIGNED:
        raise DecodeError("handshake parameters of another version")
    return Parameters(connection_id, window, bool(flags & _FLAG_SIGNED))
