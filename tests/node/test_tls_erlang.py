"""Hidden nodes and real OTP nodes with ``-proto_dist inet_tls``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from bridge.dist import DistConfig
from bridge.errors import HandshakeError
from bridge.etf import Atom
from bridge.node import HiddenNode, TlsConfig
from tests.support.certificates import Authority, NodeCertificate
from tests.support.loops import on_both_loops
from tests.support.otp import COOKIE, OtpNode, PortMapper, otp_node, tls_flags

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

_16_MIB = 16 * 1024 * 1024


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture
def good(authority: Authority) -> NodeCertificate:
    return authority.issue("good")


@asynccontextmanager
async def _hidden(
    mapper: PortMapper, tls: TlsConfig | None, dist: DistConfig | None = None, *, registered: bool = True
) -> AsyncIterator[HiddenNode]:
    # Far from done when seven seconds are over: the first TLS connection of a BEAM on a busy machine.
    slow = replace(dist or DistConfig(), handshake_timeout=30.0)
    config = replace(
        mapper.node_config(), tls=tls, dist=slow, connect_timeout=30.0, call_timeout=30.0, register=registered
    )
    async with HiddenNode("sim1@127.0.0.1", cookie=COOKIE, config=config) as node:
        yield node


async def _use(node: HiddenNode, otp: OtpNode) -> None:
    """Both ways, and much."""
    box = node.mailbox()
    assert await node.call(otp.name, "erlang", "node", []) == Atom(otp.name)
    large = bytes(range(256)) * (_16_MIB // 256)
    await node.send(("echo", otp.name), (box.pid, large))
    assert await box.receive(timeout=30.0) == large
    await box.close()


_ECHO = """
register(echo, spawn(fun() ->
    F = fun(F) -> receive {From, What} -> From ! What, F(F) end end,
    F(F)
end))"""
_DIAL = """
(fun F() ->
    case nodes(hidden) of
        [] -> {box, 'sim1@127.0.0.1'} ! again;
        [_] -> timer:sleep(10), F()
    end
end)()"""
"""what is sent to a node that has gone, and is not missed yet, is lost"""


@pytest.mark.parametrize(
    "versions",
    [
        pytest.param("", id="of OTP's default version"),
        pytest.param("'tlsv1.3', 'tlsv1.2'", id="of the newest version"),
    ],
)
@on_both_loops
async def test_each_side_dials_the_other(mapper: PortMapper, good: NodeCertificate, versions: str) -> None:
    flags = tls_flags(good.option_file(versions=versions))
    async with otp_node(mapper, "hs1", flags=flags) as otp, _hidden(mapper, good.config()) as node:
        await otp.evaluate(_ECHO)
        await _use(node, otp)
        await node.disconnect(otp.name)
        box = node.mailbox("box")
        await otp.evaluate(_DIAL)
        assert await box.receive(timeout=10.0) == Atom("again")
        assert node.connected == (otp.name,)
        await _use(node, otp)


@pytest.mark.parametrize(
    ("versions", "often"), [("'tlsv1.3'", "{key_update_at, 1000000}"), ("'tlsv1.2'", "{renegotiate_at, 200}")]
)
async def test_keys_are_changed_while_the_connection_stands(
    mapper: PortMapper, good: NodeCertificate, versions: str, often: str
) -> None:
    flags = tls_flags(good.option_file(versions=versions, more=f", {often}"))
    async with otp_node(mapper, "hs1", flags=flags) as otp, _hidden(mapper, good.config()) as node:
        await otp.evaluate(_ECHO)
        await _use(node, otp)
        assert node.connected == (otp.name,)


async def test_ticks_keep_an_idle_connection_alive_over_tls(
    mapper: PortMapper, good: NodeCertificate
) -> None:
    flags = (*tls_flags(good.option_file()), "-kernel", "net_ticktime", "1")
    async with (
        otp_node(mapper, "hs1", flags=flags) as otp,
        _hidden(mapper, good.config(), DistConfig(net_ticktime=1.0)) as node,
    ):
        await node.connect(otp.name)
        ended: list[str] = []
        node.on_node_down(ended.append)
        await asyncio.sleep(3.0)  # more than twice what either side waits for the other
        assert (node.connected, ended) == ((otp.name,), [])
        otp.pause()
        while not ended:
            await asyncio.sleep(0.05)
        otp.resume()


async def _refused(node: HiddenNode, otp: OtpNode) -> str:
    with pytest.raises(HandshakeError) as caught:
        await node.connect(otp.name)
    return str(caught.value)


async def test_what_a_certificate_lacks_is_named_on_this_side(
    mapper: PortMapper, authority: Authority, stranger: Authority, good: NodeCertificate
) -> None:
    expired = authority.issue("expired", expired=True).config()
    unknown = stranger.issue("unknown")
    unknown = NodeCertificate(unknown.certificate, unknown.key, authority.path)
    for versions in ("", "'tlsv1.3'"):
        flags = tls_flags(good.option_file(versions=versions))
        async with otp_node(mapper, "hs1", flags=flags) as otp:
            async with _hidden(mapper, stranger.issue("other").config(), registered=False) as node:
                assert "not from an authority in TlsConfig.authority" in await _refused(node, otp)
            async with _hidden(mapper, unknown.config(), registered=False) as node:
                assert "the authority of this node's certificate" in await _refused(node, otp)
            async with _hidden(mapper, expired, registered=False) as node:
                assert "this node's certificate has expired" in await _refused(node, otp)
            async with _hidden(mapper, None, registered=False) as node:
                assert "speaks TLS" in await _refused(node, otp)
    flags = tls_flags(authority.issue("elsewhere", "elsewhere.example").option_file())
    async with otp_node(mapper, "hs1", flags=flags) as otp, _hidden(mapper, good.config()) as node:
        assert "is for another host" in await _refused(node, otp)


async def test_a_plain_node_is_told_from_one_with_tls(
    mapper: PortMapper, otp: OtpNode, good: NodeCertificate
) -> None:
    config = replace(mapper.node_config(), tls=good.config(), connect_timeout=2.0)
    async with HiddenNode("sim1@127.0.0.1", cookie=COOKIE, config=config) as node:
        assert "does it run with -proto_dist inet_tls" in await _refused(node, otp)


@pytest.mark.parametrize(
    ("alike", "logged"),
    [
        ("expired", "not valid now"),
        ("stranger", "not from an authority"),
        ("plain", "speaks no TLS; start it with -proto_dist inet_tls"),
    ],
)
async def test_whom_this_side_refuses_stands_in_its_log(
    mapper: PortMapper,
    authority: Authority,
    stranger: Authority,
    good: NodeCertificate,
    caplog: pytest.LogCaptureFixture,
    alike: str,
    logged: str,
) -> None:
    """It believes us, and we do not believe it."""
    flags: tuple[str, ...] = ()
    if alike != "plain":
        shown = authority.issue(alike, expired=True) if alike == "expired" else stranger.issue(alike)
        flags = tls_flags(NodeCertificate(shown.certificate, shown.key, authority.path).option_file())
    async with otp_node(mapper, "hs1", flags=flags) as otp, _hidden(mapper, good.config()) as node:
        await otp.evaluate("net_kernel:connect_node('sim1@127.0.0.1')")
        while logged not in caplog.text:
            await asyncio.sleep(0.05)
        assert node.connected == ()
