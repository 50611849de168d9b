"""Two engines in two processes through a bad network, for as long as it takes to see that nothing creeps.

The parent starts both, tells each where the other one is, collects a report a second, and judges.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import uvloop

from bridge.jose import Jwk
from bridge.udp import (
    Address,
    Conditioner,
    ConditionerStatistics,
    NetworkConditions,
    Peer,
    PeerUnreachable,
    Session,
    SessionClosed,
    SessionEstablished,
    SessionStatistics,
    UdpConfig,
    UdpEngine,
    UdpEvent,
)
from tests.support.talker import Talk, Talker, compare, missing

TICK_HZ: Final = 60
_REKEY_SECONDS: Final = 10.0
"""far below the default, so that keys change often in what a soak lasts"""
_REPORT_SECONDS: Final = 1.0
_DRAIN_SECONDS: Final = 120.0
_ANSWER_SECONDS: Final = 30.0
_PAGE_KIB: Final = os.sysconf("SC_PAGE_SIZE") // 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Soak:
    """What is run.

    Attributes:
        seconds: for which messages are made; then both wait until all of them have arrived.
        network: what each side sends through.
        warm_up: seconds after which memory must not grow any more.
        growth_kib: by which the largest resident set may pass the largest one of the warm-up.
        signed: whether states are proven to third parties.
        silence: seconds that a stream may show nothing, beside those of the longest partition.
    """

    seconds: float
    network: NetworkConditions
    warm_up: float
    growth_kib: int
    signed: bool = False
    silence: float = 5.0

    @property
    def longest_silence(self) -> float:
        """Seconds after which every stream must have shown something again."""
        return self.silence + max((partition.length for partition in self.network.partition), default=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """One side at one moment; ``is_last`` once it was told to end."""

    talk: Talk
    resident_kib: int
    network: ConditionerStatistics
    session: SessionStatistics | None
    is_last: bool = False


@dataclass(slots=True)
class Memory:
    """Resident set of one side, KiB."""

    warm: int = 0
    """the largest of the warm-up"""
    largest: int = 0
    """the largest after it"""
    last: int = 0

    def note(self, kib: int, *, is_warm_up: bool) -> None:
        """Take a sample."""
        self.last = kib
        if is_warm_up:
            self.warm = max(self.warm, kib)
        else:
            self.largest = max(self.largest, kib)

    @property
    def growth(self) -> int:
        """Above the warm-up; negative where it stayed below."""
        return self.largest - self.warm


@dataclass(slots=True)
class Verdict:
    """What came of it."""

    seconds: float
    reports: list[Report]
    memories: list[Memory]
    violations: list[str] = field(default_factory=list)


def run_soak(
    soak: Soak, on_progress: Callable[[float, list[Report]], None] = lambda _at, _all: None
) -> Verdict:
    """Run it; ``on_progress`` takes the seconds so far and the newest report of each side, each second."""
    keys = [Jwk.generate(), Jwk.generate()]
    with _side(0, keys, soak) as first, _side(1, keys, soak) as second:
        pipes = [first, second]
        addresses: list[Address] = [_receive(pipe) for pipe in pipes]
        for pipe, address in zip(pipes, reversed(addresses), strict=True):
            pipe.send(address)
        began = time.monotonic()
        reports: list[Report] = [_receive(pipe) for pipe in pipes]
        memories = [Memory(), Memory()]
        ending = False
        while not all(report.is_last for report in reports):
            for index, pipe in enumerate(pipes):
                # Each tells as often as the other, so that waiting for them by turns keeps nobody waiting.
                if not reports[index].is_last:
                    reports[index] = _receive(pipe)
                    memories[index].note(
                        reports[index].resident_kib, is_warm_up=time.monotonic() - began < soak.warm_up
                    )
            at = time.monotonic() - began
            on_progress(at, reports)
            is_late = at > soak.seconds + _DRAIN_SECONDS
            if (
                not ending
                and at > soak.seconds
                and (is_late or not missing([report.talk for report in reports]))
            ):
                ending = True
                for pipe in pipes:
                    pipe.send("end")
        seconds = time.monotonic() - began
    violations = compare([report.talk for report in reports])
    violations += [
        f"{name}: memory grew by {memory.growth} KiB after the first {soak.warm_up:.0f} s"
        for name, memory in zip("ab", memories, strict=True)
        if memory.growth > soak.growth_kib
    ]
    violations += [
        f"{name}: a stream showed nothing for {report.talk.longest_silence:.1f} s"
        for name, report in zip("ab", reports, strict=True)
        if report.talk.longest_silence > soak.longest_silence
    ]
    return Verdict(seconds=seconds, reports=reports, memories=memories, violations=violations)


def _receive(pipe: Connection) -> Any:
    if not pipe.poll(_ANSWER_SECONDS):
        raise TimeoutError(f"a side of the soak said nothing for {_ANSWER_SECONDS:.0f} s")
    return pipe.recv()


@contextmanager
def _side(index: int, keys: list[Jwk], soak: Soak) -> Iterator[Connection]:
    # Spawned and not forked: its memory is to be its own.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    own, other = keys[index].to_dict(), keys[1 - index].public().to_dict()
    process = context.Process(target=_run_side, args=(theirs, index, own, other, soak), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join(_ANSWER_SECONDS)
        process.kill()
        process.join()


def _run_side(
    pipe: Connection, index: int, own: dict[str, object], other: dict[str, object], soak: Soak
) -> None:
    """The process of one side."""
    side = _Side(pipe, index, Jwk.from_dict(own), Jwk.from_dict(other), soak)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(side.run())


class _Side:
    def __init__(self, pipe: Connection, index: int, own: Jwk, other: Jwk, soak: Soak) -> None:
        self._pipe = pipe
        self._is_initiator = index == 0
        self._other = other
        self._soak = soak
        self._talker = Talker()
        self._conditioner = Conditioner(soak.network, source="ab"[index])
        self._engine = UdpEngine(
            UdpConfig(rekey_after=_REKEY_SECONDS, signed=soak.signed),
            identity=own,
            on_event=self._on_event,
            conditioner=self._conditioner,
        )
        self._session: Session | None = None
        self._is_ending = False

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        async with self._engine:
            self._pipe.send(self._engine.local_address)
            address: Address = _receive(self._pipe)
            self._engine.add_peer(Peer(name="other", public_key=self._other, address=address))
            loop.add_reader(self._pipe.fileno(), self._on_word)
            if self._is_initiator:
                self._engine.start_connect("other")
            began = due = loop.time()
            reported = began - _REPORT_SECONDS
            tick = 0
            while not self._is_ending:
                now = loop.time()
                tick += 1
                # 20 kB/s: below what a stream that yields under loss may send, so that it catches up.
                is_due = tick % 2 == 0 and now - began < self._soak.seconds
                self._talker.send(now=time.monotonic(), messages=int(is_due))
                self._engine.flush()
                if now - reported >= _REPORT_SECONDS:
                    reported = now
                    self._pipe.send(self._report())
                due = max(due + 1 / TICK_HZ, now)
                await asyncio.sleep(due - now)
            loop.remove_reader(self._pipe.fileno())
            self._pipe.send(self._report(is_last=True))

    def _on_word(self) -> None:
        # The only word is to end; a parent that is gone means the same.
        self._is_ending = True
        asyncio.get_running_loop().remove_reader(self._pipe.fileno())

    def _on_event(self, event: UdpEvent) -> None:
        self._talker.receive(event, now=time.monotonic())
        if isinstance(event, SessionEstablished):
            self._session = event.session
        if isinstance(event, SessionClosed | PeerUnreachable) and self._is_initiator and not self._is_ending:
            self._engine.start_connect("other")

    def _report(self, *, is_last: bool = False) -> Report:
        # The last one, closed or not: in the end one side closes it before the other one tells.
        session = self._session
        return Report(
            talk=self._talker.talk,
            resident_kib=_resident_kib(),
            network=self._conditioner.statistics(),
            session=None if session is None else session.statistics(),
            is_last=is_last,
        )


def _resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_KIB
