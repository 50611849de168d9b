"""Servers that die, stand still, hang, disobey or are cut off: others go on, and nobody acts beside them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from bridge.authority import Act, Entry, check, decode_entries
from bridge.cluster.local import LocalCluster
from bridge.errors import InvalidStateError
from bridge.registry import (
    OPERATOR,
    BeingDeletedError,
    Credentials,
    EntityRecord,
    Homeserver,
    NameInUseError,
    OpenedSession,
    Ownership,
    Recall,
    RevokedError,
    UnknownEntityError,
)
from bridge.sim.dataplane.deadline import boot_ns
from bridge.sim.dataplane.receiving import MAX_ECHO_AGE_SECONDS
from bridge.sim.driver import CommandFailedError
from bridge.sim.events import (
    AuthorityGained,
    EntityDeleted,
    FellSilent,
    Problem,
    SessionLost,
    SessionOpened,
    StateAccepted,
)
from bridge.sim.server import SimulationServer
from tests.support.authority import Server
from tests.support.cluster import fresh, local_cluster
from tests.support.server_process import ServerProcess, recorded, server_process
from tests.support.simulation import Observed, simulation

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

LEASE_MS = 1_500


@pytest.fixture(scope="module")
def leased() -> Iterator[LocalCluster]:
    """Three homeservers whose sessions last as long as a test can wait."""
    with local_cluster(lease_ms=LEASE_MS) as running:
        yield running


@pytest.fixture
def ball() -> str:
    return fresh("ball")


class Stage:
    """Two servers of the test's process: one that can take over, and one that only looks on."""

    def __init__(self, successor: Observed, witness: Observed) -> None:
        self.successor = successor
        self.witness = witness

    async def sees(self, ball: str, holder: str) -> None:
        for one in (self.successor, self.witness):
            await one.told(StateAccepted, entity=ball, sender=holder)
        await until(lambda: self.successor.server.transfers.state(ball).position.any())

    async def goes_on(self, ball: str) -> AuthorityGained:
        """Wait until the successor acts and the witness accepts its state."""
        await self.successor.until(lambda: ball in self.successor.server.transfers.held())
        await self.witness.told(StateAccepted, entity=ball, sender=self.successor.name)
        gained = [e for e in self.successor.events if isinstance(e, AuthorityGained) and e.entity == ball]
        return gained[-1]

    async def has_it(self, ball: str) -> AuthorityGained:
        """Have the successor act, where need be by asking.

        On a busy machine its answer to the lessor may be late, and the entity dormant.
        """
        successor = self.successor.server

        def is_free() -> bool:
            known = successor.transfers._standing.entities.get(ball)
            return known is not None and known.session is None

        await until(lambda: ball in successor.transfers.held() or is_free())
        if ball not in successor.transfers.held():
            await successor.transfers.pull(ball, owner="Player1")
        return await self.goes_on(ball)

    async def entries(self) -> list[Entry]:
        reports = [await one.server.report() for one in (self.successor, self.witness)]
        return decode_entries(line for report in reports for line in report.history)


@pytest.fixture
async def stage(leased: LocalCluster) -> AsyncIterator[Stage]:
    async with (
        simulation(leased, fresh("successor")) as successor,
        # Without slots for what others hold it streams nothing in, so it is no successor.
        simulation(leased, fresh("witness"), follow=0) as witness,
    ):
        yield Stage(successor, witness)


def assert_single(entries: list[Entry], *, acts: int = 2) -> None:
    """No two holders at an instant, and nothing of an old one accepted after a newer one."""
    verdict = check(entries)
    assert verdict.acts >= acts
    assert [violation.text for violation in verdict.violations] == []


async def spawned(holder: ServerProcess | Observed, ball: str) -> int:
    if isinstance(holder, ServerProcess):
        return await holder.driver.spawn(ball, owner="Player1", position=(1.0, 2.0, 3.0))
    record = await holder.server.transfers.spawn(ball, owner="Player1", position=(1.0, 2.0, 3.0))
    return record.epoch


@pytest.mark.parametrize("killed", [("control",), ("data",), ("control", "data")])
async def test_when_processes_of_a_server_are_killed_another_one_goes_on_at_once(
    leased: LocalCluster, stage: Stage, ball: str, tmp_path: Path, killed: tuple[str, ...]
) -> None:
    """R0-48, B-5: the guardian ends the session when nothing is left that could seal."""
    async with server_process(leased, fresh("sim"), "--record-dir", str(tmp_path)) as holder:
        epoch = await spawned(holder, ball)
        await stage.sees(ball, holder.name)
        began = time.monotonic_ns()
        holder.kill(*(getattr(holder, name) for name in killed))
        gained = await stage.goes_on(ball)
        measured(f"killed {' and '.join(killed)}: goes on after {(gained.at_ns - began) / 1e6:.1f} ms")
        assert gained.epoch > epoch
        assert stage.successor.server.transfers.state(ball).position.tolist() == [1.0, 2.0, 3.0]
    assert_single(await stage.entries() + recorded(tmp_path))


async def test_a_server_that_stops_in_order_passes_on_what_it_has(
    leased: LocalCluster, stage: Stage, ball: str, tmp_path: Path
) -> None:
    """R0-A5; and what was passed on goes on to others, though its recall carries the failover."""
    async with server_process(leased, fresh("sim"), "--record-dir", str(tmp_path)) as holder:
        await spawned(holder, ball)
        await stage.sees(ball, holder.name)
    await stage.goes_on(ball)
    await stage.witness.server.transfers.pull(ball, owner="Player1")
    assert stage.successor.problems() == []
    assert [event for event in stage.successor.events if isinstance(event, SessionLost)] == []
    assert_single(await stage.entries() + recorded(tmp_path))


async def test_nobody_who_could_go_on_leaves_the_entity_dormant(leased: LocalCluster, ball: str) -> None:
    async with simulation(leased, fresh("witness"), follow=0) as witness:
        async with server_process(leased, fresh("sim")) as holder:
            epoch = await spawned(holder, ball)
            await witness.told(StateAccepted, entity=ball)
            holder.kill(holder.control, holder.data)
            transfers = witness.server.transfers
            await until(lambda: transfers._standing.entities[ball].session is None)
        assert (await transfers.spawn(ball, owner="Player1", position=(0, 0, 0))).epoch > epoch


async def rolls_on(ball: str, holder: ServerProcess, *observers: Observed) -> tuple[int, float]:
    """Have a server take a ball that rolls; its epoch, and how far these have seen it roll since."""
    epoch = await taken(holder, ball)
    for one in observers:
        await one.told(StateAccepted, entity=ball, sender=holder.name)
    began = max(rolled(one, ball) for one in observers)
    await until(lambda: all(rolled(one, ball) > began + 0.5 for one in observers))
    return epoch, min(rolled(one, ball) for one in observers)


async def taken(server: ServerProcess, ball: str) -> int:
    """Have a server take a ball, which may not have heard yet who had it last."""
    while True:
        try:
            return await server.driver.take(ball, owner="Player2")
        except CommandFailedError as error:
            if "conflict" not in str(error):
                raise
            await asyncio.sleep(0.05)


def acts_under(observer: Observed, ball: str) -> int:
    return observer.server._present._standing.must_hold(ball)


def rolled(observer: Observed, ball: str) -> float:
    return float(observer.server.transfers.state(ball).position[0])


async def test_of_two_servers_the_one_that_gave_an_entity_away_goes_on_with_it(
    leased: LocalCluster, ball: str, tmp_path: Path
) -> None:
    """Homeservers do not hear of releases, so the record names the giver's as due still."""
    async with (
        simulation(leased, fresh("giver")) as giver,
        server_process(leased, fresh("taker"), "--record-dir", str(tmp_path)) as taker,
    ):
        await spawned(giver, ball)
        giver.server.transfers.place(ball, (1.0, 2.0, 3.0), (4.0, 0.0, 0.0))
        epoch, seen = await rolls_on(ball, taker, giver)
        assert giver.server._present._standing.entities[ball].awaiting is not None
        taker.kill(taker.control, taker.data)
        await giver.until(lambda: ball in giver.server.transfers.held())
        assert acts_under(giver, ball) > epoch
        assert rolled(giver, ball) >= seen
        assert giver.problems() == []
        report = await giver.server.report()
        assert_single(decode_entries(report.history) + recorded(tmp_path))


@pytest.mark.parametrize("mute", ["nobody", "first", "middle"])
async def test_of_three_servers_that_had_an_entity_in_turn_one_goes_on_from_its_newest_state(
    leased: LocalCluster, ball: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mute: str
) -> None:
    """Where the middle one says nothing it has to release again, and its last state is an old one by now."""
    async with (
        simulation(leased, fresh("first")) as first,
        simulation(leased, fresh("middle")) as middle,
        server_process(leased, fresh("last"), "--record-dir", str(tmp_path)) as last,
    ):
        await spawned(first, ball)
        await middle.told(StateAccepted, entity=ball, sender=first.name)
        first.server.transfers.place(ball, (1.0, 2.0, 3.0), (6.0, 0.0, 0.0))
        await middle.server.transfers.pull(ball, owner="Player2")
        epoch, seen = await rolls_on(ball, last, first, middle)
        due = first.server._present._standing.entities[ball].awaiting
        assert due is not None
        assert due.awaiting is not None
        for name, one in (("first", first), ("middle", middle)):
            if name == mute:
                monkeypatch.setattr(one.server._present, "streamed", nothing_streamed)
                monkeypatch.setattr(one.server._present, "released", lambda _: [])
        last.kill(last.control, last.data)
        servers = [one.server.transfers for one in (first, middle)]
        await until(lambda: any(ball in server.held() for server in servers))
        (successor,) = [one for one in (first, middle) if ball in one.server.transfers.held()]
        assert acts_under(successor, ball) > epoch
        assert rolled(successor, ball) >= seen
        assert first.problems() + middle.problems() == []
        reports = [await one.server.report() for one in (first, middle)]
        assert_single(
            [entry for report in reports for entry in decode_entries(report.history)] + recorded(tmp_path)
        )


async def nothing_streamed(_: tuple[str, ...]) -> tuple[str, ...]:
    return ()


async def test_a_giver_that_has_not_released_yet_is_no_successor_and_takes_the_entity_back_once_it_has(
    leased: LocalCluster, ball: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/authority-model.md, FAILOVER_TO_DUE: it acts under its older grant still."""
    async with (
        simulation(leased, fresh("giver")) as giver,
        server_process(leased, fresh("taker"), "--record-dir", str(tmp_path)) as taker,
    ):
        epoch = await spawned(giver, ball)
        await taker.told(StateAccepted, entity=ball)
        obeys = late_to_obey(giver, monkeypatch)
        taking = asyncio.create_task(taker.driver.take(ball, owner="Player2"))
        standing = giver.server._present._standing
        await until(lambda: standing.entities[ball].server == taker.name)
        taker.kill(taker.control, taker.data)
        await until(lambda: standing.entities[ball].server is None)
        await asyncio.gather(taking, return_exceptions=True)
        assert giver.server.transfers.held_epoch(ball) == epoch
        obeys.set()
        await until(lambda: (giver.server.transfers.held_epoch(ball) or 0) > epoch)
        assert giver.server.transfers.state(ball).position.tolist() == [1.0, 2.0, 3.0]
        assert giver.problems() == []
        report = await giver.server.report()
        assert_single(decode_entries(report.history) + recorded(tmp_path))


async def test_a_giver_whose_taker_dies_before_it_acts_goes_on_from_what_it_released(
    leased: LocalCluster, ball: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        simulation(leased, fresh("giver")) as giver,
        server_process(leased, fresh("taker")) as taker,
    ):
        epoch = await spawned(giver, ball)
        await taker.told(StateAccepted, entity=ball)
        obeys = late_to_obey(giver, monkeypatch)
        taking = asyncio.create_task(taker.driver.take(ball, owner="Player2"))
        await until(lambda: giver.server._present._standing.entities[ball].server == taker.name)
        taker.stop(taker.control, taker.data, taker.guardian)
        obeys.set()
        transfers = giver.server.transfers
        await until(lambda: (transfers.held_epoch(ball) or 0) > epoch)
        assert transfers.state(ball).position.tolist() == [1.0, 2.0, 3.0]
        taker.go_on(taker.control, taker.data, taker.guardian)
        await taker.told(SessionOpened)
        await taker.told(StateAccepted, entity=ball, epoch=transfers.held_epoch(ball))
        await asyncio.gather(taking, return_exceptions=True)
        of_giver, of_taker = await giver.server.report(), await taker.driver.report()
        assert_single(decode_entries(of_giver.history) + decode_entries(of_taker.history))


async def test_a_guardian_that_died_is_replaced_and_the_new_one_knows_the_session(
    leased: LocalCluster, stage: Stage, ball: str
) -> None:
    async with server_process(leased, fresh("sim")) as holder:
        await spawned(holder, ball)
        await stage.sees(ball, holder.name)
        holder.kill(holder.guardian)
        await holder.told(Problem, fatal=False)
        holder.kill(holder.control, holder.data)
        await stage.goes_on(ball)


async def test_what_a_server_frozen_past_its_lease_says_is_not_accepted_and_it_notices(
    leased: LocalCluster, stage: Stage, ball: str
) -> None:
    """SIGSTOP between the look at the deadline and the sending: docs/authority-model.md, ECHO_AFTER_CHECK."""
    async with server_process(leased, fresh("sim"), module="tests.support.freezing_server") as holder:
        await spawned(holder, ball)
        await stage.sees(ball, holder.name)
        before = (await stage.witness.server.report()).verdicts.get("stale", 0)
        os.kill(holder.data, signal.SIGUSR1)
        await until(lambda: is_stopped(holder.data))
        holder.stop(holder.control)
        frozen = time.monotonic_ns()
        gained = await stage.goes_on(ball)
        measured(f"frozen: another one goes on after {(gained.at_ns - frozen) / 1e6:.0f} ms")
        holder.go_on(holder.data, holder.control)
        lost = await holder.told(SessionLost)
        assert lost.entities == (ball,)
        await holder.told(SessionOpened)
        await holder.told(StateAccepted, entity=ball, sender=stage.successor.name)
        assert (await stage.witness.server.report()).verdicts.get("stale", 0) > before
        report = await holder.driver.report()
        assert_single(await stage.entries() + decode_entries(report.history))


async def test_a_control_plane_that_stands_still_silences_its_data_plane_before_the_lease_ends(
    leased: LocalCluster, stage: Stage, ball: str, tmp_path: Path
) -> None:
    async with server_process(leased, fresh("sim"), "--record-dir", str(tmp_path)) as holder:
        await spawned(holder, ball)
        await stage.sees(ball, holder.name)
        holder.stop(holder.control)
        # Its last renewal was sent by now, so that this is the end of what it may seal, however late anybody
        # comes to run.
        ends = time.monotonic_ns() + LEASE_MS * 1_000_000 - round(MAX_ECHO_AGE_SECONDS * 1e9)
        await stage.has_it(ball)
        holder.go_on(holder.control)
        await holder.told(FellSilent)
        await holder.told(SessionOpened)
        report = await holder.driver.report()
        entries = decode_entries(report.history)
        assert [act.last_ns <= ends for act in entries if isinstance(act, Act)] == [True]
        assert_single(await stage.entries() + entries)


class Hanging(SimulationServer):
    """Its simulation stands still when told so; all else goes on."""

    hangs = False

    def _step(self, seconds: float) -> None:
        if not self.hangs:
            super()._step(seconds)


async def test_a_simulation_that_hangs_loses_its_session(
    leased: LocalCluster, stage: Stage, ball: str
) -> None:
    """Renewals come, their tick stands still: it is acknowledged no more, and ended after a lease."""
    async with simulation(leased, fresh("sim"), server_class=Hanging) as holder:
        await spawned(holder, ball)
        await stage.sees(ball, holder.name)
        assert isinstance(holder.server, Hanging)
        began = time.monotonic_ns()
        holder.server.hangs = True
        gained = await stage.goes_on(ball)
        measured(f"hung: another one goes on after {(gained.at_ns - began) / 1e6:.0f} ms")
        await holder.told(SessionLost, entities=(ball,))
        silent = [event for event in holder.events if isinstance(event, FellSilent)]
        assert silent
        assert silent[0].at_ns < gained.at_ns
        report = await holder.server.report()
        assert_single(await stage.entries() + decode_entries(report.history))


async def test_a_data_plane_that_stands_still_loses_the_session_of_its_server(
    leased: LocalCluster, stage: Stage, ball: str
) -> None:
    """Its control plane lives and renews, and nothing is sealed: that is a server that hangs."""
    async with simulation(leased, fresh("sim")) as holder:
        await spawned(holder, ball)
        await stage.sees(ball, holder.name)
        with holder.frozen():
            await stage.goes_on(ball)
        await holder.told(SessionLost, entities=(ball,))
        await holder.told(SessionOpened)
        report = await holder.server.report()
        assert_single(await stage.entries() + decode_entries(report.history))


async def test_a_recall_not_obeyed_for_a_lease_ends_the_session_of_who_does_not(
    leased: LocalCluster, stage: Stage, ball: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with simulation(leased, fresh("sim")) as holder:
        await spawned(holder, ball)
        await stage.sees(ball, holder.name)
        disobey(holder, monkeypatch)
        began = time.monotonic_ns()
        record = await stage.successor.server.transfers.pull(ball, owner="Player2")
        gained = await stage.goes_on(ball)
        measured(f"unwilling: the new holder acts after {(gained.at_ns - began) / 1e6:.0f} ms")
        assert gained.epoch == record.epoch
        await holder.told(SessionLost, entities=(ball,))
        report = await holder.server.report()
        assert_single(await stage.entries() + decode_entries(report.history))


async def test_a_holder_recalled_for_a_server_whose_key_was_revoked_keeps_its_session(
    leased: LocalCluster, stage: Stage, ball: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with simulation(leased, fresh("sim")) as holder:
        epoch = await spawned(holder, ball)
        await stage.sees(ball, holder.name)
        obedience, standing = holder.server._present.obedience, holder.server._present._standing
        obey, revoked = obedience._obey, asyncio.Event()

        async def late(recall: Recall) -> None:
            await revoked.wait()
            await obey(recall)

        monkeypatch.setattr(obedience, "_obey", late)
        store = holder.server._store
        taker = Server(store, fresh("stolen"))
        await taker.open()
        await until(lambda: taker.name in standing.servers)
        await taker.pull(await taker.home.entity(ball))
        await Credentials(store).revoke(taker.key.thumbprint(), reason="stolen")
        with pytest.raises(RevokedError):
            await taker.spawn(fresh("sack"))
        await until(lambda: taker.name not in standing.servers)
        revoked.set()
        await until(lambda: standing.has_obeyed(ball, epoch))
        # Longer than an open recall is borne, and than the lease of whoever took the entity lasts.
        await asyncio.sleep(3 * LEASE_MS / 1000)
        assert [event for event in holder.events if isinstance(event, SessionLost)] == []
        # It is the next one's with its holder's last state, or that holder's again.
        able = (holder.server.transfers, stage.successor.server.transfers)
        await until(lambda: any(ball in transfers.held() for transfers in able))
        (acting,) = (transfers for transfers in able if ball in transfers.held())
        assert acting.state(ball).position.tolist() == [1.0, 2.0, 3.0]
        report = await holder.server.report()
        assert_single(await stage.entries() + decode_entries(report.history))


async def test_who_simulates_a_deleted_entity_stops_and_another_one_of_its_name_begins(
    leased: LocalCluster, stage: Stage, ball: str
) -> None:
    async with simulation(leased, fresh("sim")) as holder:
        epoch = await spawned(holder, ball)
        await stage.sees(ball, holder.name)
        players = Ownership(holder.server._store)
        deleted = await players.delete_entity(ball, by="Player1")
        await holder.told(EntityDeleted, entity=ball)
        assert holder.server.transfers.held() == []
        with pytest.raises(UnknownEntityError):
            await stage.successor.server.transfers.pull(ball, owner="Player1")

        async def again() -> EntityRecord:
            while True:
                with contextlib.suppress(BeingDeletedError):
                    transfers = stage.successor.server.transfers
                    return await transfers.spawn(ball, owner="Player2", position=(4.0, 5.0, 6.0))

        record = await again()
        assert record.epoch > deleted.epoch > epoch
        await stage.goes_on(ball)
        assert stage.successor.server.transfers.state(ball).position.tolist() == [4.0, 5.0, 6.0]
        assert [event for event in holder.events if isinstance(event, SessionLost | Problem)] == []
        report = await holder.server.report()
        assert_single(await stage.entries() + decode_entries(report.history))


async def test_who_goes_on_with_a_deleted_entity_loses_its_session_before_the_name_is_free(
    leased: LocalCluster, stage: Stage, ball: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with simulation(leased, fresh("sim")) as holder:
        await spawned(holder, ball)
        await stage.sees(ball, holder.name)
        disobey(holder, monkeypatch)
        players = Ownership(holder.server._store)
        await players.delete_entity(ball, by=OPERATOR)
        transfers = stage.successor.server.transfers
        with pytest.raises(BeingDeletedError):
            await transfers.spawn(ball, owner="Player2", position=(4.0, 5.0, 6.0))
        await holder.told(SessionLost, entities=(ball,))
        await transfers.spawn(ball, owner="Player2", position=(4.0, 5.0, 6.0))
        report = await holder.server.report()
        assert_single(await stage.entries() + decode_entries(report.history))


async def test_who_waits_in_the_middle_hears_that_nothing_is_due_and_obeys(
    leased: LocalCluster, stage: Stage, ball: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/authority-model.md, MIDDLE_WAITS: the record is no longer the middle one's."""
    async with simulation(leased, fresh("sim")) as first, simulation(leased, fresh("middle")) as middle:
        await spawned(first, ball)
        await stage.sees(ball, first.name)
        await middle.told(StateAccepted, entity=ball)
        disobey(first, monkeypatch)
        waiting = asyncio.create_task(middle.server.transfers.pull(ball, owner="Player2"))
        successor = stage.successor.server.transfers
        await until(lambda: successor._standing.entities[ball].server == middle.name)
        last = asyncio.create_task(successor.pull(ball, owner="Player3"))
        await until(lambda: middle.server._present._standing.entities[ball].server == stage.successor.name)
        os.kill(first.data_plane, signal.SIGKILL)
        await waiting
        await last
        assert ball in successor.held()
        assert ball not in middle.server.transfers.held()
        report = await middle.server.report()
        # The middle one obeys in the moment in which it could act: perhaps before it has sealed anything.
        assert_single(await stage.entries() + decode_entries(report.history), acts=1)


async def test_a_second_process_of_a_name_waits_until_the_first_is_gone(
    leased: LocalCluster, stage: Stage, ball: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/authority-model.md, OPEN_ENDS_EARLIER."""
    key_file, name = str(tmp_path / "key.pem"), fresh("sim")
    refused: list[NameInUseError] = []
    genuine = Homeserver.open_session

    async def noted(home: Homeserver, **values: Any) -> OpenedSession:
        try:
            return await genuine(home, **values)
        except NameInUseError as error:
            refused.append(error)
            raise

    monkeypatch.setattr(Homeserver, "open_session", noted)
    async with AsyncExitStack() as second_stack:
        async with simulation(leased, name, key_file=key_file) as first:
            await spawned(first, ball)
            await stage.sees(ball, name)
            second = asyncio.create_task(
                second_stack.enter_async_context(
                    simulation(leased, name, key_file=key_file, node=f"{name}_again@127.0.0.1")
                )
            )
            await until(lambda: len(refused) > 1)
            assert refused[0].session == first.server.session
            assert not second.done()
            assert ball in first.server.transfers.held()
        again = await second
        assert again.server.session != b""
        await stage.goes_on(ball)


async def test_a_name_that_stays_in_use_is_refused_with_what_to_do(
    leased: LocalCluster, tmp_path: Path
) -> None:
    key_file, name = str(tmp_path / "key.pem"), fresh("sim")
    async with simulation(leased, name, key_file=key_file):
        with pytest.raises(Exception, match=f"another server runs as {name}: stop it"):
            async with simulation(leased, name, key_file=key_file, node=f"{name}_again@127.0.0.1"):
                pass


async def test_who_hears_no_homeserver_falls_silent_before_its_lease_ends_and_goes_on_when_it_does(
    ball: str,
) -> None:
    with local_cluster(lease_ms=LEASE_MS) as own:
        async with simulation(own, fresh("sim")) as holder, simulation(own, fresh("witness")) as witness:
            epoch = await spawned(holder, ball)
            await witness.told(StateAccepted, entity=ball)
            members = [node.process.pid for node in own.state.nodes if node.process is not None]
            for pid in members:
                os.kill(pid, signal.SIGSTOP)
            await holder.told(FellSilent)
            lease = holder.server._present._lease
            assert lease is not None
            ends = lease.acts_until_ns - (boot_ns() - time.monotonic_ns())
            report = await holder.server.report()
            acts = [e for e in decode_entries(report.history) if getattr(e, "entity", "") == ball]
            assert all(getattr(act, "last_ns", 0) <= ends for act in acts)
            with pytest.raises(InvalidStateError, match="lease"):
                holder.server.transfers.place(ball, (0.0, 0.0, 0.0))
            for pid in members:
                os.kill(pid, signal.SIGCONT)
            await until(lambda: holder.server._present.may_act())
            # A lessor that stood still starts all countdowns anew, and a new one waits: the session is open.
            assert not [event for event in holder.events if isinstance(event, SessionLost)]
            given = await holder.server.transfers.give(ball, owner="Player3")
            assert (given.server, given.epoch) == (holder.name, epoch)


async def test_a_leader_that_stands_still_costs_no_session(ball: str) -> None:
    with local_cluster(lease_ms=3_000) as own:
        async with simulation(own, fresh("sim")) as holder, simulation(own, fresh("witness")) as witness:
            epoch = await spawned(holder, ball)
            await witness.told(StateAccepted, entity=ball)
            (leader,) = [
                node.process.pid
                for node in own.state.nodes
                if node.process is not None and node.name == await leader_of(holder)
            ]
            os.kill(leader, signal.SIGSTOP)
            try:
                # Longer than a lease: whoever still holds after it was acknowledged by another leader.
                await asyncio.sleep(4.5)
                assert holder.server._present.may_act()
            finally:
                os.kill(leader, signal.SIGCONT)
            silent = [event for event in holder.events if isinstance(event, FellSilent)]
            measured(f"leader stopped: fell silent {len(silent)} times")
            assert not [event for event in holder.events if isinstance(event, SessionLost)]
            given = await holder.server.transfers.give(ball, owner="Player3")
            assert (given.server, given.epoch) == (holder.name, epoch)


def measured(text: str) -> None:
    """Times are told, not asserted."""
    sys.stdout.write(f"{text}\n")


async def leader_of(observed: Observed) -> str:
    return str((await observed.server._store.health(timeout=10.0)).leader)


def disobey(observed: Observed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a server be unwilling: recalls reach it, and it goes on."""
    obedience = observed.server._present.obedience

    async def nothing(_: Recall) -> None:
        pass

    monkeypatch.setattr(obedience, "_obey", nothing)


def late_to_obey(observed: Observed, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Let a server obey no recall before the event."""
    obeys = asyncio.Event()
    obedience = observed.server._present.obedience
    genuine = obedience._obey

    async def late(recall: Recall) -> None:
        await obeys.wait()
        await genuine(recall)

    monkeypatch.setattr(obedience, "_obey", late)
    return obeys


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)
