"""Export and import in Khepri's own file format (``khepri_export_erlang``)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any, Final

from bridge.errors import ConfigurationError, ProtocolError
from bridge.etf import Atom
from bridge.files import replace_file
from bridge.khepri.calls import EXPORT, StoreCalls
from bridge.khepri.paths import Pattern, wire_path

MAX_EXPORT_BYTES: Final = 64 * 1024 * 1024
"""bytes of one export or import"""
_TIMEOUT: Final = 60.0
"""seconds: a large import takes half a minute"""


@dataclass(frozen=True, slots=True)
class Exported:
    """A part of the tree.

    Attributes:
        data: what ``khepri:import`` and ``Khepri.import_bytes`` take.
        nodes: how many nodes are in it.
    """

    data: bytes
    nodes: int


class Transfer:
    """The exporting and importing part of ``Khepri``."""

    _calls: StoreCalls

    async def export_bytes(self, pattern: Pattern = "/**", *, timeout: float = _TIMEOUT) -> Exported:
        """The nodes that a pattern matches, up to 64 MiB of them.

        Raises:
            TooLargeError: more than that; export parts of the tree.
        """
        found = await self._calls.read(EXPORT, "export", [wire_path(pattern)], {"timeout": timeout})
        match found:
            case Mapping() if isinstance(data := found.get(Atom("bytes")), bytes):
                return Exported(data, _nodes(found))
        raise ProtocolError(f"no export: {found!r:.200}")

    async def export_to(
        self, file: str | os.PathLike[str], pattern: Pattern = "/**", *, timeout: float = _TIMEOUT
    ) -> int:
        """Write the nodes that a pattern matches to a file, whole or not at all; tells how many they are."""
        exported = await self.export_bytes(pattern, timeout=timeout)
        await asyncio.to_thread(replace_file, File(file), exported.data)
        return exported.nodes

    async def import_bytes(self, data: bytes, *, timeout: float = _TIMEOUT) -> int:
        """Put the nodes of an export into the store, and tell how many they are; others stay.

        Raises:
            InvalidRequestError: it is no export, or holds what may not be written.
            OutcomeUnknownError: the answer was lost; some of it may have been applied.
        """
        if len(data) > MAX_EXPORT_BYTES:
            raise ConfigurationError(f"an import of {len(data)} bytes is beyond {MAX_EXPORT_BYTES}")
        return _nodes(await self._calls.write(EXPORT, "import", [data], timeout))

    async def import_from(self, file: str | os.PathLike[str], *, timeout: float = _TIMEOUT) -> int:
        """Like ``import_bytes``, from a file of ``export_to`` or ``khepri:export``."""
        return await self.import_bytes(await asyncio.to_thread(File(file).read_bytes), timeout=timeout)

    async def backup_to(self, file: str | os.PathLike[str], *, timeout: float = _TIMEOUT) -> int:
        """Write all that the instance knows to a file, as of one moment; whole or not at all.

        Besides what ``export_to`` writes that is what lies below ``/:bridge``: entities with owners, masters
        and rules, players, servers, keys. Sessions and what was in flight between them are not in it.

        Returns:
            How many nodes there are in it.

        Raises:
            TooLargeError: more than 64 MiB; copy the data directory of a member that was stopped.
        """
        found = await self._calls.read(EXPORT, "backup", [], {"timeout": timeout})
        match found:
            case Mapping() if isinstance(data := found.get(Atom("bytes")), bytes):
                await asyncio.to_thread(replace_file, File(file), data)
                return _nodes(found)
        raise ProtocolError(f"no backup: {found!r:.200}")

    async def restore_from(self, file: str | os.PathLike[str], *, timeout: float = _TIMEOUT) -> int:
        """Put a backup into a cluster of the same instance that was just started and knows nothing yet.

        Every entity comes back dormant, at epochs above all that the backup knows of. A restore that was
        interrupted is repeated with the same file; until it has ended no server opens a session.

        Returns:
            How many nodes the file has.

        Raises:
            NotEmptyError: the cluster knows something already.
            InvalidRequestError: it is no backup, or that of another instance.
            OutcomeUnknownError: the answer was lost; repeat it.
        """
        data = await asyncio.to_thread(File(file).read_bytes)
        if len(data) > MAX_EXPORT_BYTES:
            raise ConfigurationError(f"a backup of {len(data)} bytes is beyond {MAX_EXPORT_BYTES}")
        return _nodes(await self._calls.write(EXPORT, "restore", [data], timeout))


def _nodes(answer: Any) -> int:
    nodes = answer.get(Atom("nodes")) if isinstance(answer, Mapping) else None
    if type(nodes) is not int:
        raise ProtocolError(f"no number of nodes: {answer!r:.200}")
    return nodes
