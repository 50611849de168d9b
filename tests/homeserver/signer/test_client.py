from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.errors import ClosedError, ConnectionLostError, ProtocolError, SignatureError
from bridge.homeserver.signer.client import SignerClient
from bridge.homeserver.signer.messages import Answer, Keys, Refused, Signed, Status, encode_frame
from bridge.homeserver.signer.policy import SigningPolicy
from bridge.homeserver.signer.server import serving_signer
from bridge.jose import Jwk
from bridge.jose.credentials import AccessToken, Signer, keyring, read_access_untrusted
from tests.support.credentials import INSTANCE, ISSUER, access_token

ALICE = Jwk.generate()


def policy() -> SigningPolicy:
    return SigningPolicy(instance=INSTANCE, current=ISSUER)


def claims() -> dict[str, object]:
    now = int(time.time())
    return access_token(ALICE, issued_at=now, expires_at=now + 60).claims()


@contextlib.asynccontextmanager
async def answering(path: Path, answer: Answer) -> AsyncIterator[None]:
    """Something that gives the same answer to all."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            writer.write(encode_frame(answer))
        writer.close()

    server = await asyncio.start_unix_server(converse, str(path))
    yield
    server.close()


async def test_it_is_a_signer(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with serving_signer(policy(), path), SignerClient(path) as client:
        signer: Signer = client
        token = await signer.sign(AccessToken.TYP, claims())
        ring = keyring(await signer.keys())
        assert read_access_untrusted(token, keys=ring, instance=INSTANCE, now=time.time()).subject == "alice"
        status = await client.status()
        assert (status.instance, status.signed[AccessToken.TYP], status.refused) == (INSTANCE, 1, 0)


async def test_many_ask_at_once_and_each_gets_its_own(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with serving_signer(policy(), path), SignerClient(path) as client:

        async def one(name: str) -> str:
            token = await client.sign(AccessToken.TYP, {**claims(), "sub": name})
            ring = keyring([ISSUER])
            return read_access_untrusted(token, keys=ring, instance=INSTANCE, now=time.time()).subject

        names = [f"p{number}" for number in range(50)]
        assert await asyncio.gather(*map(one, names)) == names


async def test_what_is_refused_says_why(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with serving_signer(policy(), path), SignerClient(path) as client:
        with pytest.raises(SignatureError, match="no type"):
            await client.sign("root", claims())
        with pytest.raises(SignatureError, match="no JSON"):
            await client.sign(AccessToken.TYP, {"a": object()})


async def test_a_signer_that_was_restarted_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with SignerClient(path) as client:
        for _ in range(2):
            async with serving_signer(policy(), path):
                assert await client.keys()


async def test_it_waits_for_a_signer_that_is_about_to_start(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with SignerClient(path) as client:
        asked = asyncio.create_task(client.keys())
        await asyncio.sleep(0)
        async with serving_signer(policy(), path):
            assert await asked


async def test_a_signer_that_is_away_is_told_as_such(tmp_path: Path) -> None:
    async with SignerClient(tmp_path / "s", timeout=0.1) as client:
        with pytest.raises(ConnectionLostError, match="homeserver signer"):
            await client.keys()


async def test_a_closed_client_asks_no_more(tmp_path: Path) -> None:
    client = SignerClient(tmp_path / "s")
    await client.close()
    with pytest.raises(ClosedError):
        await client.keys()


async def test_a_question_that_was_given_up_leaves_no_answer_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with serving_signer(policy(), path), SignerClient(path) as client:
        await client.keys()
        for _ in range(20):
            asked = asyncio.create_task(client.sign(AccessToken.TYP, claims()))
            await asyncio.sleep(0)
            asked.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asked
            assert await client.keys() == [ISSUER.public()]


async def test_an_answer_to_another_question_is_told(tmp_path: Path) -> None:
    path = tmp_path / "s"
    for given in (Keys(keys=()), Status(instance="", signed={}, refused=0)):
        async with answering(path, given), SignerClient(path) as client:
            with pytest.raises(ProtocolError, match="another question"):
                await client.sign(AccessToken.TYP, claims())
    async with answering(path, Signed(token="")), SignerClient(path) as client:
        with pytest.raises(ProtocolError):
            await client.keys()
        with pytest.raises(ProtocolError):
            await client.status()
    async with answering(path, Keys(keys=("{}",))), SignerClient(path) as client:
        with pytest.raises(ProtocolError, match="keys"):
            await client.keys()
    async with answering(path, Refused(reason="no")), SignerClient(path) as client:
        with pytest.raises(SignatureError, match="refuses: no"):
            await client.keys()
