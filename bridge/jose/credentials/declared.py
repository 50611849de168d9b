"""Credentials as declarations: each field says which claim it is, and how that is checked, read and written.

A field is annotated with its ``Claim``: ``subject: Annotated[str, Claim("sub", check_name)]``. The rest is
the same for all kinds: exactly the declared claims are read, each is checked when a credential is made as
well as when it is read, and the same are signed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self, get_type_hints

from bridge.errors import SignatureError
from bridge.jose.credentials.claims import (
    check_id,
    check_key,
    check_lifetime,
    check_members,
    check_time,
    key_of,
    role_of,
)


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim of a credential.

    Attributes:
        name: in the JSON object that is signed.
        check: demands that a value of the field, told by its claim's name, is in its range.
        read: makes such a value of the claim.
        write: and the claim of the value.
        again: another claim that has to say the same.
    """

    name: str
    check: Callable[[object, str], object]
    read: Callable[[Any], object] = lambda claim: claim
    write: Callable[[Any], object] = lambda value: value
    again: str | None = None


ROLE: Final = Claim("role", lambda value, what: role_of(value), read=role_of, write=lambda role: role.value)
KEY: Final = Claim(
    "jwk", lambda value, what: check_key(value), read=key_of, write=lambda key: key.public_members()
)
ISSUED: Final = Claim("iat", check_time)
EXPIRES: Final = Claim("exp", check_time)
ID: Final = Claim("jti", check_id)


class Declared:
    """What a dataclass of declared claims inherits; one with ``MAX_LIFETIME_S`` is issued and expires."""

    __slots__ = ()

    def __post_init__(self) -> None:
        kind = type(self)
        for field, claim in _declared(kind).fields.items():
            claim.check(getattr(self, field), f"'{claim.name}'")
        maximum = getattr(kind, "MAX_LIFETIME_S", None)
        if maximum is not None:
            check_lifetime(self.issued_at, self.expires_at, maximum)  # type: ignore[attr-defined]

    def claims(self) -> dict[str, object]:
        """Return what is signed."""
        signed: dict[str, object] = {}
        for field, claim in _declared(type(self)).fields.items():
            signed[claim.name] = claim.write(getattr(self, field))
            if claim.again is not None:
                signed[claim.again] = signed[claim.name]
        return signed

    @classmethod
    def from_claims_untrusted(cls, claims: Mapping[str, Any]) -> Self:
        """Take claims for what they say.

        Raises:
            SignatureError: the only one.
        """
        check_members(claims, _declared(cls).names)
        values = {}
        for field, claim in _declared(cls).fields.items():
            if claim.again is not None and claims[claim.again] != claims[claim.name]:
                raise SignatureError(f"'{claim.again}' and '{claim.name}' name the same instance")
            values[field] = claim.read(claims[claim.name])
        return cls(**values)


class _Declaration(NamedTuple):
    """The claims of a class by field, and the names of all that there are."""

    fields: dict[str, Claim]
    names: frozenset[str]


_known: dict[type[Any], _Declaration] = {}


def _declared(kind: type[Any]) -> _Declaration:
    """What a class declares; looked up when it is first used, since what it names may be defined below it."""
    if kind not in _known:
        fields = {
            field: claim
            for field, hint in get_type_hints(kind, include_extras=True).items()
            for claim in getattr(hint, "__metadata__", ())
            if isinstance(claim, Claim)
        }
        names = (name for claim in fields.values() for name in (claim.name, claim.again))
        _known[kind] = _Declaration(fields, frozenset(name for name in names if name is not None))
    return _known[kind]
