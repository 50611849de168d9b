"""What a call came to, between Erlang's terms and this package's exceptions, in both directions.

Source: OTP's ``rpc`` (``rpcify_exception/2``: which ``badrpc`` stands for what) and ``erpc``
(``execute_call/4`` ends by ``{Ref, return | throw | exit, Term}`` or ``{Ref, error, Reason, Stack}``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from bridge.errors import (
    BridgeError,
    DeadlineError,
    NodeDownError,
    RemoteExitedError,
    RemoteRaisedError,
    RemoteRefusedError,
    RemoteThrewError,
)
from bridge.etf import Atom, Reference, shorten

ERROR: Final = Atom("error")
EXIT: Final = Atom("EXIT")
BADRPC: Final = Atom("badrpc")
NOCONNECTION: Final = Atom("noconnection")
SYSTEM_LIMIT: Final = Atom("system_limit")
UNDEF: Final = Atom("undef")

_RETURN: Final = Atom("return")
_THROW: Final = Atom("throw")
_EXIT_CLASS: Final = Atom("exit")
_ERPC: Final = Atom("erpc")
_NODEDOWN: Final = Atom("nodedown")
_TIMEOUT: Final = Atom("timeout")
_NOTSUP: Final = Atom("notsup")
_PYTHON: Final = Atom("python")

MAX_MESSAGE_CHARACTERS: Final = 2_000
"""characters of a Python exception's text that are sent to Erlang"""


def rpc_error(node: str, call: str, reason: Any) -> BridgeError:
    """The exception for ``{badrpc, reason}``.

    ``{'EXIT', {R, Stack}}`` is an error, any other ``{'EXIT', R}`` an exit. A called function that exits with
    a pair whose second half looks like a stack trace cannot be told from one that raised: ask ``erpc``.

    Args:
        node: the node asked.
        call: ``module:function/arity``, for the text.
        reason: the second element of the tuple.
    """
    match reason:
        case (kind, (why, [*stack])) if kind is EXIT and stack and all(map(_is_frame, stack)):
            return RemoteRaisedError(
                f"{node} {call} raised {shorten(why)}; the stack trace begins at {shorten(stack[0])}",
                reason=why,
                stack=stack,
            )
        case (kind, why) if kind is EXIT:
            return RemoteExitedError(f"{node} {call} exited: {shorten(why)}", reason=why)
    if reason is _NODEDOWN:
        return NodeDownError(node, "the node itself reports nodedown")
    if reason is _TIMEOUT:
        return DeadlineError(f"{node} {call}: the node itself reports a timeout")
    return RemoteRefusedError(f"{node} did not run {call}: {shorten(reason)}", reason=reason)


def erpc_result(node: str, call: str, tag: Reference, reason: Any) -> Any:
    """The value that the process of an ``erpc`` call returned, by the reason with which it ended.

    Args:
        node: the node asked.
        call: ``module:function/arity``, for the text.
        tag: the reference given to ``execute_call/4``; any other reason is not of its making.
        reason: of the process's end.

    Raises:
        RemoteRaisedError, RemoteThrewError, RemoteExitedError: what the function did.
        RemoteRefusedError: ``erpc`` could not call it.
        NodeDownError: ``noconnection``.
    """
    match reason:
        case (mark, kind, value) if mark == tag:
            if kind is _RETURN:
                return value
            if kind is _THROW:
                raise RemoteThrewError(f"{node} {call} threw {shorten(value)}", reason=value)
            if kind is _EXIT_CLASS:
                raise RemoteExitedError(f"{node} {call} exited: {shorten(value)}", reason=value)
            if kind is ERROR and type(value) is tuple and len(value) == 2 and value[0] is _ERPC:
                raise refused(node, call, value[1])
        case (mark, kind, why, stack) if mark == tag and kind is ERROR:
            raise RemoteRaisedError(f"{node} {call} raised {shorten(why)}", reason=why, stack=stack)
    if reason is NOCONNECTION:
        raise NodeDownError(node, "the connection was lost before the answer came")
    raise RemoteExitedError(f"{node} {call}: its process was ended by {shorten(reason)}", reason=reason)


def refused(node: str, call: str, reason: Any) -> BridgeError:
    """The exception for ``{erpc, reason}``: the function was never entered."""
    if reason is NOCONNECTION:
        return NodeDownError(node, "the connection was lost before the call was answered")
    hint = "; it runs no function for other nodes" if reason is _NOTSUP else ""
    return RemoteRefusedError(f"{node} did not run {call}: {shorten(reason)}{hint}", reason=reason)


def erpc_reply(tag: Any, value: Any) -> tuple[Any, ...]:
    """The reason with which the process of a successful ``erpc`` call ends."""
    return (tag, _RETURN, value)


def erpc_failure(tag: Any, error: BaseException, stack: Sequence[Any]) -> tuple[Any, ...]:
    """The reason with which the process of a failed ``erpc`` call ends."""
    match error:
        case RemoteThrewError():
            return (tag, _THROW, error.reason)
        case RemoteExitedError():
            return (tag, _EXIT_CLASS, error.reason)
        case RemoteRaisedError() if error.stack:
            return (tag, ERROR, error.reason, error.stack)
    return (tag, ERROR, error_reason(error), list(stack))


def rpc_failure(error: BaseException, stack: Sequence[Any]) -> Any:
    """What ``rpc:call/4`` gives its caller for an exception; a thrown term looks like a result there."""
    match error:
        case RemoteThrewError():
            return error.reason
        case RemoteExitedError() | RemoteRefusedError():
            return (BADRPC, (EXIT, error.reason))
        case RemoteRaisedError() if error.stack:
            return (BADRPC, (EXIT, (error.reason, error.stack)))
    return (BADRPC, (EXIT, (error_reason(error), list(stack))))


def exit_reason(error: BaseException) -> Any:
    """The exit reason of a Python process that an exception ends: ``{Reason, []}``, or what it exits with."""
    return error.reason if isinstance(error, RemoteExitedError) else (error_reason(error), [])


def error_reason(error: BaseException) -> Any:
    """``{python, ClassName, Message}`` with two binaries, or the reason that a ``RemoteRaisedError`` carries.

    The class name is no atom: an atom of a peer is never collected.
    """
    if isinstance(error, RemoteRaisedError):
        return error.reason
    text = _text(error)[:MAX_MESSAGE_CHARACTERS].encode("utf-8", "replace")
    return (_PYTHON, type(error).__qualname__.encode(), text)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        # KeyError(10**5000), which a peer's request may cause, raises where its text is asked for.
        return shorten(error.args, MAX_MESSAGE_CHARACTERS)


def _is_frame(item: Any) -> bool:
    return type(item) is tuple and len(item) == 4 and type(item[0]) is Atom and type(item[3]) is list
