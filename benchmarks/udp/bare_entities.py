"""Entities from world to world without a session: codec, cipher, UDP_SEGMENT and UDP_GRO alone."""

from __future__ import annotations

import socket
import struct
import time
from multiprocessing.connection import Connection

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.udp.floors import SOL_UDP, UDP_GRO, UDP_SEGMENT
from benchmarks.udp.processes import peer_process
from benchmarks.udp.worlds import AppliedWorld, SentWorld

_HEADER = 13
_TAG = 16
_KEY = bytes(16)
_RUN_BYTES = 65_000
"""Of one call of the kernel's at most."""


class _Cipher:
    """Seals and opens rows of payloads, one datagram each."""

    def __init__(self, rows: int, payload: int) -> None:
        self.size = _HEADER + payload + _TAG
        self.per_run = _RUN_BYTES // self.size
        self._cipher = AESGCM(_KEY)
        self._sequence = 0
        self.datagrams = memoryview(bytearray(rows * self.size))
        self.payloads = np.zeros((rows, payload), dtype=np.uint8)
        self._texts = [memoryview(row.data) for row in self.payloads]
        starts = range(0, rows * self.size, self.size)
        self._headers = [self.datagrams[start : start + _HEADER] for start in starts]
        self._sealed = [self.datagrams[start + _HEADER : start + self.size] for start in starts]

    def seal(self) -> None:
        """Seal all rows under new sequences."""
        for text, header, sealed in zip(self._texts, self._headers, self._sealed, strict=True):
            self._sequence += 1
            header[1:] = self._sequence.to_bytes(12, "big")
            self._cipher.encrypt_into(bytes(header[1:]), text, header, sealed)

    def open(self, rows: int) -> None:
        """Open the first rows."""
        for text, header, sealed in zip(
            self._texts[:rows], self._headers[:rows], self._sealed[:rows], strict=True
        ):
            self._cipher.decrypt_into(bytes(header[1:]), sealed, header, text)


def _receive(pipe: Connection, payload: int, rows: int, count: int) -> None:
    cipher, world = _Cipher(rows, payload), AppliedWorld(count)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        receiver.setsockopt(SOL_UDP, UDP_GRO, 1)
        receiver.bind(("127.0.0.1", 0))
        pipe.send(receiver.getsockname())
        applied = taken = 0
        while True:
            # A tick's runs are applied together, as the engine does.
            size, _, _, address = receiver.recvmsg_into([cipher.datagrams[taken * cipher.size :]], 64)
            if size == 1:
                return
            taken += size // cipher.size
            if taken < rows:
                continue
            cipher.open(taken)
            applied += world.apply(cipher.payloads[:taken])
            taken = 0
            receiver.sendto(applied.to_bytes(8, "big"), address)


def measure_bare_entities(seconds: float, *, payloads: int, full: bool) -> float:
    """Entities a second that a receiver applied.

    Args:
        seconds: measured.
        payloads: of a tick; the next one but one is sent when it was applied.
        full: records of 36 bytes, with velocities; else of 20.
    """
    world = SentWorld(payloads, full=full)
    first = world.payloads()
    cipher = _Cipher(payloads, first.shape[1])
    control = [(SOL_UDP, UDP_SEGMENT, struct.pack("H", cipher.size))]
    run = cipher.per_run * cipher.size
    with (
        peer_process(_receive, first.shape[1], payloads, world.count) as pipe,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        sender.settimeout(10)
        address = pipe.recv()
        sent = applied = 0
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            cipher.payloads[:] = world.payloads()
            cipher.seal()
            for start in range(0, len(cipher.datagrams), run):
                sender.sendmsg([cipher.datagrams[start : start + run]], control, 0, address)
            sent += world.count
            while sent - applied > world.count:
                applied = int.from_bytes(sender.recv(8), "big")
        while applied < sent:
            applied = int.from_bytes(sender.recv(8), "big")
        elapsed = time.perf_counter() - begun
        sender.sendto(b"x", address)
    return applied / elapsed
