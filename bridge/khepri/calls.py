"""Calls of a homeserver for one store: reads, writes that are sent once, and writes that are repeated."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from bridge.errors import ConfigurationError, DeadlineError, HandshakeError, OutcomeUnknownError
from bridge.etf import Atom
from bridge.khepri.caller import Caller
from bridge.khepri.config import KhepriConfig
from bridge.khepri.operations import OperationId, OperationIds
from bridge.khepri.options import Prop, milliseconds, read_options
from bridge.khepri.reply import (
    StoreNotRunningError,
    StoreTimeoutError,
    StoreUnavailableError,
    is_transient,
    unwrap,
)
from bridge.khepri.together import GROUPED_REQUESTS, AuthorityRequest, Commit, Together
from bridge.khepri.window import Window

KHEPRI: Final = "kb_khepri"
PROCEDURES: Final = "kb_procedures"
EXPORT: Final = "kb_export"
API: Final = "kb_api"

_MARGIN: Final = 0.5
"""seconds that this side waits on after a homeserver's time-out for a write: its answer tells more"""
_TIMEOUT: Final = Atom("timeout")
_instances = itertools.count(1)


Value = TypeVar("Value")


async def in_turns(parts: Generator[None, None, Value]) -> Value:
    """What is made in parts, with a turn of the event loop after each of them."""
    while True:
        try:
            next(parts)
        except StopIteration as end:
            value: Value = end.value
            return value
        await asyncio.sleep(0)


class StoreCalls:
    """What the client's families of functions share.

    Args:
        caller: what calls go through.
        store: the store's id.
        client: stable name for operation ids.
        config: deadlines.
    """

    def __init__(self, caller: Caller, store: Atom, client: str | None, config: KhepriConfig) -> None:
        self.caller = caller
        self.store = store
        self.config = config
        # Nanoseconds since 1970 rise from start to start of a client of the same name; where a clock went
        # back, the homeserver refuses the ids as of an older incarnation instead of mixing them up.
        self.ids = OperationIds(client or f"{caller.name}#{next(_instances)}", time.time_ns())
        self._window = Window(self.ids)
        self.together = Together(self)

    def seconds(self, timeout: float | None) -> float:
        """The deadline of a call: the caller's, or that of the configuration.

        Raises:
            ConfigurationError: not above zero.
        """
        if timeout is None:
            return self.config.timeout
        if not timeout > 0:
            raise ConfigurationError(f"a time-out is above zero seconds, not {timeout!r}")
        return timeout

    async def ask(self, module: str, function: str, args: Sequence[Any], timeout: float | None) -> Any:
        """A question without options, of the connected member.

        Raises:
            KhepriError: refused.
            DeadlineError: no answer in time.
        """
        return unwrap(
            await self.caller.call(module, function, args, timeout=self.seconds(timeout), idempotent=True)
        )

    async def read(
        self,
        module: str,
        function: str,
        args: Sequence[Any],
        options: Mapping[str, Any],
        props: Iterable[Prop] | None = None,
    ) -> Any:
        """A read of the store; ``args`` follow it, the ``Read`` map comes last.

        Where the store does not run on the member, or has no leader, it is asked again and elsewhere.

        Raises:
            ConfigurationError: an option that there is not.
            KhepriError: refused; ``StoreUnavailableError`` at the deadline only.
            DeadlineError: no answer in time.
        """
        seconds = self.seconds(options.get("timeout"))
        arguments = [self.store, *args, read_options(options, seconds, props)]
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        refusing: str | None = None
        while True:
            member = self.caller.current
            try:
                return await self.ask(module, function, arguments, max(0.001, deadline - clock()))
            except StoreUnavailableError:
                if deadline - clock() <= self.config.retry_delay:
                    raise
                refusing = self._leave(member, refusing)
            await asyncio.sleep(self.config.retry_delay)

    async def write(
        self,
        module: str,
        function: str,
        args: Sequence[Any],
        timeout: float | None,
        options: Mapping[Atom, Any] | None = None,
    ) -> Any:
        """A call that changes something and carries no operation id, so no store is sent it twice.

        A member whose store does not run says so before it sends anything: then another one is asked.

        Raises:
            KhepriError: refused.
            OutcomeUnknownError: the answer was lost or did not come in time; it may have been applied.
        """
        seconds = self.seconds(timeout)
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        left = seconds
        while True:
            member = self.caller.current
            wire = {**(options or {}), _TIMEOUT: milliseconds(left)}
            try:
                return unwrap(
                    await self.caller.call(
                        module,
                        function,
                        [self.store, *args, wire],
                        timeout=left + _MARGIN,
                        idempotent=False,
                    )
                )
            except OutcomeUnknownError:
                raise
            except (DeadlineError, StoreTimeoutError) as error:
                raise OutcomeUnknownError(
                    f"{function}: no answer in {seconds} s; it may have been applied"
                ) from error
            except StoreNotRunningError as error:
                left = deadline - clock() - self.config.retry_delay
                if left <= 0 or error.props.get("applied") is not False:
                    raise
                if member is not None:
                    self.caller.suspect(member)
            await asyncio.sleep(self.config.retry_delay)

    async def plain_write(self, write: tuple[Any, ...], timeout: float | None) -> None:
        """``(put, path, data)`` or ``(delete, path)`` on the wire; raises as ``write`` does."""
        if timeout is None:
            await self.together.writes.run(write)
        else:
            await self.write(KHEPRI, str(write[0]), write[1:], timeout)

    async def repeat(
        self,
        module: str,
        function: str,
        argument: Any,
        *,
        operation_id: OperationId | None,
        timeout: float | None,
        options: bool,
    ) -> Any:
        """A write with an operation id: repeated, through another member where need be, until it is known.

        Args:
            module: of the homeserver.
            function: of the module.
            argument: the term after the store.
            operation_id: of an earlier try, or ``None`` for a new one.
            timeout: seconds for all attempts together.
            options: whether the function takes an options map after the id.

        Raises:
            KhepriError: refused.
            OutcomeUnknownError: the deadline passed first.
            DeadlineError: it passed before anything was sent, because of the writes before this one.
        """
        deadline = asyncio.get_running_loop().time() + self.seconds(timeout)
        operation = operation_id or await self._window.begin(deadline=deadline)
        try:
            if timeout is None and (module, function) == (KHEPRI, "transaction"):
                return await self.together.commits.run(Commit(argument, operation, deadline))
            if module == API and function in GROUPED_REQUESTS:
                request = AuthorityRequest(function, argument, operation, deadline)
                return await self.together.requests.run(request)
            arguments = [self.store, argument, operation.term()]
            if options:
                arguments.append(self.attempt_options())
            return await self.until_known(module, function, arguments, deadline)
        finally:
            if operation_id is None:
                self._window.end(operation)

    def attempt_options(self) -> dict[Atom, Any]:
        """Of one attempt of a write that can be repeated."""
        return {_TIMEOUT: milliseconds(self.config.attempt_timeout)}

    async def until_known(self, module: str, function: str, arguments: list[Any], deadline: float) -> Any:
        """Repeat a call whose arguments hold an operation id until it is answered, or the deadline passes.

        Raises:
            KhepriError: refused.
            OutcomeUnknownError: the deadline passed first.
        """
        clock = asyncio.get_running_loop().time
        last: BaseException | None = None
        refusing: str | None = None
        while (left := deadline - clock()) > 0:
            member = self.caller.current
            try:
                return unwrap(
                    await self.caller.call(
                        module,
                        function,
                        arguments,
                        timeout=min(left, 2 * self.config.attempt_timeout),
                        idempotent=True,
                    )
                )
            except Exception as error:
                if not is_transient(error):
                    raise
                # A first dial that fails sent nothing; after a try that may have arrived it says nothing.
                if last is None or not isinstance(error, HandshakeError):
                    last = error
                refusing = self._leave(member, refusing)
            await asyncio.sleep(min(self.config.retry_delay, max(0.0, deadline - clock())))
        if isinstance(last, HandshakeError):
            raise last
        raise OutcomeUnknownError(
            f"{function}: no answer before the deadline; it may have been applied"
            f" ({last or 'it went with others, and no time was left for it alone'})"
        ) from last

    def _leave(self, member: str | None, refusing: str | None) -> str | None:
        """Once may be an election; a member that refuses twice may be cut off, or its store stopped."""
        if member is not None and member == refusing:
            self.caller.suspect(member)
        return member
