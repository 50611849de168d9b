"""What the claims of all credentials have in common: names, times, ids, keys; one check for each.

Each is called when a credential is made as well as when it is read: nothing is signed that no reader takes.

Source: RFC 7519 section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, Final

from bridge.errors import KeyFormatError, SignatureError
from bridge.jose.credentials.names import name_fault
from bridge.jose.credentials.role import Role
from bridge.jose.credentials.token import CURVE
from bridge.jose.encoding import base64url_decode_untrusted
from bridge.jose.key import Jwk

MAX_CLOCK_SKEW_S: Final = 30
"""Seconds by which an issuer's clock may be ahead. What expired has expired: there no skew is allowed for."""
ID_BYTES: Final = 16
"""Of an id or a nonce, random."""
THUMBPRINT_BYTES: Final = 32
_MAX_TIME: Final = 2**53
_KEY_MEMBERS: Final = frozenset({"crv", "kty", "x", "y"})


def check_members(claims: Mapping[str, Any], members: Set[str]) -> None:
    """Demand exactly these claims.

    Raises:
        SignatureError: one is missing, or one is there that nobody here understands.
    """
    if claims.keys() != members:
        raise SignatureError(f"the claims are not exactly {', '.join(sorted(members))}")


def check_name(value: object, what: str) -> None:
    """Demand a name.

    Raises:
        SignatureError: it is none.
    """
    fault = "is no text" if not isinstance(value, str) else name_fault(value)
    if fault is not None:
        raise SignatureError(f"{what} {fault}")


def check_bytes(value: object, size: int, what: str) -> None:
    """Demand so many bytes, as canonical base64url.

    Raises:
        SignatureError: they are not.
    """
    try:
        if isinstance(value, str) and len(base64url_decode_untrusted(value)) == size:
            return
    except ValueError:
        pass
    raise SignatureError(f"{what} has {size} bytes, in base64url")


def check_thumbprint(value: object, what: str = "'jkt'") -> None:
    """Demand an RFC 7638 thumbprint.

    Raises:
        SignatureError: it is none.
    """
    check_bytes(value, THUMBPRINT_BYTES, what)


def check_id(value: object, what: str = "'jti'") -> None:
    """Demand the id of a credential, 16 random bytes.

    Raises:
        SignatureError: it is none.
    """
    check_bytes(value, ID_BYTES, what)


def check_time(value: object, what: str) -> None:
    """Demand a time: whole Unix seconds.

    Raises:
        SignatureError: it is none.
    """
    # bool is an int in Python, and "true" is no time.
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MAX_TIME:
        raise SignatureError(f"{what} is a time in whole Unix seconds")


def check_lifetime(issued_at: object, expires_at: object, maximum: int) -> None:
    """Demand that something expires after it was issued, and within a maximum of seconds.

    Raises:
        SignatureError: it does not.
    """
    check_time(issued_at, "'iat'")
    check_time(expires_at, "'exp'")
    assert isinstance(issued_at, int)
    assert isinstance(expires_at, int)
    if not 1 <= expires_at - issued_at <= maximum:
        raise SignatureError(f"the lifetime is 1 to {maximum} s, not {expires_at - issued_at}")


def check_now(issued_at: int, expires_at: int, now: float) -> None:
    """Demand that something is in force.

    Args:
        now: Unix seconds.

    Raises:
        SignatureError: it expired, or is from further ahead than clocks may differ.
    """
    if now >= expires_at:
        raise SignatureError(f"expired {now - expires_at:.0f} s ago: ask for a new one")
    if issued_at - now > MAX_CLOCK_SKEW_S:
        raise SignatureError(f"issued {issued_at - now:.0f} s ahead: check the clocks")


def check_key(key: object) -> None:
    """Demand a public key that can sign here.

    Raises:
        SignatureError: it is none.
    """
    if not isinstance(key, Jwk) or key.curve != CURVE or key.is_private:
        raise SignatureError(f"the key is a public one on {CURVE}")


def role_of(value: object) -> Role:
    """Return the role.

    Raises:
        SignatureError: there is no such role.
    """
    try:
        return Role(value)  # type: ignore[arg-type]
    except ValueError:
        raise SignatureError(f"the role is one of {', '.join(Role)}") from None


def key_of(value: object) -> Jwk:
    """Return the public key that a claim holds, which has exactly the members of one.

    Raises:
        SignatureError: it holds none.
    """
    # "d" above all: a private key that travels is nobody's any more.
    if not isinstance(value, dict) or value.keys() != _KEY_MEMBERS:
        raise SignatureError("'jwk' has exactly the members of a public key")
    try:
        return Jwk.from_dict(value)
    except KeyFormatError as error:
        raise SignatureError(f"'jwk' is no key: {error}") from error
