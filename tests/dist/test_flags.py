"""Capabilities, against the values of erts."""

from __future__ import annotations

from bridge.dist.flags import DIGEST_25, MANDATORY, OFFERED, REFUSED, DistFlag, expand


def test_the_digest_is_what_otp_25_demands() -> None:
    # The mandatory flags in what erts_internal:get_dflags/0 answers on OTP 25.
    assert int(DIGEST_25) == 17_239_956


def test_nothing_is_offered_that_is_refused_and_all_is_offered_that_is_demanded() -> None:
    assert not OFFERED & REFUSED
    assert MANDATORY & OFFERED == MANDATORY
    assert DistFlag.PUBLISHED not in OFFERED  # which is what makes the node hidden


def test_what_otp_26_demands_is_offered() -> None:
    assert DistFlag.UNLINK_ID | DistFlag.V4_NC in OFFERED


def test_the_digest_stands_for_what_it_was_made_of() -> None:
    assert expand(DistFlag.MANDATORY_25_DIGEST) == DistFlag.MANDATORY_25_DIGEST | DIGEST_25
    assert expand(int(DistFlag.SPAWN)) == DistFlag.SPAWN
    assert expand(0) == DistFlag(0)


def test_bits_that_nobody_knows_yet_are_kept() -> None:
    assert int(expand(1 << 63 | int(DistFlag.ALIAS))) == 1 << 63 | int(DistFlag.ALIAS)
