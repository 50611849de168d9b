from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.errors import ConfigurationError
from bridge.homeserver.signer.client import SignerClient
from bridge.homeserver.signer.messages import MAX_FRAME_BYTES, AskKeys, Keys, Refused, Sign, Signed
from bridge.homeserver.signer.policy import SigningPolicy
from bridge.homeserver.signer.server import MAX_CONNECTIONS, answer, serving_signer
from bridge.jose import Jwk
from bridge.jose.encoding import json_encode
from tests.support.credentials import INSTANCE, ISSUER, NOW, access_token

ALICE = Jwk.generate()


@contextlib.asynccontextmanager
async def served(path: Path) -> AsyncIterator[SigningPolicy]:
    policy = SigningPolicy(instance=INSTANCE, current=ISSUER)
    async with serving_signer(policy, path):
        yield policy


def test_a_question_has_one_answer() -> None:
    policy = SigningPolicy(instance=INSTANCE, current=ISSUER)
    claims = json_encode(access_token(ALICE).claims())
    for question, kind in (
        (AskKeys(), Keys),
        (Sign(typ="kb-access+jwt", claims=claims), Signed),
        (Sign(typ="kb-access+jwt", claims=b"[]"), Refused),
        (Sign(typ="kb-access+jwt", claims=claims[:-1]), Refused),
        (Sign(typ="root", claims=claims), Refused),
    ):
        assert isinstance(answer(policy, question, now=NOW, monotonic=0.0), kind)
    assert policy.refused == 3


async def test_the_socket_is_for_this_user_alone_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "signer.sock"
    async with served(path):
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()


async def test_a_group_may_be_let_in(tmp_path: Path) -> None:
    path, policy = tmp_path / "signer.sock", SigningPolicy(instance=INSTANCE, current=ISSUER)
    group = grp.getgrgid(os.getgid()).gr_name
    async with serving_signer(policy, path, group=group):
        assert path.stat().st_mode & 0o777 == 0o660
    with pytest.raises(ConfigurationError, match="no group"):
        async with serving_signer(policy, path, group="no such group"):
            pass


async def test_two_signers_do_not_share_a_socket_but_a_dead_ones_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "signer.sock"
    async with served(path):
        with pytest.raises(ConfigurationError, match="another signer"):
            async with served(path):
                pass
        os.link(path, tmp_path / "left")
    (tmp_path / "left").rename(path)
    async with served(path), SignerClient(path) as client:
        assert await client.keys() == [ISSUER.public()]


async def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "signer.sock"
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match="no socket"):
        async with served(path):
            pass
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    "junk", [b"", b"\0\0\0\1\xff", (MAX_FRAME_BYTES + 1).to_bytes(4) + b"x", b"\0\0\1\0half", bytes(4)]
)
async def test_who_speaks_nonsense_is_cut_off_and_others_are_served(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "signer.sock"
    async with served(path):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(junk)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        async with SignerClient(path) as client:
            now = int(time.time())
            claims = access_token(ALICE, issued_at=now, expires_at=now + 60).claims()
            assert await client.sign("kb-access+jwt", claims)


async def test_connections_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "signer.sock"
    async with served(path), contextlib.AsyncExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            client = await stack.enter_async_context(SignerClient(path))
            await client.keys()
        reader, writer = await asyncio.open_unix_connection(str(path))
        assert await reader.read() == b""
        writer.close()
