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
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bridge.errors import ConfigurationError
from bridge.udp.config import UdpConfig
from bridge.udp.peers import Address
from bridge.udp.transmit import Transmit

_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_MAX_SEGMENTS: Final = 64
"""Segments that the kernel takes in one call."""
_MAX_PAYLOAD_BYTES: Final = 65_507
"""Bytes of one call: what one IP datagram could hold, 54 datagrams of full size."""
_READ_BYTES: Final = 65_536
_JOIN_BYTES: Final = 3 * _READ_BYTES
"""Beyond so many bytes nothing more is joined to a run."""
_CONTROL_BYTES: Final = socket.CMSG_SPACE(4)
_MAX_BACKLOG: Final = 8192
"""Datagrams or runs kept while the kernel's buffer is full; beyond it the newest are dropped."""
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
        self._buffer = bytearray(_JOIN_BYTES + _READ_BYTES)
        self._view = memoryview(self._buffer)
        self._backlog: list[Transmit] = []

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

    def receive(self, deliver: Callable[[memoryview, int, Address], None], *, max_calls: int) -> bool:
        """Read until the socket is empty, at most ``max_calls`` times.

        Args:
            deliver: gets datagrams back to back, the size of each but the last, and their source. The view is
                only good during the call. What one source sent without a pause comes in one call.

        Returns:
            Whether more may be waiting.
        """
        view = self._view
        start = end = segment = 0  # of the run that is being collected
        source: Address = ("", 0)
        more = True
        for _ in range(max_calls):
            if end > _JOIN_BYTES:
                deliver(view[start:end], segment, source)
                start = end = 0
            try:
                size, control, _, sender = self._socket.recvmsg_into([view[end:]], _CONTROL_BYTES)
            except (BlockingIOError, InterruptedError):
                more = False
                break
            except OSError as error:
                if error.errno == errno.EBADF:
                    more = False
                    break
                self.counters.receive_errors += 1
                continue
            self.counters.system_calls_received += 1
            address = (sender[0], sender[1])
            if size == 0:
                deliver(view[end:end], 1, address)
                continue
            merged = self._segment_size(control) if control else 0
            length = merged if 0 < merged < size else size
            # A run goes on while it is one source's, of one size, without a shorter datagram inside.
            if end > start and (length != segment or address != source or (end - start) % segment):
                deliver(view[start:end], segment, source)
                start = end
            end, segment, source = end + size, length, address
        if end > start:
            deliver(view[start:end], segment, source)
        return more

    @staticmethod
    def _segment_size(control: list[tuple[int, int, bytes]]) -> int:
        for level, kind, data in control:
            if level == _SOL_UDP and kind == _UDP_GRO:
                # The kernel writes an int here, though what UDP_SEGMENT takes is 16 bits.
                return int(struct.unpack_from("i", data)[0])
        return 0

    # -- sending ------------------------------------------------------------------------------

    def send(self, transmits: list[Transmit]) -> None:
        """Send in order; what the kernel has no room for waits for :meth:`flush`."""
        if self._backlog:
            self._keep(transmits)
            self.flush()
            return
        self._keep(self._send_all(transmits))

    def flush(self) -> None:
        """Send what waits, as far as the kernel has room."""
        waiting, self._backlog = self._backlog, []
        self._backlog = self._send_all(waiting)

    def _keep(self, transmits: list[Transmit]) -> None:
        room = _MAX_BACKLOG - len(self._backlog)
        self.counters.backlog_dropped += sum(
            [transmit.datagram_count for transmit in transmits[max(0, room) :]]
        )
        self._backlog += transmits[: max(0, room)]

    def _send_all(self, transmits: list[Transmit]) -> list[Transmit]:
        """Send from the front; returns what there was no room for."""
        runs = deque(self._joined(transmits) if self.sends_segments else transmits)
        while runs:
            run = runs[0]
            payload, segment, address = run
            try:
                if len(payload) <= segment:
                    self._socket.sendto(payload, address)
                elif self.sends_segments and len(payload) <= min(_MAX_SEGMENTS * segment, _MAX_PAYLOAD_BYTES):
                    control = [(_SOL_UDP, _UDP_SEGMENT, struct.pack("H", segment))]
                    self._socket.sendmsg([payload], control, 0, address)
                else:
                    runs.popleft()
                    runs.extendleft(reversed(self._pieces(run)))
                    continue
                self.counters.system_calls_sent += 1
            except OSError as error:
                if error.errno in _BLOCKED:
                    break
                if len(payload) > segment and error.errno in _NO_OFFLOAD:
                    self.sends_segments = False
                    continue
                self.counters.send_errors += run.datagram_count
            runs.popleft()
        return list(runs)

    def _pieces(self, run: Transmit) -> list[Transmit]:
        """A run cut into what one call can send."""
        payload, segment, address = run
        step = segment * (min(_MAX_SEGMENTS, _MAX_PAYLOAD_BYTES // segment) if self.sends_segments else 1)
        return [
            Transmit(payload[start : start + step], segment, address)
            for start in range(0, len(payload), step)
        ]

    @staticmethod
    def _joined(transmits: list[Transmit]) -> list[Transmit]:
        """Neighbours of one size and destination become runs, the last datagram of each perhaps shorter."""
        if len(transmits) < 2:
            return transmits
        joined: list[Transmit] = []
        position, total = 0, len(transmits)
        while position < total:
            first = transmits[position]
            payload, segment, address = first
            end = position + 1
            if len(payload) == segment:
                stop = min(position + min(_MAX_SEGMENTS, _MAX_PAYLOAD_BYTES // segment), total)
                while end < stop:
                    other = transmits[end]
                    length = len(other.payload)
                    if other.address != address or length > segment:
                        break
                    end += 1
                    if length < segment:
                        break
            if end == position + 1:
                joined.append(first)
            else:
                run = b"".join([transmit.payload for transmit in transmits[position:end]])
                joined.append(Transmit(run, segment, address))
            position = end
        return joined
