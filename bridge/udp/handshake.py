"""The two-datagram handshake: INIT and REPLY, each one signed box. Sans-IO.

The boxes' own ephemeral keys are the session's Diffie-Hellman keys, so a box costs no second key pair and
the session has forward secrecy; the transcript hash in the key schedule ties both boxes together. A third
datagram of proof was rejected: the first sealed datagram each way confirms the keys just as well.

Source: docs/protocol.md §5, "Handshake".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from bridge.errors import BoxError, InvalidStateError
from bridge.jose import Jwk, SignedBoxClaims, open_signed_box, seal_signed_box, shared_secret
from bridge.jose.encoding import base64url_decode_untrusted, json_object_untrusted
from bridge.udp.keys import DirectionKeys, derive_session_keys, transcript_hash
from bridge.udp.peers import Address, Peer
from bridge.udp.wire import (
    Parameters,
    Reply,
    Retry,
    encode_init,
    encode_parameters,
    encode_reply,
    init_digest,
    parse_parameters_untrusted,
)

_MAX_RETRY_DOUBLINGS: Final = 4
_MAX_COOKIES: Final = 4
"""Cookies one handshake answers: whoever saw the INIT can make them up."""


class HandshakeState(Enum):
    """Where a handshake stands."""

    START = auto()
    INIT_SENT = auto()
    """Initiator: waiting for the REPLY, repeating the INIT."""
    REPLY_SENT = auto()
    """Responder: keys are known, the initiator has not shown that it has them."""
    REPLY_RECEIVED = auto()
    """Initiator: keys are known, the responder has not shown that it has them."""
    CONFIRMED = auto()
    FAILED = auto()


_NEXT: Final = {
    HandshakeState.START: {HandshakeState.INIT_SENT, HandshakeState.REPLY_SENT, HandshakeState.FAILED},
    HandshakeState.INIT_SENT: {HandshakeState.REPLY_RECEIVED, HandshakeState.FAILED},
    HandshakeState.REPLY_SENT: {HandshakeState.CONFIRMED, HandshakeState.FAILED},
    HandshakeState.REPLY_RECEIVED: {HandshakeState.CONFIRMED, HandshakeState.FAILED},
    HandshakeState.CONFIRMED: set[HandshakeState](),
    HandshakeState.FAILED: set[HandshakeState](),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """What a handshake agreed on, seen from this side."""

    sending: DirectionKeys
    receiving: DirectionKeys
    remote: Parameters
    is_signed: bool
    """States come with proofs both ways: at least one side wants that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HandshakeTimes:
    """The present, on both clocks, and how long things may take."""

    now: float
    """Monotonic seconds."""
    now_ms: int
    """Unix milliseconds, for the issue time of boxes."""
    timeout: float
    """Seconds until the handshake has failed."""
    lifetime: float
    """Seconds for which a box is valid."""


def sender_untrusted(box: bytes) -> str:
    """The thumbprint a box names as its sender, for a look-up before more work is spent on it.

    Reading the whole box costs four times as much, which only boxes that name a peer are worth.

    Raises:
        BoxError: there is no such name to be read.
    """
    try:
        header = json_object_untrusted(base64url_decode_untrusted(box.partition(b".")[0].decode("ascii")))
    except ValueError as error:
        raise BoxError(f"no signed box: {error}") from error
    sender = header.get("snd")
    if not isinstance(sender, str):
        raise BoxError("a signed box names its sender")
    return sender


class _Handshake:
    """What both roles share: the peer, the deadline and the state, written in one place only."""

    def __init__(self, *, peer: Peer, session_id: bytes, parameters: Parameters, deadline: float) -> None:
        self.peer = peer
        self.session_id = session_id
        self.parameters = parameters
        self.deadline = deadline
        self._state = HandshakeState.START

    @property
    def state(self) -> HandshakeState:
        return self._state

    def _enter(self, state: HandshakeState) -> None:
        if state not in _NEXT[self._state]:
            raise InvalidStateError(f"handshake cannot go from {self._state.name} to {state.name}")
        self._state = state

    def confirm(self) -> None:
        """The peer sealed a datagram under the agreed keys.

        Raises:
            InvalidStateError: there are no agreed keys.
        """
        self._enter(HandshakeState.CONFIRMED)

    def fail(self) -> None:
        """Give up.

        Raises:
            InvalidStateError: it is over already.
        """
        self._enter(HandshakeState.FAILED)


class Initiator(_Handshake):
    """The side that sends INIT. The same bytes, but for a cookie, are repeated until the REPLY comes."""

    def __init__(
        self,
        *,
        identity: Jwk,
        peer: Peer,
        session_id: bytes,
        parameters: Parameters,
        times: HandshakeTimes,
        retry_interval: float,
    ) -> None:
        """Seal the INIT.

        Args:
            identity: this side's private P-256 key.
            session_id: 16 random bytes.
            parameters: our connection id and credit.
            retry_interval: seconds until the first repetition; doubled four times.
        """
        super().__init__(
            peer=peer, session_id=session_id, parameters=parameters, deadline=times.now + times.timeout
        )
        self._identity = identity
        self._ephemeral = Jwk.generate("P-256")
        self._box = seal_signed_box(
            encode_parameters(parameters),
            sender=identity,
            recipient=peer.public_key,
            session=session_id,
            sequence=0,
            issued_at_ms=times.now_ms,
            lifetime_ms=int(times.lifetime * 1000),
            purpose="init",
            direction="i",
            ephemeral=self._ephemeral,
        ).encode()
        self._datagram = encode_init(self._box)
        self._cookies: set[bytes] = set()
        self.init_digest = init_digest(self._box)
        self._retry_interval = retry_interval
        self._retries = 0
        self._send_at = times.now
        self._enter(HandshakeState.INIT_SENT)

    def get_timer(self) -> float:
        """When to call :meth:`datagram_to_send` next, or to give up."""
        if self._state is HandshakeState.INIT_SENT:
            return min(self._send_at, self.deadline)
        return self.deadline

    def datagram_to_send(self, *, now: float) -> bytes | None:
        """The INIT, when it is due."""
        if self._state is not HandshakeState.INIT_SENT or now < self._send_at:
            return None
        self._send_at = now + self._retry_interval * (1 << min(self._retries, _MAX_RETRY_DOUBLINGS))
        self._retries += 1
        return self._datagram

    def receive_retry(self, retry: Retry, *, now: float) -> bool:
        """Repeat the INIT at once with the cookie, if this RETRY asks for that.

        Anybody who saw the INIT can make one up, so it changes nothing but the bytes to send, once for each
        cookie and at most four times.

        Returns:
            Whether it does.
        """
        if (
            self._state is not HandshakeState.INIT_SENT
            or retry.init_digest != self.init_digest
            or retry.cookie in self._cookies
            or len(self._cookies) == _MAX_COOKIES
        ):
            return False
        self._cookies.add(retry.cookie)
        self._datagram = encode_init(self._box, retry.cookie)
        self._send_at = now
        return True

    def receive_reply(self, reply: Reply, *, now_ms: int) -> Agreement:
        """Check the REPLY and derive keys. A REPLY that fails changes nothing: it may be a stranger's.

        Raises:
            InvalidStateError: a REPLY was taken before.
            BoxError: not the answer to our INIT, or not to be opened.
            SignatureError: not signed by the peer.
            DecodeError: the peer's parameters.
        """
        if self._state is not HandshakeState.INIT_SENT:
            raise InvalidStateError("a reply was taken before")
        opened = open_signed_box(
            reply.box.decode("ascii", "replace"),
            recipient=self._identity,
            sender=self.peer.public_key,
            purpose="reply",
            direction="r",
            session=self.session_id,
            now_ms=now_ms,
        )
        remote = parse_parameters_untrusted(opened.payload)
        keys = derive_session_keys(
            shared_secret=shared_secret(self._ephemeral, opened.ephemeral),
            transcript=transcript_hash(self._box, reply.box),
        )
        del self._ephemeral
        self._enter(HandshakeState.REPLY_RECEIVED)
        return Agreement(
            sending=keys.initiator,
            receiving=keys.responder,
            remote=remote,
            is_signed=remote.wants_signed or self.parameters.wants_signed,
        )


class Responder(_Handshake):
    """The side that answers an INIT. The same REPLY answers the same INIT again."""

    def __init__(
        self,
        *,
        identity: Jwk,
        peer: Peer,
        box: bytes,
        claims: SignedBoxClaims,
        address: Address,
        parameters: Parameters,
        times: HandshakeTimes,
    ) -> None:
        """Check the INIT, derive keys and seal the REPLY.

        Args:
            peer: the one whose thumbprint the box names, with the key the homeserver has for it.
            box: the INIT's box as received.
            claims: what the box says of itself; believed only once the signature held.
            address: where the INIT came from, and the REPLY goes.

        Raises:
            BoxError: not to be opened.
            SignatureError: not signed by the peer.
            DecodeError: the peer's parameters.
        """
        super().__init__(
            peer=peer, session_id=claims.session, parameters=parameters, deadline=times.now + times.timeout
        )
        self.address = address
        self.issued_at_ms = claims.issued_at_ms
        self.init_box = box
        opened = open_signed_box(
            box.decode("ascii", "replace"),
            recipient=identity,
            sender=peer.public_key,
            purpose="init",
            direction="i",
            now_ms=times.now_ms,
        )
        remote = parse_parameters_untrusted(opened.payload)
        ephemeral = Jwk.generate("P-256")
        reply_box = seal_signed_box(
            encode_parameters(parameters),
            sender=identity,
            recipient=peer.public_key,
            session=claims.session,
            sequence=0,
            issued_at_ms=times.now_ms,
            lifetime_ms=int(times.lifetime * 1000),
            purpose="reply",
            direction="r",
            ephemeral=ephemeral,
        ).encode()
        self.reply = encode_reply(remote.connection_id, reply_box)
        keys = derive_session_keys(
            shared_secret=shared_secret(ephemeral, opened.ephemeral),
            transcript=transcript_hash(box, reply_box),
        )
        self.agreement = Agreement(
            sending=keys.responder,
            receiving=keys.initiator,
            remote=remote,
            is_signed=remote.wants_signed or parameters.wants_signed,
        )
        self._enter(HandshakeState.REPLY_SENT)
