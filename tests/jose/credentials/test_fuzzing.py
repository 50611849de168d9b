"""The fuzzer of credentials reaches what it is for: each target takes its seed, and a short run finds
nothing."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.fuzz_credentials import TARGETS, Target, fuzz


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_seed_of_each_target_passes(target: Target) -> None:
    target.read(target.text)


def test_a_short_run_finds_nothing() -> None:
    fuzz(random.Random(1), 20)
