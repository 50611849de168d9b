"""The one socket adapter: runs of datagrams through a non-blocking UDP socket.

Where the kernel has them, UDP_SEGMENT sends a run of equal datagrams for one destination in one call and
UDP_GRO receives one; where it refuses, the same code makes one call per datagram. Errors that concern a
destination (ICMP, no route, a firewall) are counted and never raised: UDP may lose datagrams, and one
peer's trouble must not stop the others. IP_RECVERR stays off: with it an ICMP error from one dead peer would
fail the next send to a living one. Without it Linux reports none on a socket that serves many peers, and a
dead peer is found by its silence.

Not recvmmsg and sendmmsg by ctypes: with a thousand peers of one datagram each they took 0.53 µs instead of
0.9 for a receipt and 1.2 instead of 1.35 for a send, against several for what the session does with it.
"""

from __future__ import annotations

import errno
import ipaddress
import select
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge.errors import ConfigurationError
from bridge.udp.config import UdpConfig
from bridge.udp.peers import Address
from bridge.udp.transmit import Transmit

_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_MAX_SEGMENTS: Final = 64
"""Segments that every kernel with UDP_SEGMENT takes in one call."""
_MAX_UDP_BYTES: Final = 65_507
"""Payload of the largest UDP datagram over IPv4, and so of a run handed over in one call."""
_READ_BYTES: Final = 65_536
"""Room for one read: a merged run is never larger."""
_BUFFER_BYTES: Final = 4 * _READ_BYTES
_LAST_READ_AT: Final = _BUFFER_BYTES - _READ_BYTES
"""Bytes in the buffer beyond which there is no room for another read."""
_CONTROL_BYTES: Final = socket.CMSG_SPACE(4)
_MAX_BACKLOG: Final = 8192
"""Datagrams kept while the kernel's buffer is full; beyond it the newest are dropped."""
_MAX_REFUSALS: Final = 16
"""Runs refused in a row after which no more are tried: the first few may have been one destination's fault,
whose path is narrower or encrypted by the kernel."""
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
    """Datagrams that found neither room in the kernel nor in the backlog."""


class UdpSocket:
    """A bound, non-blocking UDP socket of one IP version.

    An IPv6 socket takes IPv6 only: through one that took both, every IPv4 peer would have a second spelling
    of its address. Link-local addresses do not work, for an :data:`Address` has no scope.
    """

    def __init__(self, config: UdpConfig) -> None:
        """Open and bind.

        Raises:
            ConfigurationError: the address is not numeric, or cannot be bound.
        """
        try:
            version = ipaddress.ip_address(config.host).version
        except ValueError as error:
            raise ConfigurationError(
                f"host is not a numeric address such as 127.0.0.1 or ::1: {config.host!r}"
            ) from error
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
        # A kernel that does not know UDP_SEGMENT would send a run as one datagram, so it is asked before.
        self.sends_segments = config.offload and self._has_option(_UDP_SEGMENT, 0)
        """Whether runs of datagrams go out in one call; turned off for good if the kernel keeps refusing."""
        self.receives_segments = config.offload and self._has_option(_UDP_GRO, 1)
        self._refusals = 0
        self._poller = select.poll()
        self._poller.register(self._socket, select.POLLIN)
        self._is_quiet = False  # whether the last time one datagram came at the most
        self._view = memoryview(bytearray(_BUFFER_BYTES))
        self._backlog: list[Transmit] = []
        self._backlog_datagrams = 0
        self._backlog_bytes = 0
        self._max_backlog_bytes = config.send_buffer_bytes

    def _has_option(self, option: int, value: int) -> bool:
        try:
            self._socket.setsockopt(_SOL_UDP, option, value)
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

    def has_datagrams(self, *, looks: int) -> bool:
        """Whether :meth:`receive` would find something, by looking at most so often.

        A look takes a quarter of what reading an empty socket does.
        """
        look = self._poller.poll
        return any(look(0) for _ in range(looks))

    def receive(
        self,
        deliver: Callable[[memoryview, int, Address], None],
        *,
        max_calls: int,
        max_bytes: int = sys.maxsize,
    ) -> bool:
        """Read until the socket is empty, at most ``max_calls`` times, or until ``max_bytes`` came.

        Reads that follow each other from one source are joined as long as their datagrams have one size.
        After a quiet time a single datagram is delivered before it is known whether more follow: a round trip
        waits for it.

        Args:
            deliver: gets each run of datagrams in the order they came: a view that is only good during the
                call, the bytes of each datagram in it (only the last may be shorter), and their source.

        Returns:
            Whether more may be waiting.
        """
        view = self._view
        receive_into = self._socket.recvmsg_into
        begin = end = segment = 0
        run_source: tuple[Any, ...] = ()
        may_wait = True
        calls = total = 0
        for _ in range(max_calls):
            if end > _LAST_READ_AT:
                deliver(view[begin:end], segment, (run_source[0], run_source[1]))
                begin = end = 0
                run_source = ()
            try:
                size, control, _, source = receive_into([view[end:]], _CONTROL_BYTES)
            except (BlockingIOError, InterruptedError):
                may_wait = False
                break
            except OSError as error:
                if error.errno == errno.EBADF:
                    may_wait = False
                    break
                self.counters.receive_errors += 1
                continue
            calls += 1
            total += size
            if not size:
                deliver(view[end:end], 1, (source[0], source[1]))
                continue
            if calls == 1 and self._is_quiet and not control:
                deliver(view[:size], size, (source[0], source[1]))
                if total < max_bytes and self._poller.poll(0):
                    continue
                may_wait = total >= max_bytes
                break
            merged = self._segment_size(control) if control else size
            if (
                source == run_source
                and (end - begin) % segment == 0
                and (merged == segment or size == merged < segment)
            ):
                end += size
            else:
                if run_source:
                    deliver(view[begin:end], segment, (run_source[0], run_source[1]))
                begin, end, segment, run_source = end, end + size, merged, source
            if total >= max_bytes:
                break
        if run_source:
            deliver(view[begin:end], segment, (run_source[0], run_source[1]))
        self.counters.system_calls_received += calls
        self._is_quiet = calls < 2 and not may_wait
        return may_wait

    @staticmethod
    def _segment_size(control: list[tuple[int, int, bytes]]) -> int:
        for level, kind, data in control:
            if level == _SOL_UDP and kind == _UDP_GRO:
                # The kernel writes an int here, though what UDP_SEGMENT takes is 16 bits.
                return int(struct.unpack_from("i", data)[0])
        raise AssertionError("only UDP_GRO asks the kernel for control messages")

    def send(self, transmits: Sequence[Transmit]) -> bool:
        """Send in order; what the kernel has no room for waits for :meth:`flush`.

        Args:
            transmits: not kept: what has to wait is copied.

        Returns:
            Whether something waits: :attr:`has_backlog`.
        """
        rest = transmits if self._backlog else self._send_all(transmits)
        if not rest:
            return False
        self._keep(rest)
        return bool(self._backlog)

    def flush(self) -> None:
        """Send what waits, as far as the kernel has room."""
        waiting, self._backlog = self._backlog, []
        self._backlog_datagrams = self._backlog_bytes = 0
        self._keep(self._send_all(waiting))

    def _keep(self, transmits: Sequence[Transmit]) -> None:
        for payload, segment, address in transmits:
            waiting = Transmit(bytes(payload), segment, address)
            count = waiting.datagram_count
            if (
                self._backlog_datagrams + count > _MAX_BACKLOG
                or self._backlog_bytes + len(payload) > self._max_backlog_bytes
            ):
                self.counters.backlog_dropped += count
                continue
            self._backlog.append(waiting)
            self._backlog_datagrams += count
            self._backlog_bytes += len(payload)

    def _send_all(self, transmits: Sequence[Transmit]) -> Sequence[Transmit]:
        """Send from the front; returns what the kernel has no room for."""
        position, total = 0, len(transmits)
        counters, sendto = self.counters, self._socket.sendto
        while position < total:
            run = transmits[position]
            payload, segment, address = run
            end = position + 1
            is_single = len(payload) <= segment
            if is_single and (end == total or not self.sends_segments or transmits[end].address != address):
                # One for each of many: what _send_datagram does, without a call.
                try:
                    sendto(payload, address)
                except OSError as error:
                    if error.errno in _BLOCKED:
                        return transmits[position:]
                    counters.send_errors += 1
                else:
                    counters.system_calls_sent += 1
                position = end
                continue
            if is_single:
                end = self._joined_end(transmits, position)
                # One buffer: as an iovec of fifty the kernel copies more slowly.
                joined = b"".join([transmit.payload for transmit in transmits[position:end]])
                run = Transmit(joined, len(payload), address)
            rest = self._send_run(run)
            if rest is not None:
                return [rest, *transmits[end:]]
            position = end
        return ()

    def _send_datagram(self, datagram: bytes | memoryview, address: Address) -> bool:
        """Whether it is done with, sent or refused, because the kernel had room."""
        try:
            self._socket.sendto(datagram, address)
        except OSError as error:
            if error.errno in _BLOCKED:
                return False
            self.counters.send_errors += 1
        else:
            self.counters.system_calls_sent += 1
        return True

    def _send_run(self, run: Transmit) -> Transmit | None:
        """Send several datagrams; returns the part of them that the kernel has no room for."""
        view, (_, segment, address) = memoryview(run.payload), run
        start = 0
        refused_at: int | None = None
        whole = segment * _segments_in_call(segment) if self.sends_segments else segment
        while start < len(view):
            part = view[start : start + whole]
            if len(part) <= segment:
                if not self._send_datagram(part, address):
                    return Transmit(view[start:], segment, address)
            else:
                try:
                    control = [(_SOL_UDP, _UDP_SEGMENT, struct.pack("H", segment))]
                    self._socket.sendmsg([part], control, 0, address)
                except OSError as error:
                    if error.errno in _BLOCKED:
                        return Transmit(view[start:], segment, address)
                    if error.errno in _NO_OFFLOAD:
                        refused_at = self.counters.system_calls_sent
                        whole = segment
                        continue
                    self.counters.send_errors += -(-len(part) // segment)
                else:
                    self._refusals = 0
                    self.counters.system_calls_sent += 1
            start += whole
        if refused_at is not None and self.counters.system_calls_sent > refused_at:
            # Where single datagrams are refused as well it is the destination, which a stranger may have
            # made up: port 0, or a link-local address.
            self._refusals += 1
            self.sends_segments = self._refusals < _MAX_REFUSALS
        return None

    @staticmethod
    def _joined_end(transmits: Sequence[Transmit], start: int) -> int:
        """Where the single datagrams end that one call can send: of equal size, the last perhaps shorter."""
        first, segment, address = transmits[start]
        size = len(first)
        if size > segment:
            return start + 1
        stop = min(len(transmits), start + _segments_in_call(size))
        for position in range(start + 1, stop):
            payload, segment, other = transmits[position]
            if other != address or len(payload) > min(segment, size):
                return position
            if len(payload) < size:
                return position + 1
        return stop


def _segments_in_call(segment: int) -> int:
    return max(1, min(_MAX_SEGMENTS, _MAX_UDP_BYTES // segment))
