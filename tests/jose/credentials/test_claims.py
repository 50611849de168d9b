from __future__ import annotations

import pytest

from bridge.errors import SignatureError
from bridge.jose import Jwk
from bridge.jose.credentials.claims import (
    MAX_CLOCK_SKEW_S,
    check_id,
    check_key,
    check_lifetime,
    check_members,
    check_name,
    check_now,
    check_thumbprint,
    check_time,
    key_of,
    role_of,
)
from bridge.jose.credentials.role import Role
from tests.support.credentials import ID, ISSUER, NOW


@pytest.mark.parametrize("name", ["a", "x" * 255, "é" * 127, "Zoë O'Neil", "日本", "👩‍🚀"])
def test_a_name_has_1_to_255_bytes(name: str) -> None:
    check_name(name, "'sub'")


@pytest.mark.parametrize(
    "name", ["", "x" * 256, "é" * 128, "a\n", "a/b", "..", "\0", "\x7f", "\x9f", "\ud800", None, 1, b"a"]
)
def test_what_is_no_name_is_refused(name: object) -> None:
    with pytest.raises(SignatureError, match="'sub'"):
        check_name(name, "'sub'")


@pytest.mark.parametrize("time", [-1, 2**53, 1.0, "1", True, None])
def test_a_time_is_whole_seconds(time: object) -> None:
    check_time(0, "'iat'")
    check_time(2**53 - 1, "'iat'")
    with pytest.raises(SignatureError, match="'iat'"):
        check_time(time, "'iat'")


@pytest.mark.parametrize("lifetime", [-1, 0, 301])
def test_a_lifetime_is_positive_and_bounded(lifetime: int) -> None:
    check_lifetime(NOW, NOW + 1, 300)
    check_lifetime(NOW, NOW + 300, 300)
    with pytest.raises(SignatureError, match="1 to 300 s"):
        check_lifetime(NOW, NOW + lifetime, 300)


def test_in_force_is_from_a_clocks_skew_before_the_issue_to_just_before_the_end() -> None:
    for now in (NOW - MAX_CLOCK_SKEW_S, NOW, NOW + 9.999):
        check_now(NOW, NOW + 10, now)
    with pytest.raises(SignatureError, match="ahead"):
        check_now(NOW, NOW + 10, NOW - MAX_CLOCK_SKEW_S - 0.001)
    with pytest.raises(SignatureError, match="expired"):
        check_now(NOW, NOW + 10, NOW + 10)


@pytest.mark.parametrize("value", [ID + "A", ID[:-2], ID + "==", "", None, 7, "é" * 22])
def test_an_id_is_16_bytes_in_canonical_base64url(value: object) -> None:
    check_id(ID)
    with pytest.raises(SignatureError, match="'jti'"):
        check_id(value)
    with pytest.raises(SignatureError, match="'jkt'"):
        check_thumbprint(value)


def test_members_are_exact() -> None:
    check_members({"a": 1}, {"a"})
    for claims in ({}, {"a": 1, "b": 2}):
        with pytest.raises(SignatureError, match="exactly"):
            check_members(claims, {"a"})


def test_a_key_is_a_public_one_on_p_256() -> None:
    check_key(ISSUER.public())
    others: tuple[object, ...] = (ISSUER, Jwk.generate("Ed25519").public(), None, {})
    for key in others:
        with pytest.raises(SignatureError):
            check_key(key)


def test_a_key_in_a_claim_has_the_members_of_a_public_one_and_no_other() -> None:
    members = ISSUER.public_members()
    assert key_of(members) == ISSUER.public()
    off_curve = {**members, "x": members["y"], "y": members["x"]}
    others: tuple[object, ...] = (
        ISSUER.to_dict(),
        {**members, "kid": "a"},
        {**members, "x": "AA"},
        off_curve,
        [],
    )
    for value in others:
        with pytest.raises(SignatureError, match="'jwk'"):
            key_of(value)


def test_a_role_is_one_of_those_there_are() -> None:
    assert role_of("server") is Role.SERVER
    others: tuple[object, ...] = ("root", "", None, [], True)
    for value in others:
        with pytest.raises(SignatureError, match="role"):
            role_of(value)
