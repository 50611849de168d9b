"""What runs inside the store: functions that the operator allows, and procedures made of them.

A function that never ends blocks the store on every member for good, so which may run is the operator's list
(``docs/protocol.md`` §1, ``kb_procedures``); everything else raises ``NotAllowedError``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, Unpack, get_args

from bridge.errors import ConfigurationError
from bridge.etf import Atom, ExportFun
from bridge.khepri.calls import PROCEDURES, StoreCalls
from bridge.khepri.options import DEFAULT_PROPS, Prop, ReadOptions, read_options
from bridge.khepri.paths import NativePath, Path, Pattern, native_path, wire_path

Mode = Literal["auto", "ro", "rw"]
Action = Literal["create", "update", "delete"]
_FUN: Final = re.compile(r"(.+):(.+)/(\d{1,3})")
_VALUE: Final = Atom("value")


def fun(text: str) -> ExportFun:
    """``fun module:function/arity``, as Erlang writes it; Elixir modules are called ``Elixir.Stock``.

    Raises:
        ConfigurationError: another form.

    >>> fun("stock:sell/2")
    ExportFun(module=Atom('stock'), function=Atom('sell'), arity=2)
    """
    parts = _FUN.fullmatch(text)
    if parts is None or int(parts[3]) > 255:
        raise ConfigurationError(f"{text!r} is no function: write it as 'module:function/arity'")
    return ExportFun(Atom(parts[1]), Atom(parts[2]), int(parts[3]))


class Procedures:
    """``store.procedures``.

    All methods raise ``NotAllowedError`` for a function that is not on the operator's list, and
    ``ProcedureRaisedError`` where one raises.
    """

    def __init__(self, calls: StoreCalls) -> None:
        self._calls = calls

    async def functions(self, *, timeout: float | None = None) -> list[ExportFun]:
        """The functions that the operator allows."""
        listed = await self._calls.ask(PROCEDURES, "functions", [], timeout)
        return [ExportFun(module, function, arity) for module, function, arity in listed]

    async def transaction(
        self,
        what: ExportFun | Path,
        args: Sequence[Any] = (),
        *,
        mode: Mode = "auto",
        timeout: float | None = None,
    ) -> Any:
        """Run a function, or the procedure at a path, as a transaction, and give what it returns.

        Args:
            what: the function or the path.
            args: terms.
            mode: ``ro`` runs on the connected member alone and may not write; ``rw`` on all, through the log;
                ``auto`` finds out.
            timeout: seconds.

        Raises:
            TransactionAbortedError: it called ``khepri_tx:abort``.
            NoProcedureError: the path holds no procedure.
            OutcomeUnknownError: the answer was lost; unlike a list of operations it has no operation id.
        """
        if mode not in get_args(Mode):
            raise ConfigurationError(f"a mode is one of {get_args(Mode)}, not {mode!r}")
        target: tuple[Any, ...]
        if isinstance(what, ExportFun):
            _check_arity(what, len(args))
            target = (what.module, what.function)
        else:
            target = (Atom("sproc"), wire_path(what))
        value = await self._calls.write(PROCEDURES, "transaction", [target, list(args), Atom(mode)], timeout)
        return value[_VALUE]

    async def put(self, path: Path, function: ExportFun, *, timeout: float | None = None) -> None:
        """Store a function as the procedure of a node; what it is made of at this moment is what will run."""
        await self._calls.write(PROCEDURES, "put_sproc", [wire_path(path), _triple(function)], timeout)

    async def run(self, path: Path, args: Sequence[Any] = (), **options: Unpack[ReadOptions]) -> Any:
        """Run the procedure of a node at the connected member, outside any transaction.

        Raises:
            NoProcedureError: the node has none.
            NodeNotFoundError: there is no such node.
            OutcomeUnknownError: the answer was lost or late.
        """
        timeout = options.get("timeout")
        wire = read_options(options, self._calls.seconds(timeout))
        # It may do more than read, so it is not run again elsewhere when its answer is lost.
        value = await self._calls.write(PROCEDURES, "run_sproc", [wire_path(path), list(args)], timeout, wire)
        return value[_VALUE]

    async def fold(
        self,
        pattern: Pattern,
        function: ExportFun,
        accumulator: Any,
        *,
        props: Iterable[Prop] = DEFAULT_PROPS,
        **options: Unpack[ReadOptions],
    ) -> Any:
        """``Khepri.fold`` at the member: the function takes path, properties and what was combined so far."""
        value = await self._fold("fold", pattern, function, 3, [accumulator], props, options)
        return value[_VALUE]

    async def for_each(
        self,
        pattern: Pattern,
        function: ExportFun,
        *,
        props: Iterable[Prop] = DEFAULT_PROPS,
        **options: Unpack[ReadOptions],
    ) -> None:
        """``Khepri.for_each`` at the member: the function takes path and properties."""
        await self._fold("foreach", pattern, function, 2, [], props, options)

    async def map(
        self,
        pattern: Pattern,
        function: ExportFun,
        *,
        props: Iterable[Prop] = DEFAULT_PROPS,
        **options: Unpack[ReadOptions],
    ) -> dict[NativePath, Any]:
        """``Khepri.map`` at the member: the function takes path and properties."""
        found = await self._fold("map", pattern, function, 2, [], props, options)
        return {native_path(path): value for path, value in found.items()}

    async def filter(
        self,
        pattern: Pattern,
        function: ExportFun,
        *,
        props: Iterable[Prop] = DEFAULT_PROPS,
        **options: Unpack[ReadOptions],
    ) -> dict[NativePath, Any]:
        """``Khepri.filter`` at the member: the function takes path and properties, and returns a boolean.

        As in Khepri, a node without data shows as the atom ``undefined``.
        """
        found = await self._fold("filter", pattern, function, 2, [], props, options)
        return {native_path(path): value for path, value in found.items()}

    async def register_trigger(
        self,
        name: str,
        path: Path,
        procedure: Path,
        *,
        on: Iterable[Action] = ("create", "update", "delete"),
        priority: int = 0,
        timeout: float | None = None,
    ) -> None:
        """Run a stored procedure whenever a node changes; registering a name again replaces its trigger.

        It runs on the leader, after the change, at least once and in no promised order. Khepri has no way to
        take a trigger away: without its procedure it does nothing.

        Args:
            name: of the trigger.
            path: of one node: Khepri 0.16 does not survive triggers with patterns.
            procedure: where the procedure is; it takes one map.
            on: what to run it for.
            priority: higher ones run first.
            timeout: seconds.
        """
        actions = list(on)
        if not actions or any(action not in get_args(Action) for action in actions):
            raise ConfigurationError(f"a trigger runs on some of {get_args(Action)}, not {actions!r:.100}")
        event = {
            Atom("path"): wire_path(path),
            Atom("on_actions"): [Atom(action) for action in actions],
            Atom("priority"): priority,
        }
        await self._calls.write(
            PROCEDURES, "register_trigger", [name.encode(), event, wire_path(procedure)], timeout
        )

    async def _fold(
        self,
        function: str,
        pattern: Pattern,
        applied: ExportFun,
        arity: int,
        more: list[Any],
        props: Iterable[Prop],
        options: ReadOptions,
    ) -> Any:
        _check_arity(applied, arity)
        arguments = [wire_path(pattern), _triple(applied), *more]
        return await self._calls.read(PROCEDURES, function, arguments, options, props)


def _triple(function: ExportFun) -> tuple[Atom, Atom, int]:
    if not isinstance(function, ExportFun):
        raise ConfigurationError(f"{function!r:.100} is no function: use fun('module:function/arity')")
    return (function.module, function.function, function.arity)


def _check_arity(function: ExportFun, arity: int) -> None:
    if not isinstance(function, ExportFun):
        raise ConfigurationError(f"{function!r:.100} is no function: use fun('module:function/arity')")
    if function.arity != arity:
        raise ConfigurationError(f"{function} is called with {arity} arguments")
