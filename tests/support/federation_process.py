"""A homeserver's service in a process of its own, which ends itself by SIGKILL at a step of choice.

python -m tests.support.federation_process DIRECTORY KEY-FILE PORT [STEP]
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from bridge.cli.connection import local_way, open_store
from bridge.cluster.running import running_cluster
from bridge.homeserver.federation import CourierConfig, Desk
from bridge.homeserver.federation.sealing import Sealed
from bridge.homeserver.federation.service import federating
from bridge.homeserver.rest.app import create_app
from bridge.homeserver.rest.serve import Listening, serving, store_context
from bridge.jose import Jwk
from bridge.registry.trust import FixedTrust
from tests.support.credentials import KeySigner

QUICK = CourierConfig(patience=60.0, first_wait=0.05, longest_wait=0.5, settle_every=0.1, servers_every=1.0)


class FragileDesk(Desk):
    """Ends its process before it decides, or when it has and has not said so."""

    def ends_at(self, step: str) -> None:
        self._step = step

    async def serve(self, body: bytes, seal: str) -> Sealed:
        transfers = b'"act":"offer"' in body
        if transfers:
            _end("asked", self._step)
        answer = await super().serve(body, seal)
        if transfers:
            _end("decided", self._step)
        return answer


def _end(here: str, step: str) -> None:
    if here == step:
        os.kill(os.getpid(), signal.SIGKILL)


async def run(directory: Path, key: Jwk, port: int, step: str) -> None:
    async def checkpoint(name: str) -> None:
        _end(name, step)

    async with open_store(local_way(directory, running_cluster(directory))) as store:
        context = await store_context(store, trust=FixedTrust({}))
        signer = KeySigner(key)
        async with federating(
            store, instance=context.instance, signer=signer, config=QUICK, checkpoint=checkpoint
        ) as plain:
            desk = FragileDesk(plain._escrows, instance=context.instance, signer=signer)
            desk.ends_at(step)
            app = create_app(replace(context, desk=desk))
            async with serving(app, Listening(port=port)) as (url, ended):
                sys.stdout.write(f"{url}\n")
                sys.stdout.flush()
                await ended


if __name__ == "__main__":
    asyncio.run(
        run(
            Path(sys.argv[1]),
            Jwk.from_json(Path(sys.argv[2]).read_text()),
            int(sys.argv[3]),
            sys.argv[4] if len(sys.argv) > 4 else "",
        )
    )
