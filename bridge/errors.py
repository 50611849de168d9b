"""One tree of exceptions, split by who must act.

::

    BridgeError
    ├── ClosedError               we closed it; stop using it
    ├── ConnectionLostError       the peer or the network went away; reconnect
    │   └── NodeDownError         an Erlang node we talked to is gone
    ├── DeadlineError             our own deadline passed; nothing was changed, or it was only a read
    │   └── OutcomeUnknownError   a write may have been applied; ask again with the same operation id
    ├── ProtocolError             the peer sent something that its protocol does not allow
    │   └── DecodeError           bytes that are no term, datagram or message
    ├── LimitExceededError        more than a named limit allows, of what this side was given or keeps
    │   └── PeerLimitError        bytes of a peer that ask for more: also a ProtocolError
    ├── RemoteError               the peer understood and refused; ``reason`` keeps what it said
    │   ├── KhepriError           the store refused; one subclass per reason in ``bridge.khepri``
    │   ├── AuthorityError        the homeserver refused an authority request
    │   ├── RemoteRaisedError     a called function raised an error
    │   ├── RemoteThrewError      a called function threw a term
    │   ├── RemoteExitedError     the process that was asked ended, by its own exit or a signal
    │   └── RemoteRefusedError    the node did not run the function at all
    ├── HandshakeError            no distribution connection could be made; the text says what to mend
    ├── BoxError                  a box that must not be opened
    ├── SignatureError            a signature that does not hold
    ├── KeyFormatError            bytes or members that are no usable key
    ├── ConfigurationError        the caller's configuration or arguments
    └── InvalidStateError         the call does not fit the state of the object
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class BridgeError(Exception):
    """Root of every exception that this package raises on purpose."""


class ClosedError(BridgeError):
    """The object was closed by this side."""


class ConnectionLostError(BridgeError):
    """The peer or the network ended the connection."""


class NodeDownError(ConnectionLostError):
    """The connection to an Erlang node ended.

    Attributes:
        node: the name of the node that is gone.
    """

    def __init__(self, node: str, detail: str = "connection lost") -> None:
        super().__init__(f"node {node} is down: {detail}")
        self.node = node
        self.detail = detail


class DeadlineError(BridgeError, TimeoutError):
    """A deadline of this side passed."""


class OutcomeUnknownError(DeadlineError):
    """A write was sent and its answer never came; it may have been applied."""


class ProtocolError(BridgeError):
    """The peer broke its protocol."""


class DecodeError(ProtocolError):
    """Bytes that do not decode."""


class LimitExceededError(BridgeError):
    """More than a limit of this side allows: an argument too large, or too much that waits already.

    Attributes:
        limit: the name of the limit, as in the configuration.
        maximum: its value.
    """

    def __init__(self, limit: str, maximum: int, unit: str = "") -> None:
        super().__init__(f"more than {limit}={maximum}{f' {unit}' if unit else ''}")
        self.limit = limit
        self.maximum = maximum


class PeerLimitError(LimitExceededError, ProtocolError):
    """Bytes of a peer that would need more than a limit allows."""


class RemoteError(BridgeError):
    """The peer refused, or failed while it served the request.

    Attributes:
        reason: the remote reason as it came, never shortened.
        props: what the peer said about it, by name; empty where it said nothing.
    """

    def __init__(self, message: str, *, reason: Any, props: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.props: Mapping[str, Any] = dict(props or {})


class KhepriError(RemoteError):
    """A Khepri store refused."""


class AuthorityError(RemoteError):
    """A homeserver refused an authority request."""


class RemoteRaisedError(RemoteError):
    """A called function raised ``error(Reason)``; raised by a Python function that OTP calls, OTP sees that.

    Attributes:
        reason: ``undef``, ``badarg``, ``{badmatch, V}``, …
        stack: ``(module, function, arity or arguments, location)`` of each frame, innermost first.
    """

    def __init__(self, message: str, *, reason: Any, stack: Sequence[Any] = ()) -> None:
        super().__init__(message, reason=reason)
        self.stack = list(stack)


class RemoteThrewError(RemoteError):
    """A called function called ``throw(Term)`` and nobody caught it; ``reason`` is the term."""


class RemoteExitedError(RemoteError):
    """The process that was asked ended before it answered; ``reason`` is its exit reason.

    It called ``exit(Reason)``, or an exit signal ended it; ``noproc`` where there was none.
    """


class RemoteRefusedError(RemoteError):
    """The node did not run the function: ``notsup``, ``system_limit`` or ``badarg``."""


class HandshakeError(BridgeError):
    """A distribution connection could not be made."""


class BoxError(BridgeError):
    """A box that must not be opened: malformed, altered, for somebody else, or of another algorithm."""


class SignatureError(BridgeError):
    """A signature, or what it covers, does not hold."""


class KeyFormatError(BridgeError):
    """Bytes or members that are no key this package uses."""


class ConfigurationError(BridgeError):
    """Configuration or arguments that cannot work; the text says what to change."""


class InvalidStateError(BridgeError):
    """The call does not fit the state of the object."""
