"""The services of one instance's homeservers, in a process of its own: REST, signer, federation.

Run as ``python -m benchmarks.passes.instance DIRECTORY``: it writes one line of JSON with its URL and its
public key, serves until its standard input ends, and then writes the messages that crossed to it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from bridge.authority import Message
from bridge.cli.connection import local_way, open_store
from bridge.cluster.local import LocalCluster
from bridge.cluster.running import running_cluster
from bridge.homeserver.federation import CourierConfig
from bridge.homeserver.federation.service import federating
from bridge.homeserver.issuing import IssuingSettings
from bridge.homeserver.rest.app import create_app
from bridge.homeserver.rest.serve import Listening, serving, store_context
from bridge.homeserver.signer.client import SignerClient
from bridge.homeserver.signer.policy import SigningPolicy
from bridge.homeserver.signer.server import serving_signer
from bridge.jose import Jwk
from bridge.registry.trust import Trust

_MAX_LINE_BYTES: Final = 64 << 20
_COURIER: Final = CourierConfig(servers_every=0.5)


async def _serve(directory: Path) -> None:
    key = Jwk.generate()
    messages: list[Message] = []
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    async with AsyncExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = await stack.enter_async_context(open_store(local_way(directory, running_cluster(directory))))
        instance = (await store.health()).instance
        policy = SigningPolicy(instance=instance, current=key)
        await stack.enter_async_context(serving_signer(policy, place / "signer"))
        signer = await stack.enter_async_context(SignerClient(place / "signer"))
        trust = await stack.enter_async_context(Trust(store))
        issuing = IssuingSettings(open_registration=True)
        context = await store_context(store, trust=trust, signer=signer, issuing=issuing)
        if context.issuing is not None:
            await stack.enter_async_context(context.issuing.publishing())
        desk = await stack.enter_async_context(
            federating(store, instance=instance, signer=signer, config=_COURIER, on_message=messages.append)
        )
        app = create_app(replace(context, desk=desk))
        url, _ = await stack.enter_async_context(serving(app, Listening(port=0)))
        _write({"url": url, "instance": instance, "key": key.public().to_dict()})
        await reader.read()
        _write(msgspec.to_builtins(messages))


def _write(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


@dataclass(slots=True)
class Instance:
    """A running instance's services, seen from the benchmark.

    Attributes:
        port: where they listen.
        key: that the instance signs with, public.
        messages: what crossed to them; once they have ended.
    """

    name: str
    port: int
    key: Jwk
    messages: list[Message] = field(default_factory=list)


@asynccontextmanager
async def services(cluster: LocalCluster) -> AsyncIterator[Instance]:
    """Services over a cluster of this machine; their messages are there when the block has ended."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.passes.instance", str(cluster.directory)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_MAX_LINE_BYTES,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        told = json.loads(await process.stdout.readline())
        port = int(told["url"].rpartition(":")[2])
        instance = Instance(told["instance"], port, Jwk.from_dict(told["key"]))
        yield instance
        process.stdin.close()
        instance.messages += msgspec.json.decode(await process.stdout.readline(), type=list[Message])
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1])))
