"""The peer we are measured against: QUIC DATAGRAM frames (RFC 9221) between two aioquic processes."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import DatagramFrameReceived, QuicEvent, StreamDataReceived
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.udp.processes import peer_process
from bridge.udp import MAX_STATE_BYTES

_BATCH = 32
"""Datagrams given at once; more only wait longer in its queue."""
_QUEUED = 64
"""Datagrams that may wait in its queue for its congestion window."""


def _configuration(*, is_client: bool) -> QuicConfiguration:
    # 1,200 bytes of UDP payload are its default, too; what a state fills just fits.
    return QuicConfiguration(
        is_client=is_client,
        alpn_protocols=["bench"],
        max_datagram_frame_size=65_536,
        max_datagram_size=1200,
        idle_timeout=10,
        verify_mode=ssl.CERT_NONE,
    )


def _write_certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    files = directory / "certificate.pem", directory / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


class _Counter(QuicConnectionProtocol):
    """Counts datagrams; answers a stream with the count."""

    count = 0

    def quic_event_received(self, event: QuicEvent) -> None:
        """Take an event of the connection."""
        if isinstance(event, DatagramFrameReceived):
            self.count += 1
        elif isinstance(event, StreamDataReceived) and event.end_stream:
            self._quic.send_stream_data(event.stream_id, self.count.to_bytes(8, "big"), end_stream=True)
            self.transmit()


def _enlarge_buffers(transport: asyncio.BaseTransport | None) -> None:
    """As much room in the kernel as our own sockets have."""
    assert transport is not None
    udp = transport.get_extra_info("socket")
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)


def _receive(pipe: Connection) -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory() as directory:
            configuration = _configuration(is_client=False)
            configuration.load_cert_chain(*_write_certificate(Path(directory)))
            server: Any = await serve("127.0.0.1", 0, configuration=configuration, create_protocol=_Counter)
            _enlarge_buffers(server._transport)
            pipe.send(server._transport.get_extra_info("sockname"))
            while not pipe.poll():  # noqa: ASYNC110  # a pipe is no event of the loop
                await asyncio.sleep(0.2)
            server.close()

    uvloop.run(main())


async def _send(address: tuple[str, int], seconds: float) -> tuple[float, float]:
    payload = os.urandom(MAX_STATE_BYTES)
    async with connect(*address, configuration=_configuration(is_client=True)) as client:
        quic = client._quic
        _enlarge_buffers(client._transport)
        sent = 0
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            for _ in range(_BATCH):
                quic.send_datagram_frame(payload)
            sent += _BATCH
            client.transmit()
            # Its own bound on the queue: none. Who gives it more than it sends only fills memory.
            await asyncio.sleep(0)
            while len(quic._datagrams_pending) > _QUEUED:  # noqa: ASYNC110
                await asyncio.sleep(0)
        while quic._datagrams_pending:  # noqa: ASYNC110
            await asyncio.sleep(0)
        reader, writer = await client.create_stream()
        writer.write_eof()
        delivered = int.from_bytes(await asyncio.wait_for(reader.read(), 10), "big")
        elapsed = time.perf_counter() - begun
    return delivered / elapsed, 1 - delivered / sent


def measure_quic(seconds: float) -> tuple[float, float]:
    """Datagrams delivered a second, and the share of them that was lost."""
    with peer_process(_receive) as pipe:
        result = uvloop.run(_send(pipe.recv(), seconds))
        pipe.send(None)
    return result
