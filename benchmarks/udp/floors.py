"""What the machine gives without us: plain sockets, runs with and without a cipher, the cipher alone."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections import deque
from multiprocessing.connection import Connection

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.udp.processes import peer_process
from bridge.udp import MAX_DATAGRAM_BYTES

SIZE = MAX_DATAGRAM_BYTES
ROWS = 54
"""Full datagrams of one call."""
_OUT = 20 * ROWS
"""Datagrams the bare loops have out at most, so that nothing is lost."""
_HEADER = 13
_TAG = 16
_KEY = bytes(16)
SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104


class Cipher:
    """Seals or opens runs of datagrams and does nothing else that a session must do."""

    def __init__(self, buffer: memoryview) -> None:
        """Cut views of memory that holds ``ROWS`` datagrams."""
        self._cipher = AESGCM(_KEY)
        self._plain = memoryview(bytearray(ROWS * SIZE))
        self._headers = [buffer[row * SIZE : row * SIZE + _HEADER] for row in range(ROWS)]
        self._sealed = [buffer[row * SIZE + _HEADER : (row + 1) * SIZE] for row in range(ROWS)]
        width = SIZE - _HEADER - _TAG
        self._texts = [self._plain[row * width : (row + 1) * width] for row in range(ROWS)]
        self._sequences = np.frombuffer(buffer, dtype=np.uint8).reshape(ROWS, SIZE)[:, 5:_HEADER]
        self._next = 0

    def _nonces(self) -> list[bytes]:
        joined = np.concatenate([np.zeros((ROWS, 4), np.uint8), self._sequences], axis=1).tobytes()
        return [joined[start : start + 12] for start in range(0, ROWS * 12, 12)]

    def seal(self) -> None:
        """Seal a run under new sequences."""
        sequences = np.arange(self._next, self._next + ROWS, dtype=">u8")
        self._next += ROWS
        self._sequences[:] = sequences.view(np.uint8).reshape(ROWS, 8)
        deque(
            map(self._cipher.encrypt_into, self._nonces(), self._texts, self._headers, self._sealed), maxlen=0
        )

    def open(self) -> None:
        """Open what is in the memory."""
        deque(
            map(self._cipher.decrypt_into, self._nonces(), self._sealed, self._headers, self._texts), maxlen=0
        )


def measure_cipher(seconds: float) -> tuple[float, float]:
    """Microseconds to seal and to open a datagram, on one core, without any socket."""
    cipher = Cipher(memoryview(bytearray(ROWS * SIZE)))
    times = []
    for operation in (cipher.seal, cipher.open):
        runs, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            operation()
            runs += 1
        times.append((time.perf_counter() - begun) / runs / ROWS * 1e6)
    return times[0], times[1]


def _receive_runs(pipe: Connection, *, sealed: bool) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        receiver.setsockopt(SOL_UDP, UDP_GRO, 1)
        receiver.bind(("127.0.0.1", 0))
        pipe.send(receiver.getsockname())
        buffer = memoryview(bytearray(65_536))
        cipher = Cipher(buffer[: ROWS * SIZE])
        received = 0
        while True:
            size, _, _, address = receiver.recvmsg_into([buffer], 64)
            if size == 1:
                return
            if sealed:
                cipher.open()
            received += size // SIZE
            receiver.sendto(received.to_bytes(8, "big"), address)


def measure_runs(seconds: float, *, sealed: bool) -> float:
    """Datagrams a second by UDP_SEGMENT and UDP_GRO, with the cipher or without, none of them lost."""
    with (
        peer_process(_receive_sealed_runs if sealed else _receive_plain_runs) as pipe,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        sender.settimeout(10)
        address = pipe.recv()
        buffer = memoryview(bytearray(ROWS * SIZE))
        cipher = Cipher(buffer)
        control = [(SOL_UDP, UDP_SEGMENT, struct.pack("H", SIZE))]
        sent = received = 0
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            if sealed:
                cipher.seal()
            sender.sendmsg([buffer], control, 0, address)
            sent += ROWS
            while sent - received > _OUT:
                received = int.from_bytes(sender.recv(8), "big")
        while received < sent:
            received = int.from_bytes(sender.recv(8), "big")
        elapsed = time.perf_counter() - begun
        sender.sendto(b"x", address)
        return received / elapsed


def _receive_plain_runs(pipe: Connection) -> None:
    _receive_runs(pipe, sealed=False)


def _receive_sealed_runs(pipe: Connection) -> None:
    _receive_runs(pipe, sealed=True)


def _receive_plain(pipe: Connection) -> None:
    """Count datagrams until a short one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        receiver.bind(("127.0.0.1", 0))
        pipe.send(receiver.getsockname())
        buffer = bytearray(2048)
        count = 0
        while receiver.recvfrom_into(buffer)[0] > 1:
            count += 1
        pipe.send(count)


def measure_plain(seconds: float) -> float:
    """Datagrams received a second by ``sendto`` and ``recvfrom_into``, the sender not paced."""
    datagram = os.urandom(SIZE)
    with (
        peer_process(_receive_plain) as pipe,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        address = pipe.recv()
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            for _ in range(50):
                sender.sendto(datagram, address)
        elapsed = time.perf_counter() - begun
        while not pipe.poll():
            sender.sendto(b"", address)
            select.select([], [], [], 0.01)
        received: int = pipe.recv()
        return received / elapsed


def _echo(pipe: Connection) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo:
        echo.bind(("127.0.0.1", 0))
        pipe.send(echo.getsockname())
        while True:
            datagram, address = echo.recvfrom(2048)
            if len(datagram) == 1:
                return
            echo.sendto(datagram, address)


def measure_plain_round_trips(count: int, *, size: int) -> list[float]:
    """Microseconds of round trips between two blocking sockets: the machine's own."""
    with (
        peer_process(_echo) as pipe,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        sender.settimeout(10)
        address = pipe.recv()
        times = []
        for _ in range(count):
            begun = time.perf_counter()
            sender.sendto(bytes(size), address)
            sender.recv(2048)
            times.append((time.perf_counter() - begun) * 1e6)
        sender.sendto(b"x", address)
        return times
