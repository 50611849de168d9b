"""Projections: tables that every member keeps of part of the tree."""

from __future__ import annotations

from typing import Any, Final, Literal, Unpack, get_args

from bridge.errors import ConfigurationError
from bridge.etf import Atom, ExportFun
from bridge.khepri.calls import PROCEDURES, StoreCalls
from bridge.khepri.options import ReadOptions
from bridge.khepri.paths import Pattern, wire_path

MAX_OBJECTS: Final = 10_000
"""objects of a table in one answer"""

TableType = Literal["set", "ordered_set", "bag", "duplicate_bag"]


class Projections:
    """``store.projections``. Tables follow the tree in apply order; a member may be behind another one."""

    def __init__(self, calls: StoreCalls) -> None:
        self._calls = calls

    async def register(
        self,
        name: str,
        pattern: Pattern,
        function: ExportFun | None = None,
        *,
        table: TableType = "set",
        keypos: int = 1,
        read_concurrency: bool = False,
        write_concurrency: bool = False,
        compressed: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Keep a table of the nodes that a pattern matches.

        Args:
            name: of the projection and its table.
            pattern: the nodes.
            function: an allowed function that makes the object of a node: of path and data, or of table,
                path, old and new properties (``khepri_projection``). ``None`` copies data that are tuples.
            table: kind of the table.
            keypos: the element of an object that is its key, from 1.
            read_concurrency: see Erlang's ``ets:new/2``, as the two that follow.
            write_concurrency: see there.
            compressed: see there.
            timeout: seconds.

        Raises:
            ProjectionExistsError: the name is taken.
            NotAllowedError: the function is not on the operator's list.
        """
        if table not in get_args(TableType):
            raise ConfigurationError(f"a table is one of {get_args(TableType)}, not {table!r}")
        made: Any = Atom("copy")
        if function is not None:
            if not isinstance(function, ExportFun) or function.arity not in (2, 4):
                raise ConfigurationError(f"{function!r:.100} is no function of 2 or 4 arguments")
            made = (function.module, function.function, function.arity)
        options = {
            Atom("type"): Atom(table),
            Atom("keypos"): keypos,
            Atom("read_concurrency"): read_concurrency,
            Atom("write_concurrency"): write_concurrency,
            Atom("compressed"): compressed,
        }
        await self._calls.write(
            PROCEDURES, "register_projection", [name.encode(), wire_path(pattern), made], timeout, options
        )

    async def unregister(self, *names: str, timeout: float | None = None) -> list[str]:
        """Drop projections and their tables; names that are not there are passed over.

        Returns:
            The names that were there.
        """
        return await self._unregister([name.encode() for name in names], timeout)

    async def unregister_all(self, *, timeout: float | None = None) -> list[str]:
        """Drop every projection but the bridge's own, and give their names."""
        return await self._unregister(Atom("all"), timeout)

    async def has(self, name: str, **options: Unpack[ReadOptions]) -> bool:
        """Whether a projection of this name is registered."""
        return bool(await self._calls.read(PROCEDURES, "has_projection", [name.encode()], options))

    async def lookup(self, name: str, key: Any, *, timeout: float | None = None) -> list[Any]:
        """Objects of this key in the connected member's table.

        Raises:
            NoProjectionError: there is no such table.
        """
        return await self._table("projection_lookup", name, key, timeout)

    async def objects(self, name: str, *, limit: int = 1_000, timeout: float | None = None) -> list[Any]:
        """Objects of the connected member's table, up to ``limit`` (1 to 10,000) of them.

        Raises:
            NoProjectionError: there is no such table.
        """
        if not 1 <= limit <= MAX_OBJECTS:
            raise ConfigurationError(f"a limit is 1 to {MAX_OBJECTS}, not {limit}")
        return await self._table("projection_objects", name, limit, timeout)

    async def _table(self, function: str, name: str, argument: Any, timeout: float | None) -> list[Any]:
        found: list[Any] = await self._calls.ask(
            PROCEDURES, function, [name.encode(), argument, self._calls.store], timeout
        )
        return found

    async def _unregister(self, names: Any, timeout: float | None) -> list[str]:
        answer = await self._calls.write(PROCEDURES, "unregister_projections", [names], timeout)
        return [name.decode() if isinstance(name, bytes) else str(name) for name in answer[Atom("names")]]
