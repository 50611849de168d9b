"""The handshake of version 6 (``HANDSHAKE_23``), both sides of it.

Source: Erlang "Distribution Protocol", section "Distribution Handshake". Frames come and go without their
length, which has two bytes over TCP and four over TLS.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from bridge.dist.flags import MANDATORY, OFFERED, DistFlag, expand
from bridge.errors import ConfigurationError

_NAME: Final = struct.Struct(">cQIH")
_CHALLENGE: Final = struct.Struct(">cQIIH")
_REPLY: Final = struct.Struct(">cI16s")
_ACK: Final = struct.Struct(">c16s")


class Role(Enum):
    """Which side this is."""

    INITIATOR = auto()
    ACCEPTOR = auto()


class State(Enum):
    """Where the handshake stands; the first three belong to the initiator, the next three to the acceptor."""

    WAIT_STATUS = auto()
    WAIT_CHALLENGE = auto()
    WAIT_CHALLENGE_ACK = auto()
    WAIT_NAME = auto()
    WAIT_DECISION = auto()
    WAIT_ALIVE_ANSWER = auto()
    WAIT_CHALLENGE_REPLY = auto()
    CONNECTED = auto()
    FAILED = auto()


class Status(Enum):
    """The acceptor's word on a name."""

    OK = "ok"
    OK_SIMULTANEOUS = "ok_simultaneous"
    NOK = "nok"
    NOT_ALLOWED = "not_allowed"
    ALIVE = "alive"


class Failure(Enum):
    """Why no connection came about."""

    MALFORMED = auto()
    BAD_DIGEST = auto()
    CLOSED = auto()
    CLOSED_AFTER_CHALLENGE = auto()
    NOT_ALLOWED = auto()
    SIMULTANEOUS = auto()
    FLAGS = auto()
    WRONG_NAME = auto()
    TIMEOUT = auto()


_NEXT: Final[dict[State, frozenset[State]]] = {
    State.WAIT_STATUS: frozenset({State.WAIT_CHALLENGE, State.FAILED}),
    State.WAIT_CHALLENGE: frozenset({State.WAIT_CHALLENGE_ACK, State.FAILED}),
    State.WAIT_CHALLENGE_ACK: frozenset({State.CONNECTED, State.FAILED}),
    State.WAIT_NAME: frozenset({State.WAIT_DECISION, State.FAILED}),
    State.WAIT_DECISION: frozenset({State.WAIT_CHALLENGE_REPLY, State.WAIT_ALIVE_ANSWER, State.FAILED}),
    State.WAIT_ALIVE_ANSWER: frozenset({State.WAIT_CHALLENGE_REPLY, State.FAILED}),
    State.WAIT_CHALLENGE_REPLY: frozenset({State.CONNECTED, State.FAILED}),
    State.CONNECTED: frozenset(),
    State.FAILED: frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What this node says of itself.

    Attributes:
        name: full name, ``alive@host``.
        cookie: the shared secret; latin-1.
        creation: tells this run from earlier ones of the name; 1 … 2^32−1.
        flags: offered capabilities.
    """

    name: str
    cookie: str = field(repr=False)
    creation: int
    flags: DistFlag = OFFERED

    def __post_init__(self) -> None:
        alive, _, host = self.name.partition("@")
        if not alive or not host or "@" in host or len(self.name) > 255:
            raise ConfigurationError(f"{self.name!r} is no node name: say name@host")
        if not self.cookie:
            raise ConfigurationError("an empty cookie lets everybody in: give the one of the cluster")
        if not 1 <= self.creation <= 0xFFFF_FFFF:
            raise ConfigurationError("creation is 1 … 2^32−1")
        challenge_digest(self.cookie, 0)


def challenge_digest(cookie: str, challenge: int) -> bytes:
    """Digest proving knowledge of the cookie.

    Args:
        cookie: shared secret, latin-1 encodable.
        challenge: the peer's challenge, 32 bits, unsigned.

    Returns:
        16 bytes: MD5 of the cookie followed by the challenge in decimal.

    Raises:
        ConfigurationError: the cookie is not latin-1.

    Source: Erlang "Distribution Protocol", section "Distribution Handshake", ``gen_digest()``.
    """
    try:
        secret = cookie.encode("latin-1")
    except UnicodeEncodeError:
        raise ConfigurationError("a cookie holds only latin-1 characters") from None
    # MD5 is the protocol's; the cookie protects against mistakes, TLS against people.
    return hashlib.md5(secret + str(challenge).encode(), usedforsecurity=False).digest()


class HandshakeRejectedError(Exception):
    """Internal to this room: ends the handshake; ``DistConnection`` turns it into ``HandshakeFailed``."""

    def __init__(self, failure: Failure, detail: str) -> None:
        super().__init__(detail)
        self.failure = failure
        self.detail = detail


class Handshake:
    """One side of one handshake.

    Call ``start`` once; then ``receive_frame`` for each frame, and send what ``outbox`` holds after each
    call. The acceptor calls ``answer_name`` when the state is ``WAIT_DECISION``.

    Args:
        role: which side.
        identity: who we are.
        challenge: 32 random bits, from a source nobody can guess, used for this handshake alone.
        peer: the name dialled; the initiator refuses another one.
    """

    def __init__(self, role: Role, identity: Identity, *, challenge: int, peer: str | None = None) -> None:
        self._role = role
        self._identity = identity
        self._challenge = challenge
        self._state = State.WAIT_STATUS if role is Role.INITIATOR else State.WAIT_NAME
        self.peer = peer
        self.peer_creation = 0
        self.peer_flags = DistFlag(0)
        self.outbox: list[bytes] = []

    @property
    def state(self) -> State:
        """Where it stands."""
        return self._state

    @property
    def agreed_flags(self) -> DistFlag:
        """What both sides offer."""
        return expand(self._identity.flags) & self.peer_flags

    def _enter(self, state: State) -> None:
        if state not in _NEXT[self._state]:
            raise AssertionError(f"no edge from {self._state} to {state}")
        self._state = state

    def start(self) -> None:
        """The initiator says its name; the acceptor waits."""
        if self._role is Role.INITIATOR:
            name = self._identity.name.encode()
            header = _NAME.pack(b"N", self._identity.flags, self._identity.creation, len(name))
            self.outbox.append(header + name)

    def fail(self) -> None:
        """The connection ended, or a deadline passed."""
        if self._state not in (State.CONNECTED, State.FAILED):
            self._enter(State.FAILED)

    def receive_frame(self, frame: bytes) -> None:
        """Take one frame of the peer.

        Raises:
            HandshakeRejectedError: the handshake is over; send the outbox first, then close.
        """
        try:
            match self._state:
                case State.WAIT_STATUS:
                    self._take_status(frame)
                case State.WAIT_CHALLENGE:
                    self._take_challenge(frame)
                case State.WAIT_CHALLENGE_ACK:
                    self._take_ack(frame)
                case State.WAIT_NAME:
                    self._take_name(frame)
                case State.WAIT_ALIVE_ANSWER:
                    self._take_alive_answer(frame)
                case State.WAIT_CHALLENGE_REPLY:
                    self._take_reply(frame)
                case _:
                    raise HandshakeRejectedError(Failure.MALFORMED, "a frame out of turn")
        except (struct.error, UnicodeDecodeError, IndexError):
            self._enter(State.FAILED)
            raise HandshakeRejectedError(
                Failure.MALFORMED, f"a malformed handshake frame in {self._state.name}"
            ) from None
        except HandshakeRejectedError:
            self.fail()
            raise

    def answer_name(self, status: Status) -> None:
        """The acceptor's decision about the peer's name; ``NOK`` and ``NOT_ALLOWED`` end the handshake.

        Raises:
            HandshakeRejectedError: it was refused; the status is in the outbox.
        """
        self.outbox.append(b"s" + status.value.encode())
        if status in (Status.NOK, Status.NOT_ALLOWED):
            self._enter(State.FAILED)
            failure = Failure.SIMULTANEOUS if status is Status.NOK else Failure.NOT_ALLOWED
            raise HandshakeRejectedError(failure, f"we answered {status.value}")
        if status is Status.ALIVE:
            self._enter(State.WAIT_ALIVE_ANSWER)
        else:
            self._send_challenge()

    def _send_challenge(self) -> None:
        identity = self._identity
        name = identity.name.encode()
        header = _CHALLENGE.pack(b"N", identity.flags, self._challenge, identity.creation, len(name))
        self.outbox.append(header + name)
        self._enter(State.WAIT_CHALLENGE_REPLY)

    def _take_status(self, frame: bytes) -> None:
        if frame[:1] != b"s":
            raise HandshakeRejectedError(Failure.MALFORMED, "expected a status")
        match frame[1:]:
            case b"ok" | b"ok_simultaneous":
                pass
            case b"alive":
                # An earlier connection under our name is dead or dying; it is replaced by this one.
                self.outbox.append(b"strue")
            case b"nok":
                raise HandshakeRejectedError(
                    Failure.SIMULTANEOUS, "the peer is connecting to us at this moment; try again"
                )
            case b"not_allowed":
                raise HandshakeRejectedError(
                    Failure.NOT_ALLOWED,
                    "the peer does not allow this node name (net_kernel:allow/1), or takes it for its own",
                )
            case other:
                raise HandshakeRejectedError(Failure.MALFORMED, f"unknown status {other[:40]!r}")
        self._enter(State.WAIT_CHALLENGE)

    def _take_challenge(self, frame: bytes) -> None:
        if frame[:1] == b"n":
            raise HandshakeRejectedError(
                Failure.FLAGS, "the peer speaks the handshake of OTP 22 or older; OTP 24 or later is needed"
            )
        tag, flags, challenge, creation, length = _CHALLENGE.unpack_from(frame)
        name = self._read_name(frame, _CHALLENGE.size, length)
        if tag != b"N":
            raise HandshakeRejectedError(Failure.MALFORMED, "expected a challenge")
        if self.peer is not None and name != self.peer:
            raise HandshakeRejectedError(
                Failure.WRONG_NAME, f"{self.peer} was dialled and {name} answered; check the port mapper"
            )
        self._accept_peer(name, flags, creation)
        digest = challenge_digest(self._identity.cookie, challenge)
        self.outbox.append(_REPLY.pack(b"r", self._challenge, digest))
        self._enter(State.WAIT_CHALLENGE_ACK)

    def _take_ack(self, frame: bytes) -> None:
        tag, digest = _ACK.unpack(frame)
        if tag != b"a" or not self._holds(digest):
            raise HandshakeRejectedError(
                Failure.BAD_DIGEST, "the peer does not know the cookie; give both nodes the same one"
            )
        self._enter(State.CONNECTED)

    def _take_name(self, frame: bytes) -> None:
        if frame[:1] == b"n":
            raise HandshakeRejectedError(
                Failure.FLAGS, "the peer speaks the handshake of OTP 22 or older; OTP 24 or later is needed"
            )
        tag, flags, creation, length = _NAME.unpack_from(frame)
        if tag != b"N":
            raise HandshakeRejectedError(Failure.MALFORMED, "expected a name")
        self._accept_peer(self._read_name(frame, _NAME.size, length), flags, creation)
        self._enter(State.WAIT_DECISION)

    def _take_alive_answer(self, frame: bytes) -> None:
        if frame == b"sfalse":
            raise HandshakeRejectedError(Failure.NOT_ALLOWED, "the peer keeps its earlier connection")
        if frame != b"strue":
            raise HandshakeRejectedError(Failure.MALFORMED, "expected true or false")
        self._send_challenge()

    def _take_reply(self, frame: bytes) -> None:
        tag, challenge, digest = _REPLY.unpack(frame)
        if tag != b"r" or not self._holds(digest):
            raise HandshakeRejectedError(Failure.BAD_DIGEST, f"{self.peer} does not know the cookie")
        self.outbox.append(_ACK.pack(b"a", challenge_digest(self._identity.cookie, challenge)))
        self._enter(State.CONNECTED)

    def _holds(self, digest: bytes) -> bool:
        return hmac.compare_digest(digest, challenge_digest(self._identity.cookie, self._challenge))

    def _accept_peer(self, name: str, flags: int, creation: int) -> None:
        self.peer = name
        self.peer_creation = creation
        self.peer_flags = expand(flags)
        missing = MANDATORY & ~self.peer_flags
        if missing:
            raise HandshakeRejectedError(
                Failure.FLAGS, f"{name} lacks {missing!r}; OTP 24 or later has all of them"
            )

    @staticmethod
    def _read_name(frame: bytes, start: int, length: int) -> str:
        raw = frame[start : start + length]
        if len(raw) != length or not 3 <= length <= 1020 or raw.count(b"@") != 1:
            raise HandshakeRejectedError(Failure.MALFORMED, "no node name where one belongs")
        # Data after the name must be accepted and ignored, says the specification.
        return raw.decode()
