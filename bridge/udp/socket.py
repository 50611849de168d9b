"""The one socket adapter: batches of datagrams through a non-blocking UDP socket.

Where the kernel has them, UDP_SEGMENT sends up to 64 equal datagrams for one destination in one call and
UDP_GRO receives runs of them in one; where it refuses, the same code falls back to one call per datagram.
Errors that concern a destination (ICMP, no route, a firewall) are counted and never raised: UDP may lose
datagrams, and one peer's trouble must not stop the others.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bridge.errors import ConfigurationError
from bridge.udp.config import UdpConfig
from bridge.udp.peers import Address
from bridge.udp.wire import MAX_DATAGRAM_BYTES

_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_MAX_SEGMENTS: Final = 50
"""Segments in one call: the kernel takes 64, and 50 full ones stay below the 65,507 bytes of a datagram."""
_BUFFER_BYTES: Final = 65_536
_CONTROL_BYTES: Final = socket.CMSG_SPACE(4)
_MAX_BACKLOG: Final = 8192
"""Datagrams kept while the kernel's buffer is full; beyond it the newest are dropped."""
_BLOCKED: Final = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS)
_NO_OFFLOAD: Final = (errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EMSGSIZE)


@dataclass(kw_only=True, slots=True)
class SocketCounters:
    """What the socket did, since it was opened."""

    system_calls_sent: int = 0
    system_calls_received: int = 0
    send_errors: int = 0
    """Datagrams the kernel refused for their destination."""
    receive_errors: int = 0
    """Errors, ICMP mostly, that the kernel reported instead of a datagram."""
    backlog_dropped: int = 0


class UdpSocket:
    """A bound, non-blocking UDP socket."""

    def __init__(self, config: UdpConfig) -> None:
        """Open and bind.

        Raises:
            ConfigurationError: the address is not numeric, or cannot be bound.
        """
        try:
            version = ipaddress.ip_address(config.host).version
        except ValueError as error:
            raise ConfigurationError(f"host is not a numeric address: {config.host!r}") from error
        self._socket = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, config.receive_buffer_bytes)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, config.send_buffer_bytes)
            if version == 6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._socket.bind((config.host, config.port))
        except OSError as error:
            self._socket.close()
            raise ConfigurationError(f"cannot bind UDP {config.host} port {config.port}: {error}") from error
        self.counters = SocketCounters()
        self.sends_segments = config.offload
        """Whether runs of datagrams go out in one call; turned off for good once the kernel refuses."""
        self.receives_segments = config.offload and self._enable_gro()
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._backlog: list[tuple[bytes, Address]] = []

    def _enable_gro(self) -> bool:
        try:
            self._socket.setsockopt(_SOL_UDP, _UDP_GRO, 1)
        except OSError:
            return False
        return True

    @property
    def local_address(self) -> Address:
        """Where the socket is bound."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    @property
    def has_backlog(self) -> bool:
        """Whether datagrams wait for the kernel: call :meth:`flush` when the socket is writable."""
        return bool(self._backlog)

    def fileno(self) -> int:
        """For an event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket; what waits is lost."""
        self._backlog.clear()
        self._socket.close()

    # -- receiving ----------------------------------------------------------------------------

    def receive(self, deliver: Callable[[memoryview, Address], None], *, max_calls: int) -> bool:
        """Read until the socket is empty, at most ``max_calls`` times.

        Args:
            deliver: gets each datagram as a view that is only good during the call.

        Returns:
            Whether more may be waiting.
        """
        view = self._view
        for _ in range(max_calls):
            try:
                size, control, _, source = self._socket.recvmsg_into([view], _CONTROL_BYTES)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                if error.errno == errno.EBADF:
                    return False
                self.counters.receive_errors += 1
                continue
            self.counters.system_calls_received += 1
            address = (source[0], source[1])
            segment = self._segment_size(control) if control else 0
            if not 0 < segment < size:
                deliver(view[:size], address)
                continue
            for start in range(0, size, segment):
                deliver(view[start : min(start + segment, size)], address)
        return True

    @staticmethod
    def _segment_size(control: list[tuple[int, int, bytes]]) -> int:
        for level, kind, data in control:
            if level == _SOL_UDP and kind == _UDP_GRO:
                # The kernel writes an int here, though what UDP_SEGMENT takes is 16 bits.
                return int(struct.unpack_from("i", data)[0])
        return 0

    # -- sending ------------------------------------------------------------------------------

    def send(self, datagrams: list[tuple[bytes, Address]]) -> None:
        """Send in order; what the kernel has no room for waits for :meth:`flush`."""
        if self._backlog:
            room = _MAX_BACKLOG - len(self._backlog)
            self.counters.backlog_dropped += max(0, len(datagrams) - room)
            self._backlog += datagrams[: max(0, room)]
            self.flush()
            return
        sent = self._send_all(datagrams)
        if sent < len(datagrams):
            waiting = datagrams[sent:]
            self.counters.backlog_dropped += max(0, len(waiting) - _MAX_BACKLOG)
            self._backlog = waiting[:_MAX_BACKLOG]

    def flush(self) -> None:
        """Send what waits, as far as the kernel has room."""
        del self._backlog[: self._send_all(self._backlog)]

    def _send_all(self, datagrams: list[tuple[bytes, Address]]) -> int:
        """Send from the front; returns how many are done with, sent or refused."""
        position, total = 0, len(datagrams)
        while position < total:
            run = self._run_length(datagrams, position) if self.sends_segments else 1
            try:
                if run == 1:
                    datagram, address = datagrams[position]
                    self._socket.sendto(datagram, address)
                else:
                    self._send_run(datagrams[position : position + run])
                self.counters.system_calls_sent += 1
            except OSError as error:
                if error.errno in _BLOCKED:
                    return position
                if run > 1 and error.errno in _NO_OFFLOAD:
                    self.sends_segments = False
                    continue
                self.counters.send_errors += run
            position += run
        return position

    def _run_length(self, datagrams: list[tuple[bytes, Address]], start: int) -> int:
        """How many from ``start`` share address and size, the last of them perhaps shorter."""
        first, address = datagrams[start]
        size = len(first)
        stop = min(start + _MAX_SEGMENTS, len(datagrams))
        end = start + 1
        while end < stop:
            datagram, other = datagrams[end]
            length = len(datagram)
            if length > size or other != address:
                break
            end += 1
            if length < size:
                break
        return end - start

    def _send_run(self, run: list[tuple[bytes, Address]]) -> None:
        first, address = run[0]
        # One joined buffer: as an iovec of fifty the kernel copies more slowly.
        payload = b"".join([datagram for datagram, _ in run])
        control = [(_SOL_UDP, _UDP_SEGMENT, struct.pack("H", len(first)))]
        self._socket.sendmsg([payload], control, 0, address)


assert _MAX_SEGMENTS * MAX_DATAGRAM_BYTES <= 65_507, "a batch must fit one IP datagram"
