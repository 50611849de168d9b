"""Memory of idle peers: what the measuring process grows by for each session that does nothing."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.udp.crowd import OPTIONS, crowd_peers, generate_keys, run_crowd
from benchmarks.udp.processes import peer_process
from bridge.jose import Jwk
from bridge.udp import UdpConfig, UdpEngine

_FIRST = 20
"""Peers connected before the first reading: what the first ones bring along belongs to nobody."""


def _resident_bytes() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def _run(keys: list[dict[str, Any]], addresses: list[tuple[str, int]], identity: Jwk) -> float:
    async with UdpEngine(UdpConfig(**OPTIONS), identity=identity, on_event=lambda _event: None) as engine:
        readings = []
        peers = crowd_peers(keys, addresses)
        for group in (peers[:_FIRST], peers[_FIRST:]):
            for peer in group:
                engine.add_peer(peer)
            await asyncio.gather(*(engine.connect(peer.name, timeout=60) for peer in group))
            await asyncio.sleep(0.5)
            readings.append(_resident_bytes())
        return (readings[1] - readings[0]) / 1024 / (len(peers) - _FIRST)


def measure_peer_kib(peers: int) -> float:
    """KiB for each of so many idle peers."""
    identity, keys = Jwk.generate(), generate_keys(peers + _FIRST)
    with peer_process(run_crowd, keys, identity.public().to_dict()) as pipe:
        result = uvloop.run(_run(keys, pipe.recv(), identity))
        pipe.send("end")
    return result
