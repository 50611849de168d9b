"""Peer tokens: the homeserver introduces one certified key to one server (R0-32).

The bearer shows it to the peer when they connect; the peer checks it without asking anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from bridge.errors import SignatureError
from bridge.jose.credentials.claims import check_name, check_thumbprint
from bridge.jose.credentials.declared import EXPIRES, ID, ISSUED, ROLE, Claim, Declared
from bridge.jose.credentials.reading import read_untrusted
from bridge.jose.credentials.role import Role
from bridge.jose.credentials.token import MAX_CREDENTIAL_BYTES, Keyring


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerToken(Declared):
    """Leave to speak to one server.

    Attributes:
        subject: who may.
        role: as what.
        thumbprint: of the subject's certified key; who connects proves it by the session's handshake.
        peer: name of the server.
        instance: whose homeservers say so.
        issued_at: Unix seconds.
        expires_at: Unix seconds, up to ``MAX_LIFETIME_S`` later.
        id: 16 random bytes, base64url.

    Raises:
        SignatureError: a member out of its range.
    """

    TYP: ClassVar[str] = "kb-peer+jwt"
    MAX_LIFETIME_S: ClassVar[int] = 300
    MAX_BYTES: ClassVar[int] = MAX_CREDENTIAL_BYTES

    subject: Annotated[str, Claim("sub", check_name)]
    role: Annotated[Role, ROLE]
    thumbprint: Annotated[str, Claim("jkt", check_thumbprint)]
    peer: Annotated[str, Claim("aud", check_name)]
    instance: Annotated[str, Claim("iss", check_name)]
    issued_at: Annotated[int, ISSUED]
    expires_at: Annotated[int, EXPIRES]
    id: Annotated[str, ID]


def read_peer_untrusted(
    token: str, *, keys: Keyring, instance: str, peer: str, thumbprint: str, now: float
) -> PeerToken:
    """Check a peer token in full.

    Args:
        peer: the server that was shown it.
        thumbprint: of the key that the bearer has proven.
        keys: and what else there is, as for the other kinds.

    Raises:
        SignatureError: the only one.
    """
    introduced = read_untrusted(PeerToken, token, keys=keys, instance=instance, now=now)
    if introduced.peer != peer:
        raise SignatureError("the peer token is for another server")
    if introduced.thumbprint != thumbprint:
        raise SignatureError("the peer token is of another key than its bearer's")
    return introduced
