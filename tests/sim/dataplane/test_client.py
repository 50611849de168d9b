"""The control plane's end, against real data-plane processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest

from bridge.authority import Accepted, Act, HandOver, decode_entries, decode_message_untrusted, encode_message
from bridge.errors import ClosedError, ConfigurationError, InvalidStateError
from bridge.jose import Jwk
from bridge.replication import decode_state_untrusted
from bridge.sim.dataplane import client
from bridge.sim.dataplane.messages import (
    Fatal,
    FirstAccepted,
    Hold,
    PeerMessageReceived,
    PeerUp,
    RaiseFence,
    Ready,
    SendMessage,
)
from tests.support.data_plane import Plane, running
from tests.support.simulation import children

pytestmark = pytest.mark.slow


async def test_it_listens_with_a_key_of_its_own_and_ends_when_closed() -> None:
    before = children()
    async with running("sim1") as plane:
        ready = plane.client.ready
        assert Jwk.from_json(ready.key.decode()).thumbprint() == ready.thumbprint
        assert b'"d"' not in ready.key, "the private key stays in the data plane"
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe,
            pytest.raises(OSError, match="in use"),
        ):
            probe.bind((ready.host, ready.port))
        assert len(children() - before) == 1
    assert children() == before
    with pytest.raises(ClosedError):
        plane.client.tell(RaiseFence(entity="ball", epoch=1, server=""))
    assert not any(isinstance(event, Fatal) for event in plane.events), "its end was asked for"


async def test_a_port_in_use_is_one_clear_error() -> None:
    before = children()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError) as caught:
            async with running("sim1", port=port):
                pass
    assert f"127.0.0.1 port {port}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert children() == before


async def test_a_key_file_that_others_can_read_is_its_error(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(Jwk.generate("P-256").to_pem())
    file.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        async with running("sim1", key_file=str(file)):
            pass


async def test_a_refusal_keeps_its_reason() -> None:
    async with running("sim1") as one, running("sim2") as two:
        with pytest.raises(InvalidStateError, match="has not told the key of sim2"):
            await one.client.stop_sealing("ball", "sim2")
        one.know(two)
        with pytest.raises(InvalidStateError, match="ball is not held here"):
            await one.client.stop_sealing("ball", "sim2")
        with pytest.raises(InvalidStateError, match="BoxError"):
            await one.client.open_release(entity="ball", giver="sim2", previous=1, box="a.b")


async def test_a_record_whose_key_is_not_the_named_one_is_not_used() -> None:
    """R0-20."""
    async with running("sim1") as one, running("sim2") as two:
        one.know(two, thumbprint=one.client.ready.thumbprint)
        with pytest.raises(InvalidStateError, match="has not told the key"):
            await one.client.stop_sealing("ball", "sim2")


async def test_what_nobody_takes_is_stopped_without_a_release() -> None:
    async with running("sim1") as one, running("sim2") as two:
        with pytest.raises(InvalidStateError, match="ball is not held here"):
            await one.client.stop_for_nobody("ball")
        one.client.tell(Hold(entity="ball", epoch=7, slot=3))
        await one.client.stop_for_nobody("ball")
        one.know(two)
        assert await one.client.stop_sealing("ball", "sim2")


async def test_a_release_is_sealed_for_a_server_that_cannot_be_reached() -> None:
    """Whoever took the entity gets no release then, but its former holder has obeyed."""
    async with running("sim1") as one, running("sim2") as two:
        one.know(two, host="nowhere")
        one.client.tell(Hold(entity="ball", epoch=7, slot=3))
        assert await one.client.stop_sealing("ball", "sim2")


async def test_two_data_planes_exchange_state_messages_and_a_release() -> None:
    """R0-17 to R0-22, R0-27: sealed, signed and sent directly; opened with the key that was told."""
    async with running("sim1") as one, running("sim2") as two:
        for plane in (one, two):
            plane.client.tell(RaiseFence(entity="ball", epoch=7, server="sim1"))
        one.know(two)
        two.know(one)
        # The fence names servers, so it is told again once their keys are known.
        two.client.tell(RaiseFence(entity="ball", epoch=7, server="sim1"))
        await one.told(PeerUp)
        await two.told(PeerUp)
        one.client.world.write(3, tick=9, position=[1.5, 2.0, 3.0], velocity=[0.25, 0.0, 0.0])
        one.client.tell(Hold(entity="ball", epoch=7, slot=3))
        accepted = await two.told(FirstAccepted)
        assert (accepted.server, accepted.entity, accepted.epoch) == ("sim1", "ball", 7)
        message = Accepted(trace=bytes(16), hop=2, entity="ball", epoch=7)
        one.client.tell(SendMessage(to="sim2", message=encode_message(message)))
        received = await two.told(PeerMessageReceived)
        assert decode_message_untrusted(received.message) == message
        box = await one.client.stop_sealing("ball", "sim2")
        state = await two.client.open_release(entity="ball", giver="sim1", previous=7, box=box)
        assert decode_state_untrusted(state).position.tolist() == [1.5, 2.0, 3.0]
        reports = [await plane.client.report() for plane in (one, two)]
    assert (reports[0].sent, reports[1].received) == ({"sim2": 1}, {"sim1": 1})
    assert reports[1].verdicts["accepted"] > 0
    assert reports[1].malformed == 0
    entries = decode_entries(line for report in reports for line in report.history)
    gave, took = (e for e in entries if isinstance(e, HandOver))
    assert gave.hash == took.hash
    (act,) = (e for e in entries if isinstance(e, Act))
    assert (act.server, act.epoch) == ("sim1", 7)


async def test_a_death_is_told_and_ends_every_wait() -> None:
    before = children()
    async with running("sim1") as plane:
        (pid,) = children() - before
        os.kill(pid, signal.SIGSTOP)
        asking = asyncio.create_task(plane.client.report())
        await asyncio.sleep(0)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ClosedError):
            await asking
        assert await plane.told(Fatal) == Fatal(error="the data plane has ended")
    assert children() == before


async def test_who_hears_that_sealing_has_ended_with_the_process_hears_it_from_the_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that says no more may seal still; whoever is told that it has ended passes on what it held."""
    monkeypatch.setattr(client, "PROGRAM", "tests.support.mute_data_plane")
    before = children()
    async with running("sim1") as plane:
        with pytest.raises(ClosedError):
            await plane.client.end_session()
        assert children() == before


async def test_a_child_that_ends_before_it_is_ready_is_no_success() -> None:
    before = children()
    plane = Plane("sim1")
    starting = asyncio.create_task(plane.client.start(plane.settings()))
    async with asyncio.timeout(20):
        while not children() - before:
            await asyncio.sleep(0)
    for pid in children() - before:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(ConfigurationError, match="ended while it started"):
        await starting
    await plane.client.close()
    assert children() == before
    assert not any(isinstance(event, Ready) for event in plane.events)
