"""Capabilities, against the values of erts."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from bridge.dist.flags import DEMANDED, DIGEST_25, MANDATORY, OFFERED, REFUSED, DistFlag, expand


def test_the_digest_is_what_otp_25_demands() -> None:
    # The mandatory flags in what erts_internal:get_dflags/0 answers on OTP 25.
    assert int(DIGEST_25) == 17_239_956


@pytest.mark.erlang
def test_the_installed_otp_demands_what_the_table_says_of_it() -> None:
    erl = shutil.which("erl")
    assert erl is not None
    asked = 'io:format("~s ~p", [erlang:system_info(otp_release), erts_internal:get_dflags()]), halt().'
    answer = subprocess.run(
        [erl, "-noshell", "-eval", asked], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    # The record's fields: default, mandatory, addable, rejectable, strict order.
    numbers = [int(number) for number in re.findall(r"\d+", answer)]
    release, default, mandatory = numbers[0], numbers[1], numbers[2]
    assert DEMANDED[release] == DistFlag(mandatory)
    # What is offered and used of it is what this release knows.
    assert OFFERED & DistFlag(default) == OFFERED


@pytest.mark.parametrize("release", [24, 25, 26, 27, 28, 29])
def test_all_that_a_release_demands_is_offered(release: int) -> None:
    assert DEMANDED[release] & expand(OFFERED) == DEMANDED[release]


def test_no_release_demands_less_than_the_one_before() -> None:
    assert sorted(DEMANDED) == [24, 25, 26, 27, 28, 29]
    for release in range(25, 30):
        assert DEMANDED[release - 1] & DEMANDED[release] == DEMANDED[release - 1]


def test_nothing_is_offered_that_is_refused_and_all_is_offered_that_is_demanded() -> None:
    assert not OFFERED & REFUSED
    assert MANDATORY & OFFERED == MANDATORY
    assert DistFlag.PUBLISHED not in OFFERED  # which is what makes the node hidden


def test_fragments_are_offered_with_the_header_that_they_have() -> None:
    assert DistFlag.FRAGMENTS | DistFlag.DIST_HDR_ATOM_CACHE in OFFERED


def test_the_digest_stands_for_what_it_was_made_of() -> None:
    assert expand(DistFlag.MANDATORY_25_DIGEST) == DistFlag.MANDATORY_25_DIGEST | DIGEST_25
    assert expand(int(DistFlag.SPAWN)) == DistFlag.SPAWN
    assert expand(0) == DistFlag(0)


def test_bits_that_nobody_knows_yet_are_kept() -> None:
    assert int(expand(1 << 63 | int(DistFlag.ALIAS))) == 1 << 63 | int(DistFlag.ALIAS)
