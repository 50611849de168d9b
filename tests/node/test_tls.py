"""Hidden nodes over TLS: who is believed, what everybody else is told, and both event loops."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
import ssl
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.dist import (
    DistConfig,
    DistConnection,
    DistEvent,
    HandshakeFailed,
    Identity,
    NameReceived,
    Received,
    Role,
    Send,
    Status,
)
from bridge.errors import DeadlineError, HandshakeError
from bridge.etf import Atom, Pid
from bridge.node import HiddenNode, NodeConfig
from bridge.node.certificates import TlsConfig
from bridge.node.tls import TlsLayer, explain
from bridge.node.transport import DistTransport
from tests.support.certificates import SERVER_ONLY, Authority, NodeCertificate
from tests.support.loops import on_both_loops
from tests.support.otp import COOKIE

_TO = Pid(Atom("b@h"), 1, 0, 6)
VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
"""Before 1.3 both sides know the outcome when the handshake ends; since then the client goes on too early."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another authority of the same name."""
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def module_tls(authority: Authority) -> TlsConfig:
    """For tests that are run many times each."""
    return authority.issue("module").config()


@pytest.fixture
def good(authority: Authority) -> NodeCertificate:
    return authority.issue("good")


def _node(alive: str, tls: TlsConfig | None, **options: object) -> HiddenNode:
    config = NodeConfig(register=False, tls=tls, **options)  # type: ignore[arg-type]
    return HiddenNode(f"{alive}@127.0.0.1", cookie=COOKIE, config=config)


def _dialler(tls: TlsConfig | None, peer: HiddenNode, **options: object) -> HiddenNode:
    return _node("a", tls, port=peer.port, **options)


@on_both_loops
async def test_two_nodes_prove_themselves_and_exchange_messages(good: NodeCertificate) -> None:
    async with _node("b", good.config()) as b, _dialler(good.config(), b) as a:
        await a.connect(b.name)
        box, echo = a.mailbox(), b.mailbox("echo")
        watch = await a.monitor(("echo", b.name))
        messages: list[object] = [1, bytes(3_000_000), (Atom("x"), [])]
        for message in messages:
            await a.send(("echo", b.name), message)
            assert await echo.receive(timeout=10.0) == message
        await b.send(box.pid, b"back")
        assert await box.receive(timeout=10.0) == b"back"
        await echo.close()
        await asyncio.wait_for(watch.wait(), 10.0)
        await a.disconnect(b.name)
        assert a.connected == ()


async def _two_that_know_each_other(tls: TlsConfig) -> tuple[HiddenNode, HiddenNode]:
    """With fixed ports, which nobody used a moment ago."""
    async with _node("a", tls) as a, _node("b", tls) as b:
        ports = {a.name: a.port, b.name: b.port}
    return tuple(_node(name[0], tls, ports=ports, listen_port=port) for name, port in ports.items())  # type: ignore[return-value]


@on_both_loops
async def test_two_nodes_that_dial_at_once_share_one_connection(good: NodeCertificate) -> None:
    one, other = await _two_that_know_each_other(good.config())
    async with one as a, other as b:
        await asyncio.gather(a.connect(b.name), b.connect(a.name))
        assert (a.connected, b.connected) == ((b.name,), (a.name,))
        box = b.mailbox()
        await a.send(box.pid, b"through")
        assert await box.receive(timeout=5.0) == b"through"


@on_both_loops
async def test_closing_sends_what_was_written_first(good: NodeCertificate) -> None:
    async with _node("b", good.config()) as b, _dialler(good.config(), b) as a:
        box = b.mailbox()
        large = os.urandom(3_000_000)
        await a.send(box.pid, large)
        await a.send(box.pid, b"last")
        await a.disconnect(b.name, timeout=10.0)
        assert await box.receive(timeout=10.0) in (large, b"last")  # small ones may overtake
        assert await box.receive(timeout=10.0) in (large, b"last")


async def _flood(node: HiddenNode, to: Pid) -> None:
    for _ in range(100):
        await node.send(to, bytes(1_000_000))


@on_both_loops
async def test_a_peer_that_does_not_read_makes_the_sender_wait(good: NodeCertificate) -> None:
    async with _node("b", good.config()) as b, _dialler(good.config(), b, call_timeout=0.2) as a:
        box = b.mailbox()
        await a.connect(b.name)
        socket = b._peers[a.name]._transport._socket  # type: ignore[union-attr]
        socket.pause_reading()
        with pytest.raises(DeadlineError, match="takes no more data"):
            await _flood(a, box.pid)
        socket.resume_reading()
        assert await box.receive(timeout=10.0) == bytes(1_000_000)


class _Wire(asyncio.Transport):
    """A socket that keeps what is written until somebody carries it on, in pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


def _layer(tls: TlsConfig, role: Role, events: list[DistEvent]) -> tuple[TlsLayer, DistTransport, _Wire]:
    """One end, with the certificate's host dialled."""
    now = asyncio.get_running_loop().time()
    name, peer, host = ("a@h", "b@h", "127.0.0.1") if role is Role.INITIATOR else ("b@h", None, None)
    config = DistConfig(handshake_length_bytes=4)
    identity = Identity(name=name, cookie="c", creation=5)
    connection = DistConnection(role, identity, challenge=7, now=now, config=config, peer=peer)

    def dispatch(transport: DistTransport, event: DistEvent) -> None:
        if isinstance(event, NameReceived):
            transport.answer_name(Status.OK)
        events.append(event)

    transport = DistTransport(connection, dispatch, lambda _: None, lambda _: None)
    context = tls.credentials.accepting() if host is None else tls.credentials.dialling()
    layer, wire = TlsLayer(transport, context, host, 60.0), _Wire()
    layer.connection_made(wire)
    return layer, transport, wire


@settings(max_examples=30)
@given(
    pieces=st.lists(st.integers(1, 20_000), max_size=100),
    size=st.one_of(st.integers(0, 300), st.integers(16_000, 17_000), st.integers(60_000, 300_000)),
)
def test_bytes_that_come_in_any_pieces_are_understood(
    module_tls: TlsConfig, pieces: list[int], size: int
) -> None:
    payload = random.Random(size).randbytes(size)

    async def carry() -> None:
        events: tuple[list[DistEvent], list[DistEvent]] = ([], [])
        a, transport, left = _layer(module_tls, Role.INITIATOR, events[0])
        b, _, right = _layer(module_tls, Role.ACCEPTOR, events[1])
        sent = False
        lengths = itertools.chain(pieces, itertools.repeat(20_000))
        while left.written or right.written or not sent:
            if transport.connection.connected and not sent:
                transport.send(Send(to=_TO), payload)
                transport.close()
                sent = True
            for wire, layer in ((left, b), (right, a)):
                length = next(lengths)
                piece = bytes(wire.written[:length])
                del wire.written[:length]
                layer.data_received(piece)
        assert left.closed
        assert Received(control=Send(to=_TO), payload=payload) in events[1]
        a.connection_lost(None)
        b.connection_lost(None)

    asyncio.run(carry())


@settings(max_examples=100)
@given(junk=st.lists(st.binary(min_size=1, max_size=600), min_size=1, max_size=4), role=st.sampled_from(Role))
def test_junk_ends_the_connection_or_waits_for_more_and_raises_nothing(
    module_tls: TlsConfig, junk: list[bytes], role: Role
) -> None:
    async def feed() -> None:
        events: list[DistEvent] = []
        layer, transport, wire = _layer(module_tls, role, events)
        for piece in junk:
            layer.data_received(piece)
        assert not transport.connection.connected
        layer.connection_lost(None)
        (event,) = events
        assert isinstance(event, HandshakeFailed)
        assert isinstance(transport.cause, Exception)
        assert "no TLS" in explain(transport.cause, peer="b@h") or wire.closed

    asyncio.run(feed())


@on_both_loops
async def test_closing_does_not_wait_for_a_stranger_in_the_middle_of_tls(good: NodeCertificate) -> None:
    async with _node("b", good.config(), max_incoming_connections=1) as b:
        reader, writer = await asyncio.open_connection("127.0.0.1", b.port)
        writer.write(b"\x16\x03\x01")
        second, other = await asyncio.open_connection("127.0.0.1", b.port)
        assert await second.read() == b""  # who has not proved anything counts towards the limit too
        other.close()
    assert await reader.read() == b""
    writer.close()


async def _refused(dialling: TlsConfig | None, accepting: TlsConfig | None) -> str:
    """What a node is told that dials another one in vain."""
    async with (
        _node("b", accepting, connect_timeout=2.0) as b,
        _dialler(dialling, b, connect_timeout=2.0) as a,
    ):
        with pytest.raises(HandshakeError) as caught:
            await a.connect(b.name)
        assert (a.connected, b.connected) == ((), ())
    return str(caught.value)


@on_both_loops
async def test_a_node_of_another_authority_is_refused_by_who_dials(
    good: NodeCertificate, stranger: Authority
) -> None:
    text = await _refused(good.config(), stranger.issue("b").config())
    assert "the certificate of b@127.0.0.1 is not from an authority in TlsConfig.authority" in text


@VERSIONS
@on_both_loops
async def test_a_node_of_another_authority_is_refused_by_who_is_dialled(
    authority: Authority, stranger: Authority, version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    other = stranger.issue("a")
    believing = NodeCertificate(other.certificate, other.key, authority.path)
    with caplog.at_level(logging.WARNING, "bridge.node"):
        text = await _refused(believing.config(minimum_version=version), authority.issue("b").config())
    assert "cannot connect to b@127.0.0.1" in text
    assert "the authority of this node's certificate" in text
    assert "not from an authority in TlsConfig.authority" in caplog.text


@VERSIONS
@on_both_loops
async def test_an_expired_certificate_is_named_by_both_sides(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    fresh = authority.issue("fresh").config(minimum_version=version)
    expired = authority.issue("expired", expired=True).config(minimum_version=version)
    assert "the certificate of b@127.0.0.1 is not valid now (certificate has expired)" in await _refused(
        fresh, expired
    )
    assert "b@127.0.0.1 says that this node's certificate has expired" in await _refused(expired, fresh)


async def test_a_revoked_certificate_is_refused_by_both_sides_and_so_is_everybody_by_an_old_list(
    authority: Authority, good: NodeCertificate
) -> None:
    lost = authority.issue("lost")
    revoked = authority.revoke(lost)
    assert "the certificate of b@127.0.0.1 is revoked" in await _refused(
        good.config(revoked=revoked), lost.config()
    )
    assert "certificate revoked" in await _refused(lost.config(), good.config(revoked=revoked))
    async with _node("b", good.config()) as b, _dialler(good.config(revoked=revoked), b) as a:
        await a.connect(b.name)
    text = await _refused(good.config(revoked=authority.revoke(expired=True)), good.config())
    assert "TlsConfig.revoked does not tell about b@127.0.0.1 (CRL has expired)" in text


@pytest.mark.parametrize("host", ["127.0.0.2", "localhost", "127.0.0.1.example"])
async def test_a_certificate_for_another_host_is_refused(
    authority: Authority, good: NodeCertificate, host: str
) -> None:
    text = await _refused(good.config(), authority.issue("elsewhere", host).config())
    assert "is for another host" in text
    assert "subjectAltName" in text


async def test_a_name_is_checked_against_its_own_certificate_wherever_it_is_dialled(
    authority: Authority, good: NodeCertificate
) -> None:
    named = authority.issue("named", "b.example").config()
    config = NodeConfig(register=False, tls=named)
    async with (
        HiddenNode("b@b.example", cookie=COOKIE, config=config) as b,
        _dialler(good.config(), b, addresses={"b.example": "127.0.0.1", "c.example": "127.0.0.1"}) as a,
    ):
        await a.connect(b.name)
        with pytest.raises(HandshakeError, match="for another host"):
            await a.connect("b@c.example")


async def test_a_certificate_that_is_for_servers_only_does_not_let_a_node_dial(
    authority: Authority, good: NodeCertificate, caplog: pytest.LogCaptureFixture
) -> None:
    await _refused(authority.issue("server", only_for=SERVER_ONLY).config(), good.config())
    assert "must have both serverAuth and clientAuth" in caplog.text


@on_both_loops
async def test_a_plain_node_and_one_with_tls_tell_each_other_apart(
    good: NodeCertificate, caplog: pytest.LogCaptureFixture
) -> None:
    assert "does it demand TLS" in await _refused(None, good.config())
    assert "speaks no TLS; start it with -proto_dist inet_tls" in caplog.text
    caplog.clear()
    assert "-proto_dist inet_tls" in await _refused(good.config(), None)
    assert "the peer speaks TLS" in caplog.text


@on_both_loops
async def test_a_peer_that_says_nothing_is_named_before_the_deadline(good: NodeCertificate) -> None:

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, _node("a", good.config(), port=port, connect_timeout=0.5) as a:
        with pytest.raises(HandshakeError, match=r"no TLS with b@127\.0\.0\.1 .*inet_tls"):
            await a.connect("b@127.0.0.1")
        with pytest.raises(DeadlineError, match="does not finish the handshake"):
            await a.connect("b@127.0.0.1", timeout=0.01)


async def test_two_nodes_in_two_threads_have_a_loop_each(good: NodeCertificate) -> None:
    """Nothing is shared between nodes of one process."""
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    here = asyncio.get_running_loop()
    received: list[object] = []

    async def other() -> None:
        async with _node("b", good.config()) as b:
            box = b.mailbox("box")
            here.call_soon_threadsafe(started.set_result, b.port)
            received.append(await box.receive(timeout=10.0))

    thread = threading.Thread(target=lambda: asyncio.run(other()))
    thread.start()
    async with _node("a", good.config(), port=await started) as a:
        down = asyncio.Event()
        a.on_node_down(lambda _: down.set())
        await a.send(("box", "b@127.0.0.1"), b"from the other thread")
        await asyncio.wait_for(down.wait(), 10.0)
    thread.join()
    assert received == [b"from the other thread"]


async def test_a_renewed_certificate_is_used_from_the_next_connection_on(authority: Authority) -> None:
    renewed = authority.issue("renewed", expired=True)
    peer = authority.issue("peer").config()
    async with _node("b", renewed.config()) as b, _dialler(peer, b) as a:
        with pytest.raises(HandshakeError, match="has expired"):
            await a.connect(b.name)
        renewed.key.write_bytes(b"half a ")  # whoever renews it is at work
        with pytest.raises(HandshakeError, match="has expired"):
            await a.connect(b.name)
        authority.issue("renewed")
        os.utime(renewed.key, ns=(1, 1))
        await a.connect(b.name)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ssl.SSLError(1, "odd"), "no TLS with b@h (odd)"),
        (ConnectionResetError("closed without a word"), "no TLS with b@h (closed without a word)"),
        (ssl.SSLCertVerificationError("odd"), "the certificate of b@h is not valid (odd)"),
    ],
)
def test_what_is_not_known_is_told_as_it_came(error: Exception, told: str) -> None:
    if isinstance(error, ssl.SSLError):
        error.reason = ""
    if isinstance(error, ssl.SSLCertVerificationError):
        error.verify_code, error.verify_message = 51, "odd"
    assert explain(error, peer="b@h").startswith(told)
