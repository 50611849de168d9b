from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import pytest

from bridge.errors import SignatureError
from bridge.jose import Jwk
from bridge.jose.credentials.claims import check_name
from bridge.jose.credentials.declared import EXPIRES, ID, ISSUED, KEY, ROLE, Claim, Declared
from bridge.jose.credentials.role import Role
from tests.support.credentials import ID as AN_ID
from tests.support.credentials import NOW


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass(Declared):
    """Of every kind of claim one, and a field that is none."""

    MAX_LIFETIME_S: ClassVar[int] = 60

    subject: Annotated[str, Claim("sub", check_name)]
    role: Annotated[Role, ROLE]
    key: Annotated[Jwk, KEY]
    instance: Annotated[str, Claim("iss", check_name, again="aud")]
    even: Annotated[int, Claim("half", _check_even, read=lambda half: 2 * half, write=lambda even: even // 2)]
    issued_at: Annotated[int, ISSUED]
    expires_at: Annotated[int, EXPIRES]
    id: Annotated[str, ID]
    noted: int = 0


def _check_even(value: object, what: str) -> None:
    # Below the class that names it.
    if not isinstance(value, int) or value % 2:
        raise SignatureError(f"{what} is even")


MEMBERS = {
    "subject": "alice",
    "role": Role.PLAYER,
    "key": Jwk.generate().public(),
    "instance": "emerald",
    "even": 6,
    "issued_at": NOW,
    "expires_at": NOW + 60,
    "id": AN_ID,
}


def made(**changes: object) -> Pass:
    return Pass(**{**MEMBERS, **changes})  # type: ignore[arg-type]


def test_what_is_declared_is_signed_and_read_back() -> None:
    claims = made(noted=7).claims()
    assert claims.keys() == {"sub", "role", "jwk", "iss", "aud", "half", "iat", "exp", "jti"}
    assert (claims["half"], claims["role"], claims["aud"]) == (3, "player", "emerald")
    assert Pass.from_claims_untrusted(claims) == made()


@pytest.mark.parametrize(
    "change",
    [
        {"subject": ""},
        {"role": "king"},
        {"key": Jwk.generate()},
        {"even": 5},
        {"issued_at": True},
        {"expires_at": NOW + 61},
        {"expires_at": NOW},
        {"id": "AA"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_no_reader_takes_is_not_made(change: dict[str, object]) -> None:
    with pytest.raises(SignatureError):
        made(**change)


def test_exactly_the_declared_claims_are_read() -> None:
    claims = made().claims()
    for name in claims:
        with pytest.raises(SignatureError, match="exactly"):
            Pass.from_claims_untrusted({key: value for key, value in claims.items() if key != name})
    with pytest.raises(SignatureError, match="exactly"):
        Pass.from_claims_untrusted({**claims, "noted": 7})


def test_two_claims_that_say_the_same_do_not_differ() -> None:
    with pytest.raises(SignatureError, match="'aud'"):
        Pass.from_claims_untrusted({**made().claims(), "aud": "ruby"})


def test_claims_are_named_in_what_is_wrong_with_them() -> None:
    with pytest.raises(SignatureError, match="'half' is even"):
        made(even=1)
