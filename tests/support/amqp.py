"""As much of AMQP 0-9-1 as it takes to use a broker: one connection, one channel, durable messages, confirms.

Frames and methods: AMQP 0-9-1, §2.3 and §2.3.5.
"""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Final, Self

_METHOD: Final = 1
_HEADER: Final = 2
_BODY: Final = 3
_FRAME_END: Final = 0xCE
_DELIVERY_MODE: Final = 1 << 12
_PERSISTENT: Final = 2

_START_OK: Final = (10, 11)
_TUNE_OK: Final = (10, 31)
_OPEN: Final = (10, 40)
_CHANNEL_OPEN: Final = (20, 10)
_QUEUE_DECLARE: Final = (50, 10)
_BASIC_PUBLISH: Final = (60, 40)
_BASIC_GET: Final = (60, 70)
_GET_OK: Final = (60, 71)
_CONFIRM_SELECT: Final = (85, 10)


class Amqp:
    """A connection as ``user``, with one channel on which every publication is confirmed."""

    def __init__(self, host: str, user: str, password: str) -> None:
        self._socket = socket.create_connection((host, 5672), timeout=30.0)
        self._file = self._socket.makefile("rb")
        try:
            self._open(user, password)
        except BaseException:
            self.close()
            raise

    def _open(self, user: str, password: str) -> None:
        self._socket.sendall(b"AMQP\0\0\x09\x01")
        self._method()
        response = _long(f"\0{user}\0{password}".encode())
        self._call(_START_OK, _long(b"") + _short("PLAIN") + response + _short("en_US"), channel=0)
        self._send(_METHOD, struct.pack(">HHHIH", *_TUNE_OK, 1, 131072, 0), channel=0)
        self._call(_OPEN, _short("/") + _short("") + b"\0", channel=0)
        self._call(_CHANNEL_OPEN, _short(""))
        self._call(_CONFIRM_SELECT, b"\0")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave without a word; the broker notices."""
        self._file.close()
        self._socket.close()

    def declare(self, queue: str, *, kind: str) -> None:
        """Declare a durable queue of a kind (``classic``, ``quorum``)."""
        arguments = _short("x-queue-type") + b"S" + _long(kind.encode())
        self._call(_QUEUE_DECLARE, b"\0\0" + _short(queue) + b"\x02" + _long(arguments))

    def publish(self, queue: str, body: bytes) -> None:
        """Put a durable message into a queue; returns when the broker has confirmed it."""
        self._send(_METHOD, struct.pack(">HHH", *_BASIC_PUBLISH, 0) + _short("") + _short(queue) + b"\0")
        self._send(_HEADER, struct.pack(">HHQHB", 60, 0, len(body), _DELIVERY_MODE, _PERSISTENT))
        self._send(_BODY, body)
        self._method()

    def get(self, queue: str) -> bytes | None:
        """Take one message, or ``None`` from an empty queue."""
        if self._call(_BASIC_GET, b"\0\0" + _short(queue) + b"\x01") != _GET_OK:
            return None
        self._frame()
        return self._frame()

    def _call(self, method: tuple[int, int], arguments: bytes, *, channel: int = 1) -> tuple[int, int]:
        self._send(_METHOD, struct.pack(">HH", *method) + arguments, channel=channel)
        return self._method()

    def _send(self, kind: int, payload: bytes, *, channel: int = 1) -> None:
        head = struct.pack(">BHI", kind, channel, len(payload))
        self._socket.sendall(head + payload + bytes([_FRAME_END]))

    def _method(self) -> tuple[int, int]:
        """Wait for a method; a refusal (``close``) is an error with the broker's text."""
        payload = self._frame()
        method: tuple[int, int] = struct.unpack_from(">HH", payload)
        if method in ((10, 50), (20, 40)):
            raise ConnectionError(payload[7 : 7 + payload[6]].decode(errors="replace"))
        return method

    def _frame(self) -> bytes:
        head = self._file.read(7)
        if len(head) < 7:
            raise ConnectionError("the broker closed the connection")
        payload = self._file.read(struct.unpack(">I", head[3:])[0])
        self._file.read(1)
        return payload


def _short(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def _long(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
