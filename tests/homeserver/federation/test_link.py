"""The way between instances, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import ConfigurationError, ConnectionLostError, DeadlineError
from bridge.homeserver.federation import HttpLink, Peer, RejectedError
from bridge.homeserver.federation.link import SEAL_HEADER, fetch_keys
from bridge.jose import Jwk
from tests.support.certificates import Authority, self_signed

KEY = Jwk.generate()


@contextlib.asynccontextmanager
async def answering(
    answer: bytes, tls: ssl.SSLContext | None = None, *, body: int = 4
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A listener that says the same to everybody; its port, and what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            asked.append(head + await reader.readexactly(body))
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1], asked


def response(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def peer(*urls: str, **changes: Any) -> Peer:
    return Peer(instance="ruby", urls=urls, keys=(KEY.public(),), **changes)


async def test_a_question_goes_with_its_seal_and_the_answer_comes_with_its() -> None:
    async with (
        answering(response("200 OK", b"answer", f"{SEAL_HEADER}: theirs")) as (port, asked),
        HttpLink() as link,
    ):
        assert await link.ask(peer(f"http://127.0.0.1:{port}"), b"body", "ours") == (b"answer", "theirs")
    assert asked[0].startswith(b"POST /v1/federation HTTP/1.1")
    assert b"Khepri-Seal: ours" in asked[0]


async def test_a_refusal_says_its_kind() -> None:
    problem = b'{"type": "urn:khepri-bridge:problem:elsewhere", "detail": "ask again"}'
    async with answering(response("409 Conflict", problem)) as (port, _), HttpLink() as link:
        with pytest.raises(RejectedError, match="ask again") as refused:
            await link.ask(peer(f"http://127.0.0.1:{port}"), b"body", "s")
    assert (refused.value.status, refused.value.kind) == (409, "elsewhere")
    async with answering(response("502 Bad Gateway", b"<html>")) as (port, _), HttpLink() as link:
        with pytest.raises(RejectedError, match="502") as refused:
            await link.ask(peer(f"http://127.0.0.1:{port}"), b"body", "s")
    assert refused.value.kind == ""


async def test_where_one_url_fails_the_next_is_asked() -> None:
    async with answering(response("200 OK", b"yes", f"{SEAL_HEADER}: t")) as (port, _), HttpLink() as link:
        both = peer("http://127.0.0.1:1", f"http://127.0.0.1:{port}")
        with pytest.raises(ConnectionLostError):
            await link.ask(both, b"body", "s")
        assert await link.ask(both, b"body", "s") == (b"yes", "t")
        assert await link.ask(both, b"body", "s") == (b"yes", "t")


async def test_an_answer_without_an_end_is_cut() -> None:
    endless = response("200 OK", b"x" * 1_100_000)
    async with answering(endless) as (port, _), HttpLink() as link:
        with pytest.raises(ConnectionLostError):
            await link.ask(peer(f"http://127.0.0.1:{port}"), b"body", "s")


async def test_an_answer_that_drips_is_cut() -> None:
    dripped = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()
        dripped.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        async with HttpLink(seconds=0.1) as link:
            with pytest.raises(DeadlineError):
                await link.ask(peer(f"http://127.0.0.1:{port}"), b"body", "s")
        await dripped.wait()


async def test_an_answer_is_taken_as_it_comes() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    packed = response("200 OK", bomb, f"{SEAL_HEADER}: t", "Content-Encoding: gzip")
    async with answering(packed) as (port, asked), HttpLink() as link:
        assert await link.ask(peer(f"http://127.0.0.1:{port}"), b"body", "s") == (bomb, "t")
    assert b"Accept-Encoding: identity" in asked[0]


async def test_tls_is_of_the_pinned_authority_and_no_other(tmp_path: Path) -> None:
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    certificate = ours.issue("ruby")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate.certificate, certificate.key)
    answer = response("200 OK", b"yes", f"{SEAL_HEADER}: t")
    async with answering(answer, tls) as (port, _), HttpLink() as link:
        url = f"https://127.0.0.1:{port}"
        assert await link.ask(peer(url, ca=ours.path.read_text()), b"body", "s") == (b"yes", "t")
        for ca in (other.path.read_text(), None):
            with pytest.raises(ConnectionLostError, match="certificate"):
                await link.ask(peer(url, ca=ca), b"body", "s")
        named = peer(f"https://localhost:{port}", ca=ours.path.read_text())
        with pytest.raises(ConnectionLostError):
            await link.ask(named, b"body", "s")


async def test_a_self_signed_certificate_is_pinned_as_its_own_authority(tmp_path: Path) -> None:
    files = self_signed(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*files)
    answer = response("200 OK", b"yes", f"{SEAL_HEADER}: t")
    async with answering(answer, tls) as (port, _), HttpLink() as link:
        pinned = peer(f"https://127.0.0.1:{port}", ca=files[0].read_text())
        assert await link.ask(pinned, b"body", "s") == (b"yes", "t")


@pytest.mark.parametrize("text", ["nonsense", "", "\n"])
async def test_a_pinned_text_that_is_no_certificate_is_told(text: str) -> None:
    async with HttpLink() as link:
        with pytest.raises(ConfigurationError, match="PEM"):
            await link.ask(peer("https://127.0.0.1:1", ca=text), b"body", "s")


async def test_a_key_is_fetched_by_the_thumbprint_that_its_operator_gave() -> None:
    other = Jwk.generate()
    keys = json.dumps({"keys": [other.public().to_dict(), KEY.public().to_dict()]}).encode()
    async with answering(response("200 OK", keys), body=0) as (port, asked):
        url = f"http://127.0.0.1:{port}"
        assert await fetch_keys(url, [KEY.thumbprint()], ca=None) == [KEY.public()]
        with pytest.raises(ConfigurationError, match="no key with the thumbprint"):
            await fetch_keys(url, [Jwk.generate().thumbprint()], ca=None)
    assert asked[0].startswith(b"GET /v1/jwks.json ")
    async with answering(response("200 OK", b"{}"), body=0) as (port, _):
        with pytest.raises(ConfigurationError, match="no keys"):
            await fetch_keys(f"http://127.0.0.1:{port}", [KEY.thumbprint()], ca=None)
    async with answering(response("404 Not Found", b""), body=0) as (port, _):
        with pytest.raises(ConnectionLostError):
            await fetch_keys(f"http://127.0.0.1:{port}", [KEY.thumbprint()], ca=None)
    with pytest.raises(ConfigurationError, match="https"):
        await fetch_keys("http://ruby.example", [KEY.thumbprint()], ca=None)
