from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from bridge.errors import ConfigurationError
from bridge.udp.config import UdpConfig
from bridge.udp.peers import Address
from bridge.udp.socket import UdpSocket
from bridge.udp.transmit import Transmit

Received = list[tuple[bytes, Address]]


@pytest.fixture(params=[("127.0.0.1", True), ("127.0.0.1", False), ("::1", True), ("::1", False)])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[UdpSocket, UdpSocket]]:
    host, offload = request.param
    sockets = [UdpSocket(UdpConfig(host=host, offload=offload)) for _ in range(2)]
    yield sockets[0], sockets[1]
    for opened in sockets:
        opened.close()


def receive(receiver: UdpSocket, number: int) -> Received:
    received: Received = []

    def deliver(data: memoryview, segment: int, address: Address) -> None:
        run = Transmit(bytes(data), segment, address)
        received.extend((bytes(datagram), address) for datagram in run.datagrams())

    while len(received) < number:
        assert select.select([receiver.fileno()], [], [], 10)[0]
        receiver.receive(deliver, max_calls=100)
    return received


def singles(datagrams: Sequence[bytes], address: Address) -> list[Transmit]:
    return [Transmit.of_one(datagram, address) for datagram in datagrams]


def test_batches_arrive_whole_and_in_order_whatever_their_sizes(pair: tuple[UdpSocket, UdpSocket]) -> None:
    sender, receiver = pair
    sizes = [1200] * 120 + [7, 1200, 1200, 300, 300, 1200, 1] + [40] * 60 + [1199]
    sent = [os.urandom(size) for size in sizes]
    sender.send(singles(sent, receiver.local_address))
    received = receive(receiver, len(sent))
    assert [datagram for datagram, _ in received] == sent
    assert {address for _, address in received} == {sender.local_address}


def test_runs_for_one_destination_share_system_calls_where_the_kernel_can() -> None:
    sender, receiver = UdpSocket(UdpConfig()), UdpSocket(UdpConfig())
    sender.send(singles([bytes(1200)] * 100, receiver.local_address))
    assert len(receive(receiver, 100)) == 100
    if sender.sends_segments:
        assert sender.counters.system_calls_sent == 2
    sender.close()
    receiver.close()


@pytest.mark.parametrize("segment", [1200, 400, 1])
def test_a_run_goes_out_and_comes_in_as_runs(pair: tuple[UdpSocket, UdpSocket], segment: int) -> None:
    sender, receiver = pair
    payload = os.urandom(130 * segment - segment // 2)
    run = Transmit(payload, segment, receiver.local_address)
    sender.send([run, run])
    received = receive(receiver, 2 * run.datagram_count)
    assert [datagram for datagram, _ in received] == [bytes(one) for one in run.datagrams()] * 2


def test_runs_of_two_senders_are_kept_apart() -> None:
    senders, receiver = [UdpSocket(UdpConfig()) for _ in range(2)], UdpSocket(UdpConfig())
    for turn in range(3):
        for sender in senders:
            sender.send([Transmit(bytes([turn]) * 1000, 100, receiver.local_address)])
    received = receive(receiver, 60)
    for sender in senders:
        mine = [datagram[0] for datagram, address in received if address == sender.local_address]
        assert mine == [turn for turn in range(3) for _ in range(10)]
        sender.close()
    receiver.close()


class Scripted:
    """A socket whose calls fail as told, and work otherwise."""

    def __init__(self, genuine: socket.socket, *, sendto: list[int] = [], sendmsg: list[int] = []) -> None:  # noqa: B006
        self._genuine = genuine
        self._errors = {"sendto": list(sendto), "sendmsg": list(sendmsg)}

    def _call(self, name: str, *args: Any) -> Any:
        if self._errors[name]:
            raise OSError(self._errors[name].pop(0), "scripted")
        return getattr(self._genuine, name)(*args)

    def sendto(self, *args: Any) -> Any:
        return self._call("sendto", *args)

    def sendmsg(self, *args: Any) -> Any:
        return self._call("sendmsg", *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._genuine, name)


def script(udp: UdpSocket, **errors: list[int]) -> None:
    udp._socket = Scripted(udp._socket, **errors)  # type: ignore[assignment]  # a stand-in for the kernel


@pytest.mark.parametrize("refusal", [errno.EIO, errno.EINVAL, errno.EOPNOTSUPP])
def test_a_kernel_that_refuses_segmentation_gets_single_datagrams(refusal: int) -> None:
    sender, receiver = UdpSocket(UdpConfig()), UdpSocket(UdpConfig())
    script(sender, sendmsg=[refusal])
    sent = [bytes([n]) * 100 for n in range(20)]
    sender.send(singles(sent, receiver.local_address))
    assert [datagram for datagram, _ in receive(receiver, 20)] == sent
    assert not sender.sends_segments
    assert sender.counters.send_errors == 0
    sender.close()
    receiver.close()


def test_a_full_kernel_buffer_keeps_datagrams_for_later_and_their_order() -> None:
    sender, receiver = UdpSocket(UdpConfig(offload=False)), UdpSocket(UdpConfig())
    script(sender, sendto=[errno.EAGAIN, errno.EAGAIN])
    target = receiver.local_address
    sender.send(singles([b"1", b"2"], target))
    waiting = [sender.has_backlog]
    sender.send(singles([b"3"], target))
    waiting.append(sender.has_backlog)
    sender.flush()
    waiting.append(sender.has_backlog)
    assert waiting == [True, True, False]
    assert [datagram for datagram, _ in receive(receiver, 3)] == [b"1", b"2", b"3"]
    sender.close()
    receiver.close()


@pytest.mark.parametrize("error", [errno.ECONNREFUSED, errno.ENETUNREACH, errno.EPERM, errno.EMSGSIZE])
def test_trouble_with_one_destination_is_counted_and_does_not_stop_the_others(error: int) -> None:
    sender, receiver = UdpSocket(UdpConfig(offload=False)), UdpSocket(UdpConfig())
    script(sender, sendto=[error])
    target = receiver.local_address
    sender.send(singles([b"refused", b"fine"], target))
    assert [datagram for datagram, _ in receive(receiver, 1)] == [b"fine"]
    assert sender.counters.send_errors == 1
    sender.close()
    receiver.close()


def test_sending_where_nobody_listens_raises_nothing() -> None:
    sender = UdpSocket(UdpConfig())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        address = closed.getsockname()
    for _ in range(3):
        sender.send(singles([b"x"] * 3, address))
        sender.receive(lambda _data, _segment, _address: None, max_calls=4)
    sender.close()


def test_a_datagram_above_the_protocol_size_is_delivered_for_the_endpoint_to_refuse() -> None:
    sender, receiver = UdpSocket(UdpConfig()), UdpSocket(UdpConfig())
    sender.send(singles([bytes(9000)], receiver.local_address))
    assert len(receive(receiver, 1)[0][0]) == 9000
    sender.close()
    receiver.close()


@pytest.mark.parametrize("host", ["localhost", "256.0.0.1", ""])
def test_a_host_that_is_no_numeric_address_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match="numeric"):
        UdpSocket(UdpConfig(host=host))


def test_a_port_in_use_is_one_clear_line() -> None:
    first = UdpSocket(UdpConfig())
    with pytest.raises(ConfigurationError, match="cannot bind"):
        UdpSocket(UdpConfig(port=first.local_address[1]))
    first.close()
