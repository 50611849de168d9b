"""Hand-off tickets: a player's data arrives with the player, and is believed offline (R4-1…R4-8).

A ticket is for one server, one run of it, one room, one use. The player's key is in it, not only its
thumbprint, because a server that asks nobody has it from nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

from bridge.errors import SignatureError
from bridge.jose.credentials.claims import check_id, check_name
from bridge.jose.credentials.declared import EXPIRES, ISSUED, KEY, Claim, Declared
from bridge.jose.encoding import json_encode, json_object_untrusted
from bridge.jose.key import Jwk

MAX_TICKET_DATA_BYTES: Final = 8_192
"""Of the player's data as JSON text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket(Declared):
    """Leave for one player to enter one room once, with the player's data.

    Attributes:
        subject: the player.
        key: the player's certified public key, on P-256.
        server: where the room is.
        session: of that server, 16 bytes in base64url: another run of it has another, so that it need not
            remember what was used before.
        room: at that server.
        data: any JSON object, up to ``MAX_TICKET_DATA_BYTES`` and 7 levels; readable by whoever has the
            ticket.
        nonce: 16 random bytes, base64url.
        instance: whose homeservers issued it.
        issued_at: Unix seconds.
        expires_at: Unix seconds, up to ``MAX_LIFETIME_S`` later.

    Raises:
        SignatureError: a member out of its range.
    """

    TYP: ClassVar[str] = "kb-ticket+jwt"
    MAX_LIFETIME_S: ClassVar[int] = 120
    MAX_BYTES: ClassVar[int] = 16_384

    subject: Annotated[str, Claim("sub", check_name)]
    key: Annotated[Jwk, KEY]
    server: Annotated[str, Claim("aud", check_name)]
    session: Annotated[str, Claim("sid", check_id)]
    room: Annotated[str, Claim("room", check_name)]
    data: Annotated[Mapping[str, Any], Claim("data", _check_data, write=dict)]
    nonce: Annotated[str, Claim("nonce", check_id)]
    instance: Annotated[str, Claim("iss", check_name)]
    issued_at: Annotated[int, ISSUED]
    expires_at: Annotated[int, EXPIRES]

    @property
    def thumbprint(self) -> str:
        """RFC 7638 thumbprint of the player's key."""
        return self.key.thumbprint()


def _check_data(value: object, what: str) -> None:
    del what
    check_data(value)


def check_data(data: object) -> None:
    """Demand a player's data: a JSON object that reads back as it is, within its bounds.

    Raises:
        SignatureError: it does not.
    """
    if not isinstance(data, Mapping):
        raise SignatureError("a player's data is a JSON object")
    try:
        text = json_encode(dict(data))
        if len(text) > MAX_TICKET_DATA_BYTES:
            raise SignatureError(f"a player's data has up to {MAX_TICKET_DATA_BYTES} bytes as JSON")
        # One level is the claims' own. Infinity, for one, is read from 1e999 and cannot be written.
        same = json_object_untrusted(b'{"data":' + text + b"}")["data"] == data
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise SignatureError(f"a player's data is no JSON object: {error}") from error
    if not same:
        raise SignatureError("a player's data does not read back as it is")
