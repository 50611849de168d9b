"""The stateless cookie: what an address must give back before an INIT from it is worth a look-up.

A cookie says when it was made and is authentic only together with the address it was sent to and the INIT
it was for, so nothing needs to be remembered of who asked. Who sends it back can read at that address.
Source: docs/protocol.md §5, "Cookie"; the idea is that of DTLS (RFC 6347, section 4.2.1).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from bridge.udp.peers import Address
from bridge.udp.wire import (
    COOKIE_BYTES,
)

_TIME_BYTES: Final = 4
_MAC_BYTES: Final = COOKIE_BYTES - _TIME_BYTES
_MASK: Final = 0xFFFFFFFF
SECRET_BYTES: Final = 32


class CookieJar:
    """Makes and checks cookies. One secret for an endpoint's life: restarting forgets all that are out."""

    __slots__ = ("_lifetime", "_secret")

    def __init__(self, secret: bytes, *, lifetime: float) -> None:
        """Make a jar.

        Args:
            secret: 32 random bytes that nobody else has.
            lifetime: seconds for which a cookie is good; whole seconds are compared.
        """
        self._secret = secret
        self._lifetime = int(lifetime)

    def bake(self, box: bytes, address: Address, *, unix_seconds: int) -> bytes:
        """The cookie, 20 bytes, for an INIT with this box from this address."""
        time = (unix_seconds & _MASK).to_bytes(_TIME_BYTES, "big")
        return time + self._authenticator(time, box, address)

    def accepts(self, cookie: bytes, box: bytes, address: Address, *, unix_seconds: int) -> bool:
        """Whether this is a cookie made here for this INIT and address, and still good."""
        time = cookie[:_TIME_BYTES]
        if len(cookie) != COOKIE_BYTES:
            return False
        if (unix_seconds - int.from_bytes(time, "big")) & _MASK > self._lifetime:
            return False
        return hmac.compare_digest(cookie[_TIME_BYTES:], self._authenticator(time, box, address))

    def _authenticator(self, time: bytes, box: bytes, address: Address) -> bytes:
        host, port = address
        text = f"{host}|{port}".encode()
        message = time + bytes((len(text),)) + text + hashlib.sha256(box).digest()
        return hmac.digest(self._secret, message, "sha256")[:_MAC_BYTES]
