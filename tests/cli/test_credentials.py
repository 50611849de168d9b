"""``homeserver keygen|signer|certify|revoke``: the real signer process, and the real cluster."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.errors import SignatureError
from bridge.homeserver.signer.client import SignerClient
from bridge.jose import Jwk
from bridge.jose.credentials import Role, keyring, read_access_untrusted, read_certificate_untrusted
from bridge.jose.encoding import base64url_decode_untrusted
from bridge.khepri import Khepri
from bridge.registry import Credentials, ring_at
from tests.support.cluster import hidden_node
from tests.support.credentials import access_token, certificate

ROOT = Path(__file__).parents[2]
ALICE = Jwk.generate()


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "bridge.cli", "homeserver", *map(str, arguments)]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )


def told(*arguments: str | Path) -> Any:
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextlib.contextmanager
def signer(key: Path, socket: Path, *more: str | Path) -> Iterator[subprocess.Popen[str]]:
    arguments = command("signer", "--key", key, "--socket", socket, "--instance", "emerald", *more, "--json")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["socket"] == str(socket)
            yield process
        finally:
            process.terminate()
            process.wait(timeout=20)


@pytest.mark.slow
async def test_the_signer_signs_and_its_private_key_never_leaves_it(tmp_path: Path) -> None:
    """R0-24: everything that a caller can get out of its socket, its command line and its memory."""
    key, socket = tmp_path / "instance.jwk", tmp_path / "signer.sock"
    thumbprint = told("keygen", "--out", key)["thumbprint"]
    private = json.loads(key.read_text())["d"]
    number = base64url_decode_untrusted(private)
    with signer(key, socket) as process:
        assert socket.stat().st_mode & 0o777 == 0o600
        now = int(time.time())
        times = {"issued_at": now, "expires_at": now + 60}
        made = access_token(ALICE, **times)
        got = ""
        async with SignerClient(socket) as client:
            token = await client.sign(made.TYP, made.claims())
            keys = await client.keys()
            assert [found.thumbprint() for found in keys] == [thumbprint]
            assert not any(found.is_private for found in keys)
            ring = keyring(keys)
            assert read_access_untrusted(token, keys=ring, instance="emerald", now=now) == made
            got += token + repr(await client.status()) + repr([found.to_dict() for found in keys])
            for typ, claims in (
                ("root", made.claims()),
                (made.TYP, {**made.claims(), "exp": now + 86_400}),
                (made.TYP, {**made.claims(), "iss": "ruby", "aud": "ruby"}),
                ("kb-certificate+jwt", certificate(ALICE, role=Role.OPERATOR, **times).claims()),
            ):
                with pytest.raises(SignatureError, match="refuses") as refused:
                    await client.sign(typ, claims)
                got += str(refused.value)
        raw, writer = await asyncio.open_unix_connection(str(socket))
        for body in (b"\xa0", b"\x81\xa4type\xa8ask_keys", b"\x81\xa4type\xaaask_status"):
            writer.write(len(body).to_bytes(4) + body)
        with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(2):
                got += repr(await raw.readexactly(100_000))
        writer.close()
        for place in ("cmdline", "environ"):
            with contextlib.suppress(PermissionError):
                got += Path(f"/proc/{process.pid}/{place}").read_bytes().decode("latin-1")
        assert private not in got
        assert number.hex() not in got
        assert number.decode("latin-1") not in got
        if os.geteuid() != 0:
            memory = Path(f"/proc/{process.pid}/mem")
            with pytest.raises(PermissionError):
                memory.read_bytes()
    assert process.returncode == 0
    assert not socket.exists()


@pytest.mark.slow
async def test_a_key_that_is_to_sign_later_is_told_before(tmp_path: Path) -> None:
    """R0-24: rotation begins with publication."""
    files = tmp_path / "one.jwk", tmp_path / "two.jwk"
    thumbprints = [told("keygen", "--out", file)["thumbprint"] for file in files]
    socket = tmp_path / "s"
    with signer(files[0], socket, "--next", files[1]):
        async with SignerClient(socket) as client:
            assert [key.thumbprint() for key in await client.keys()] == thumbprints
    with signer(files[1], socket):
        async with SignerClient(socket) as client:
            assert [key.thumbprint() for key in await client.keys()] == thumbprints[1:]


@pytest.mark.slow
def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "instance.jwk"
    told("keygen", "--out", key)
    key.chmod(0o644)
    done = run("signer", "--key", key, "--socket", tmp_path / "s", "--instance", "emerald")
    assert done.returncode == 1
    assert "chmod 600" in done.stderr
    assert run("keygen", "--out", key).returncode == 1


@pytest.mark.slow
def test_an_interrupt_ends_it_quietly(tmp_path: Path) -> None:
    key = tmp_path / "instance.jwk"
    told("keygen", "--out", key)
    with signer(key, tmp_path / "s") as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0


@pytest.mark.erlang
@pytest.mark.slow
def test_an_operator_is_certified_from_the_key_file_and_revoked(tmp_path: Path) -> None:
    key, alice = tmp_path / "instance.jwk", tmp_path / "alice.public.jwk"
    thumbprint = told("keygen", "--out", key)["thumbprint"]
    alice.write_text(ALICE.public().to_json())
    with LocalCluster(LocalClusterConfig(nodes=1)) as cluster:
        place = ("--dir", cluster.directory)
        made = told("certify", "alice", "--key", key, "--of", alice, "--role", "operator", *place)
        stranger = tmp_path / "stranger.jwk"
        told("keygen", "--out", stranger)
        refused = run("certify", "bob", "--key", stranger, "--of", alice, *place)
        assert refused.returncode == 1
        assert "published" in refused.stderr
        assert run("certify", "bob", "--key", key, "--of", alice, "--role", "king", *place).returncode == 1
        assert "thumbprint" in run("revoke", "alice", *place).stderr
        told("revoke", made["thumbprint"], "--reason", "left us", *place)

        async def look() -> None:
            async with (
                hidden_node(cluster) as node,
                Khepri.connect(node, cluster.members, store=cluster.store) as store,
            ):
                credentials, now = Credentials(store), time.time()
                ring = ring_at(await credentials.keys(), now)
                assert list(ring) == [thumbprint]
                instance = (await store.health()).instance
                found = read_certificate_untrusted(made["certificate"], keys=ring, instance=instance, now=now)
                assert (found.subject, found.role) == ("alice", Role.OPERATOR)
                assert await credentials.is_revoked(found.thumbprint)

        asyncio.run(look())
