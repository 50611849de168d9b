"""The same seed asks and breaks the same."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from tests.nemesis.schedule import FIRST_FAULT, SIGNALS, Kind, entities, make_schedule


def test_a_seed_gives_one_schedule() -> None:
    assert make_schedule(7, 60.0) == make_schedule(7, 60.0)
    assert make_schedule(7, 60.0).steps != make_schedule(8, 60.0).steps
    assert make_schedule(7, 60.0).faults != make_schedule(8, 60.0).faults


def test_a_seed_gives_the_same_schedule_on_every_machine() -> None:
    """What a result names by its seed must mean the same tomorrow."""
    encoded = msgspec.json.encode(make_schedule(1, 60.0))
    assert hashlib.sha256(encoded).hexdigest()[:16] == "6277cb3e34eb6ad6"


def test_every_fault_comes_once_before_any_comes_again() -> None:
    faults = make_schedule(3, 600.0).faults
    assert {fault.kind for fault in faults[: len(Kind)]} == set(Kind)


def test_a_longer_run_begins_as_a_shorter_one() -> None:
    short, long = make_schedule(5, 30.0), make_schedule(5, 300.0)
    assert long.steps[: len(short.steps)] == short.steps
    assert long.faults[: len(short.faults)] == short.faults


@pytest.mark.parametrize("seed", range(20))
def test_everything_is_mended_before_the_end(seed: int) -> None:
    schedule = make_schedule(seed, 40.0)
    assert all(fault.at >= FIRST_FAULT and fault.at + fault.seconds <= 40.0 for fault in schedule.faults)
    assert all(step.entity in entities() and step.at < 40.0 for step in schedule.steps)
    assert all(fault.target != fault.other for fault in schedule.faults)


def test_only_the_faults_that_are_wanted_come() -> None:
    assert {fault.kind for fault in make_schedule(1, 300.0, SIGNALS).faults} == set(SIGNALS)
