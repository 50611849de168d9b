"""Reads of a store: data, questions, and the folds over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, Unpack

from bridge.errors import ProtocolError
from bridge.khepri.adv import AdvCalls
from bridge.khepri.calls import KHEPRI, StoreCalls, in_turns
from bridge.khepri.options import DEFAULT_PROPS, Prop, ReadOptions
from bridge.khepri.paths import NativePath, Pattern, wire_path
from bridge.khepri.props import NodeProps, data_of, told_in_parts
from bridge.khepri.reply import NodeNotFoundError

Result = TypeVar("Result")


class Reads:
    """The reading half of ``Khepri``; every method takes the keyword arguments of ``ReadOptions``.

    All of them raise ``InvalidRequestError`` for a pattern that the homeserver does not take, and the errors
    of a store that is not there: ``StoreUnavailableError``, ``StoreTimeoutError``, ``DeadlineError``.
    """

    _calls: StoreCalls
    adv: AdvCalls

    async def get(self, path: Pattern, **options: Unpack[ReadOptions]) -> Any:
        """Data of one node, or ``None`` where it has none, or a stored procedure.

        Raises:
            NodeNotFoundError: there is no such node.
            InvalidRequestError: the pattern may match several nodes.
        """
        if options:
            return data_of(await self._calls.read(KHEPRI, "get", [wire_path(path)], options))
        return data_of(await self._calls.together.gets.run(wire_path(path)))

    async def get_or(self, path: Pattern, default: Any, **options: Unpack[ReadOptions]) -> Any:
        """Data of one node, or ``default`` where there is no such node, or it has no data."""
        try:
            data = await self.get(path, **options)
        except NodeNotFoundError:
            return default
        return default if data is None else data

    async def get_many(self, pattern: Pattern, **options: Unpack[ReadOptions]) -> dict[NativePath, Any]:
        """Data of every node that the pattern matches, by native path; ``None`` where one has none."""
        found = await self._calls.read(KHEPRI, "get_many", [wire_path(pattern)], options)
        return await in_turns(told_in_parts(found, data_of))

    async def get_many_or(
        self, pattern: Pattern, default: Any, **options: Unpack[ReadOptions]
    ) -> dict[NativePath, Any]:
        """Like ``get_many``, with ``default`` for nodes without data."""
        found = await self.get_many(pattern, **options)
        return {path: default if data is None else data for path, data in found.items()}

    async def exists(self, path: Pattern, **options: Unpack[ReadOptions]) -> bool:
        """Whether there is such a node, also where it is not as conditions in the path demand."""
        return _bool(await self._calls.read(KHEPRI, "exists", [wire_path(path)], options))

    async def has_data(self, path: Pattern, **options: Unpack[ReadOptions]) -> bool:
        """Whether there is such a node, and it has data."""
        return _bool(await self._calls.read(KHEPRI, "has_data", [wire_path(path)], options))

    async def is_sproc(self, path: Pattern, **options: Unpack[ReadOptions]) -> bool:
        """Whether there is such a node, and it has a stored procedure."""
        return _bool(await self._calls.read(KHEPRI, "is_sproc", [wire_path(path)], options))

    async def count(self, pattern: Pattern, **options: Unpack[ReadOptions]) -> int:
        """How many nodes the pattern matches."""
        number = await self._calls.read(KHEPRI, "count", [wire_path(pattern)], options)
        if type(number) is not int:
            raise ProtocolError(f"no count: {number!r:.200}")
        return number

    async def is_empty(self, **options: Unpack[ReadOptions]) -> bool:
        """Whether the store holds nothing beside ``/:bridge``, which is always there."""
        return _bool(await self._calls.read(KHEPRI, "is_empty", [], options))

    async def fold(
        self,
        pattern: Pattern,
        function: Callable[[NativePath, NodeProps, Result], Result],
        accumulator: Result,
        *,
        props: Iterable[Prop] = DEFAULT_PROPS,
        **options: Unpack[ReadOptions],
    ) -> Result:
        """Combine the nodes that the pattern matches, one after another, in no order.

        They are fetched and combined here; ``store.procedures.fold`` combines them at the member.

        Args:
            pattern: what to combine.
            function: called with path, properties and what was combined so far.
            accumulator: what to begin with.
            props: the properties that it is told, as in ``adv.get_many``.
            options: see ``ReadOptions``.
        """
        for path, told in (await self.adv.get_many(pattern, props=props, **options)).items():
            accumulator = function(path, told, accumulator)
        return accumulator

    async def for_each(
        self,
        pattern: Pattern,
        function: Callable[[NativePath, NodeProps], object],
        *,
        props: Iterable[Prop] = DEFAULT_PROPS,
        **options: Unpack[ReadOptions],
    ) -> None:
        """Call a function for each node that the pattern matches."""
        for path, told in (await self.adv.get_many(pattern, props=props, **options)).items():
            function(path, told)

    async def map(
        self,
        pattern: Pattern,
        function: Callable[[NativePath, NodeProps], Result],
        *,
        props: Iterable[Prop] = DEFAULT_PROPS,
        **options: Unpack[ReadOptions],
    ) -> dict[NativePath, Result]:
        """What a function makes of each node that the pattern matches."""
        found = await self.adv.get_many(pattern, props=props, **options)
        return {path: function(path, told) for path, told in found.items()}

    async def filter(
        self,
        pattern: Pattern,
        function: Callable[[NativePath, NodeProps], bool],
        *,
        props: Iterable[Prop] = DEFAULT_PROPS,
        **options: Unpack[ReadOptions],
    ) -> dict[NativePath, Any]:
        """Data of those nodes that the pattern matches and the function says yes to.

        Data are among the properties told only where ``props`` has ``payload``.
        """
        found = await self.adv.get_many(pattern, props=props, **options)
        return {path: told.data for path, told in found.items() if function(path, told)}


def _bool(term: Any) -> bool:
    if type(term) is not bool:
        raise ProtocolError(f"neither true nor false: {term!r:.200}")
    return term
