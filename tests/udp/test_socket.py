from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import ConfigurationError
from bridge.udp.config import UdpConfig
from bridge.udp.peers import Address
from bridge.udp.socket import UdpSocket
from bridge.udp.transmit import Transmit

Run = tuple[bytes, int, Address]
Open = Callable[..., UdpSocket]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens sockets on loopback that the test need not close."""
    sockets: list[UdpSocket] = []

    def open_socket(**config: Any) -> UdpSocket:
        sockets.append(UdpSocket(UdpConfig(**config)))
        return sockets[-1]

    yield open_socket
    for udp in sockets:
        udp.close()


@pytest.fixture(params=[("127.0.0.1", True), ("127.0.0.1", False), ("::1", True), ("::1", False)])
def pair(request: pytest.FixtureRequest, opened: Open) -> tuple[UdpSocket, UdpSocket]:
    host, offload = request.param
    return opened(host=host, offload=offload), opened(host=host, offload=offload)


def singles(datagrams: list[bytes], address: Address) -> list[Transmit]:
    return [Transmit.of_one(datagram, address) for datagram in datagrams]


def receive_runs(receiver: UdpSocket, number: int, *, max_calls: int = 100) -> list[Run]:
    """Runs as delivered, until they hold the number of datagrams."""
    runs: list[Run] = []
    while sum(Transmit(*run).datagram_count for run in runs) < number:
        assert select.select([receiver.fileno()], [], [], 10)[0]
        receiver.receive(
            lambda view, segment, address: runs.append((bytes(view), segment, address)), max_calls=max_calls
        )
    return runs


def receive(receiver: UdpSocket, number: int) -> list[tuple[bytes, Address]]:
    return [
        (bytes(datagram), run[2])
        for run in receive_runs(receiver, number)
        for datagram in Transmit(*run).datagrams()
    ]


def test_single_datagrams_arrive_whole_and_in_order_whatever_their_sizes(
    pair: tuple[UdpSocket, UdpSocket],
) -> None:
    sender, receiver = pair
    sizes = [1200] * 120 + [7, 1200, 1200, 300, 300, 1200, 1] + [40] * 60 + [1199]
    sent = [os.urandom(size) for size in sizes]
    sender.send(singles(sent, receiver.local_address))
    received = receive(receiver, len(sent))
    assert [datagram for datagram, _ in received] == sent
    assert {address for _, address in received} == {sender.local_address}


@pytest.mark.parametrize("size", [1, 1199, 1200, 1201, 54 * 1200, 54 * 1200 + 1, 300 * 1200 + 17])
@pytest.mark.parametrize("as_view", [False, True])
def test_runs_of_any_length_arrive_cut_into_their_segments(
    pair: tuple[UdpSocket, UdpSocket], size: int, as_view: bool
) -> None:
    sender, receiver = pair
    payload = os.urandom(size)
    transmit = Transmit(memoryview(payload) if as_view else payload, 1200, receiver.local_address)
    sender.send([transmit])
    received = [datagram for datagram, _ in receive(receiver, transmit.datagram_count)]
    assert received == [payload[start : start + 1200] for start in range(0, size, 1200)]


@settings(max_examples=25, deadline=None)
@given(
    shapes=st.lists(
        st.tuples(st.integers(1, 200), st.integers(1, 120), st.booleans()), min_size=1, max_size=20
    ),
    max_calls=st.integers(1, 5),
    offload=st.booleans(),
)
def test_what_is_delivered_is_what_was_sent_and_only_the_last_of_a_run_is_shorter(
    shapes: list[tuple[int, int, bool]], max_calls: int, offload: bool
) -> None:
    first, second, receiver = (UdpSocket(UdpConfig(offload=offload)) for _ in range(3))
    sent: list[tuple[bytes, Address]] = []
    for size, segment, is_first in shapes:
        sender = first if is_first else second
        transmit = Transmit(os.urandom(size), segment, receiver.local_address)
        sender.send([transmit])
        sent += [(bytes(datagram), sender.local_address) for datagram in transmit.datagrams()]
    received = [
        (bytes(datagram), run[2])
        for run in receive_runs(receiver, len(sent), max_calls=max_calls)
        for datagram in Transmit(*run).datagrams()
    ]
    assert received == sent
    for udp in (first, second, receiver):
        udp.close()


def test_a_run_shares_system_calls_where_the_kernel_can_and_never_exceeds_one_datagram(opened: Open) -> None:
    sender, receiver = opened(), opened()
    sender.send([Transmit(bytes(120 * 1200), 1200, receiver.local_address)])
    sender.send(singles([bytes(1200)] * 120, receiver.local_address))
    assert len(receive(receiver, 240)) == 240
    if sender.sends_segments:
        assert sender.counters.system_calls_sent == 6


def test_reads_of_one_source_are_joined_while_their_datagrams_have_one_size(opened: Open) -> None:
    sender, other, receiver = opened(), opened(), opened()
    target = receiver.local_address
    for udp, size, segment in [
        (sender, 2400, 1200),
        (sender, 1200, 1200),
        (sender, 1300, 1200),  # the last is shorter: the run ends
        (sender, 1200, 1200),
        (sender, 500, 500),  # a shorter single datagram may still end a run
        (other, 1200, 1200),
        (sender, 1200, 1200),
        (sender, 900, 300),
    ]:
        udp.send([Transmit(bytes(size), segment, target)])
    runs = [
        (len(view), segment, address == sender.local_address)
        for view, segment, address in receive_runs(receiver, 12)
    ]
    if receiver.receives_segments:
        assert runs == [
            (4900, 1200, True),
            (1700, 1200, True),
            (1200, 1200, False),
            (1200, 1200, True),
            (900, 300, True),
        ]


def test_a_long_run_is_delivered_in_parts_that_fit_the_buffer(opened: Open) -> None:
    sender, receiver = opened(), opened()
    payload = os.urandom(1000 * 1200)
    sender.send([Transmit(payload, 1200, receiver.local_address)])
    runs = receive_runs(receiver, 1000)
    assert b"".join(view for view, _, _ in runs) == payload
    assert max(len(view) for view, _, _ in runs) <= 4 * 65_536
    if receiver.receives_segments:
        assert len(runs) <= 5


def test_sources_that_take_turns_are_never_mixed(opened: Open) -> None:
    senders, receiver = [opened() for _ in range(3)], opened()
    sent = []
    for n in range(30):
        sender = senders[n % 3]
        datagram = bytes([n]) * 100
        sender.send([Transmit.of_one(datagram, receiver.local_address)])
        sent.append((datagram, 100, sender.local_address))
    assert receive_runs(receiver, 30) == sent


def test_small_datagrams_declared_larger_than_they_are_stay_apart(opened: Open) -> None:
    sender, receiver = opened(), opened()
    sender.send([Transmit(b"ab", 100, receiver.local_address), Transmit(b"cd", 100, receiver.local_address)])
    assert [datagram for datagram, _ in receive(receiver, 2)] == [b"ab", b"cd"]


def test_an_empty_datagram_is_delivered_and_ends_no_run(opened: Open) -> None:
    receiver = opened()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for datagram in (b"", b"a", b"", b"b"):
            stranger.sendto(datagram, receiver.local_address)
    assert [view for view, _, _ in receive_runs(receiver, 2)] == [b"", b"", b"ab"]


def test_receive_says_whether_more_may_wait(opened: Open) -> None:
    sender, receiver = opened(offload=False), opened(offload=False)
    sender.send(singles([b"x"] * 3, receiver.local_address))
    select.select([receiver.fileno()], [], [], 10)
    runs: list[bytes] = []

    def deliver(view: memoryview, _segment: int, _address: Address) -> None:
        runs.append(bytes(view))

    assert receiver.receive(deliver, max_calls=2)
    assert not receiver.receive(deliver, max_calls=2)
    assert runs == [b"xx", b"x"]


def test_receive_stops_once_enough_bytes_came(opened: Open) -> None:
    sender, receiver = opened(offload=False), opened(offload=False)
    sender.send(singles([b"12345678"] * 3, receiver.local_address))
    select.select([receiver.fileno()], [], [], 10)
    sizes: list[int] = []

    def deliver(view: memoryview, _segment: int, _address: Address) -> None:
        sizes.append(len(view))

    assert receiver.receive(deliver, max_calls=100, max_bytes=9)
    assert not receiver.receive(deliver, max_calls=100, max_bytes=9)
    assert sizes == [16, 8]


def test_after_a_quiet_time_a_datagram_is_delivered_before_the_next_is_read(opened: Open) -> None:
    sender, receiver = opened(), opened()
    runs: list[bytes] = []

    def deliver(view: memoryview, _segment: int, _address: Address) -> None:
        runs.append(bytes(view))
        if runs == [b"x"]:
            sender.send(singles([b"y"], receiver.local_address))  # while that one is taken
            select.select([receiver.fileno()], [], [], 10)

    assert not receiver.receive(deliver, max_calls=100)
    sender.send(singles([b"x"], receiver.local_address))
    assert receiver.has_datagrams(looks=10_000)
    assert not receiver.receive(deliver, max_calls=100)
    assert runs == [b"x", b"y"]
    assert not receiver.has_datagrams(looks=2)


@pytest.mark.parametrize(("calls", "size"), [(1, 100), (100, 1)])
def test_a_quiet_time_lets_no_more_calls_or_bytes_through(calls: int, size: int, opened: Open) -> None:
    sender, receiver = opened(), opened()
    runs: list[bytes] = []
    assert not receiver.receive(lambda *_: None, max_calls=100)
    sender.send([Transmit(b"a", 1, receiver.local_address), Transmit(b"bb", 2, receiver.local_address)])
    assert receiver.has_datagrams(looks=10_000)
    assert receiver.receive(lambda view, *_: runs.append(bytes(view)), max_calls=calls, max_bytes=size)
    assert runs == [b"a"]
    assert receive_runs(receiver, 1)[0][0] == b"bb"


class Scripted:
    """A socket whose calls fail as told, and work otherwise."""

    def __init__(self, genuine: socket.socket, **errors: list[int]) -> None:
        self._genuine = genuine
        self._errors = errors

    def _call(self, name: str, *args: Any) -> Any:
        errors = self._errors.get(name)
        if errors:
            raise OSError(errors.pop(0), "scripted")
        return getattr(self._genuine, name)(*args)

    def sendto(self, *args: Any) -> Any:
        return self._call("sendto", *args)

    def sendmsg(self, *args: Any) -> Any:
        return self._call("sendmsg", *args)

    def recvmsg_into(self, *args: Any) -> Any:
        return self._call("recvmsg_into", *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._genuine, name)


def script(udp: UdpSocket, **errors: list[int]) -> None:
    udp._socket = Scripted(udp._socket, **errors)  # type: ignore[assignment]  # a stand-in for the kernel


REFUSALS = [errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.EMSGSIZE]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_destination_that_takes_no_runs_gets_single_datagrams_and_the_others_runs(
    refusal: int, opened: Open
) -> None:
    sender, receiver, other = opened(), opened(), opened()
    script(sender, sendmsg=[refusal])
    sent = [bytes([n]) * 100 for n in range(20)]
    sender.send(singles(sent, receiver.local_address) + singles(sent, other.local_address))
    for udp in (receiver, other):
        assert [datagram for datagram, _ in receive(udp, 20)] == sent
    assert sender.counters.send_errors == 0
    if sender.sends_segments:
        assert sender.counters.system_calls_sent == 21


def test_a_kernel_that_refuses_runs_again_and_again_is_not_asked_any_more(opened: Open) -> None:
    sender, receiver = opened(), opened()
    script(sender, sendmsg=[errno.EIO] * 1000)
    for _ in range(20):
        sender.send([Transmit(bytes(500), 100, receiver.local_address)])
    assert len(receive(receiver, 100)) == 100
    assert not sender.sends_segments
    assert sender.counters.send_errors == 0


def test_runs_to_made_up_addresses_do_not_turn_runs_off_for_all(opened: Open) -> None:
    """A stranger's datagrams may come from port 0, where nothing can be sent."""
    sender = opened()
    before = sender.sends_segments
    for port in range(20):
        sender.send([Transmit(bytes(200), 100, (f"127.0.0.{port + 1}", 0))])
    assert sender.sends_segments == before
    assert sender.counters.send_errors == 40


@pytest.mark.parametrize("offload", [True, False])
def test_a_full_kernel_buffer_keeps_datagrams_for_later_and_their_order(opened: Open, offload: bool) -> None:
    sender, receiver = opened(offload=offload), opened()
    script(sender, **{"sendmsg" if sender.sends_segments else "sendto": [errno.EAGAIN]})
    target = receiver.local_address
    buffer = bytearray(b"112")
    sender.send([Transmit(memoryview(buffer), 1, target)])
    buffer[:] = b"xxx"
    waiting = [sender.has_backlog]
    sender.send([Transmit.of_one(b"3", target)])
    waiting.append(sender.has_backlog)
    sender.flush()
    waiting.append(sender.has_backlog)
    assert waiting == [True, True, False]
    assert [datagram for datagram, _ in receive(receiver, 4)] == [b"1", b"1", b"2", b"3"]


def test_a_run_that_blocks_halfway_goes_on_where_it_stopped(opened: Open) -> None:
    sender, receiver = opened(), opened()
    payload = os.urandom(70)
    calls = 0

    class Halfway(Scripted):
        def sendto(self, *args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 4:
                raise OSError(errno.EAGAIN, "scripted")
            return self._call("sendto", *args)

    sender._socket = Halfway(sender._socket, sendmsg=[errno.EIO])  # type: ignore[assignment]
    sender.send([Transmit(payload, 10, receiver.local_address)])
    waiting = [sender.has_backlog]
    sender.flush()
    assert [*waiting, sender.has_backlog] == [True, False]
    received = [datagram for datagram, _ in receive(receiver, 7)]
    assert received == [payload[start : start + 10] for start in range(0, 70, 10)]


def test_the_backlog_is_bounded_in_datagrams_and_drops_the_newest(opened: Open) -> None:
    sender, receiver = opened(offload=False), opened()
    script(sender, sendto=[errno.EAGAIN])
    sender.send([Transmit(bytes([n % 256]), 1, receiver.local_address) for n in range(8200)])
    assert sender.counters.backlog_dropped == 8
    sender.send([Transmit(b"ab", 1, receiver.local_address)])
    assert sender.counters.backlog_dropped == 10


def test_the_backlog_is_bounded_in_bytes(opened: Open) -> None:
    sender, receiver = opened(send_buffer_bytes=100_000), opened()
    script(sender, sendmsg=[errno.EAGAIN] * 3)
    run = Transmit(bytes(30_000), 1000, receiver.local_address)
    sender.send([run, run, run, run])
    assert sender.counters.backlog_dropped == 30
    sender.flush()
    assert sender.has_backlog
    assert sender.counters.backlog_dropped == 30


@pytest.mark.parametrize("error", [errno.ECONNREFUSED, errno.ENETUNREACH, errno.EPERM, errno.EHOSTUNREACH])
@pytest.mark.parametrize("offload", [True, False])
def test_trouble_with_one_destination_is_counted_and_does_not_stop_the_others(
    error: int, offload: bool, opened: Open
) -> None:
    sender, receiver, dead = opened(offload=offload), opened(), opened()
    script(sender, **({"sendmsg": [error]} if sender.sends_segments else {"sendto": [error, error]}))
    sender.send([Transmit(b"ab", 1, dead.local_address), Transmit.of_one(b"fine", receiver.local_address)])
    assert [datagram for datagram, _ in receive(receiver, 1)] == [b"fine"]
    assert sender.counters.send_errors == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("offload", [True, False])
def test_a_dead_peer_costs_the_living_ones_nothing(host: str, offload: bool, opened: Open) -> None:
    sender, living = opened(host=host, offload=offload), opened(host=host)
    dead = opened(host=host)
    address = dead.local_address
    dead.close()
    sent = []
    for n in range(50):
        datagrams = [bytes([n]) * 100] * 3
        sent += datagrams
        sender.send([*singles(datagrams, address), *singles(datagrams, living.local_address)])
        # What ICMP brought back must neither raise nor be taken for a datagram.
        sender.receive(lambda *_: pytest.fail("nobody sent anything"), max_calls=4)
    assert [datagram for datagram, _ in receive(living, 150)] == sent
    assert not sender.has_backlog
    assert sender.counters.send_errors == 0


def test_an_error_instead_of_a_datagram_is_counted_and_the_next_is_read(opened: Open) -> None:
    sender, receiver = opened(), opened()
    script(receiver, recvmsg_into=[errno.ECONNREFUSED, errno.EHOSTUNREACH])
    sender.send([Transmit.of_one(b"x", receiver.local_address)])
    assert [datagram for datagram, _ in receive(receiver, 1)] == [b"x"]
    assert receiver.counters.receive_errors == 2


def test_an_address_of_the_other_version_is_an_error_of_that_destination(opened: Open) -> None:
    sender, receiver = opened(host="::1"), opened(host="::1")
    sender.send([Transmit.of_one(b"a", ("127.0.0.1", 9)), Transmit.of_one(b"b", receiver.local_address)])
    assert [datagram for datagram, _ in receive(receiver, 1)] == [b"b"]
    assert sender.counters.send_errors == 1


def test_a_closed_socket_has_nothing_to_receive(opened: Open) -> None:
    closed = opened()
    closed.close()
    assert not closed.receive(lambda *_: None, max_calls=4)


def test_a_datagram_above_the_protocol_size_is_delivered_for_the_endpoint_to_refuse(opened: Open) -> None:
    sender, receiver = opened(), opened()
    sender.send([Transmit.of_one(bytes(9000), receiver.local_address)])
    assert len(receive(receiver, 1)[0][0]) == 9000


@pytest.mark.parametrize("host", ["localhost", "256.0.0.1", ""])
def test_a_host_that_is_no_numeric_address_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match="numeric"):
        UdpSocket(UdpConfig(host=host))


def test_a_port_in_use_is_one_clear_line(opened: Open) -> None:
    with pytest.raises(ConfigurationError, match="cannot bind"):
        opened(port=opened().local_address[1])


def test_an_ipv6_socket_leaves_ipv4_to_another(opened: Open) -> None:
    sixth = opened(host="::")
    assert opened(host="0.0.0.0", port=sixth.local_address[1]).local_address[1] == sixth.local_address[1]
