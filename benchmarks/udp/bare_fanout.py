"""A tick of fan-out without sessions: what the cipher, the sockets and numpy alone take of it."""

from __future__ import annotations

import os
import selectors
import socket
import statistics
import time
from multiprocessing.connection import Connection

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.udp.processes import peer_process
from bridge.udp import MAX_DATAGRAM_BYTES, MAX_STATE_BYTES

_HEADER = 13
_TAG = 16
_WIDTH = MAX_DATAGRAM_BYTES - _HEADER - _TAG


def _drain(pipe: Connection, peers: int) -> None:
    """Read what comes to so many sockets until told to end."""
    selector = selectors.EpollSelector()
    selector.register(pipe, selectors.EVENT_READ)
    addresses = []
    for _ in range(peers):
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.setblocking(False)
        receiver.bind(("127.0.0.1", 0))
        addresses.append(receiver.getsockname())
        selector.register(receiver, selectors.EVENT_READ, receiver)
    pipe.send(addresses)
    buffer = bytearray(2048)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                return
            key.data.recvfrom_into(buffer)


def measure_bare_fan_out(ticks: int, *, peers: int, entities: int, record_bytes: int, pause: float) -> float:
    """Milliseconds of a tick, median: gather, seal each datagram under its own key, ``sendto`` each peer.

    Args:
        ticks: measured.
        peers: of a socket each.
        entities: in the world that datagrams are gathered from.
        record_bytes: of an entity.
        pause: seconds between ticks.
    """
    seen_each = MAX_STATE_BYTES // record_bytes
    random = np.random.default_rng(1)
    world = random.integers(0, 256, (entities, record_bytes), dtype=np.uint8)
    seen = random.integers(0, entities, (peers, seen_each))
    rows = np.zeros((peers, _WIDTH), dtype=np.uint8)
    datagrams = np.zeros((peers, MAX_DATAGRAM_BYTES), dtype=np.uint8)
    memory, texts = memoryview(datagrams.data).cast("B"), memoryview(rows.data).cast("B")
    starts = range(0, peers * MAX_DATAGRAM_BYTES, MAX_DATAGRAM_BYTES)
    whole = [memory[start : start + MAX_DATAGRAM_BYTES] for start in starts]
    headers = [datagram[:_HEADER] for datagram in whole]
    sealed = [datagram[_HEADER:] for datagram in whole]
    plain = [texts[start : start + _WIDTH] for start in range(0, peers * _WIDTH, _WIDTH)]
    seals = [AESGCM(os.urandom(16)).encrypt_into for _ in range(peers)]
    times = []
    with (
        peer_process(_drain, peers) as pipe,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        addresses = pipe.recv()
        for tick in range(ticks):
            time.sleep(pause)
            begun = time.perf_counter()
            rows[:, : seen_each * record_bytes] = world.take(seen, axis=0).reshape(peers, -1)
            nonce = tick.to_bytes(12, "big")
            for seal, text, header, target in zip(seals, plain, headers, sealed, strict=True):
                seal(nonce, text, header, target)
            for datagram, address in zip(whole, addresses, strict=True):
                sender.sendto(datagram, address)
            times.append(1000 * (time.perf_counter() - begun))
        pipe.send("end")
    return statistics.median(times[1:])
