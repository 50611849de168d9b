"""The cluster that keeps a store, as its connected member sees it: ``khepri_cluster``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge.errors import ProtocolError
from bridge.etf import Atom
from bridge.khepri.calls import KHEPRI, StoreCalls
from bridge.khepri.options import read_options
from bridge.khepri.reply import StoreUnavailableError


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """Versions of the connected member.

    Attributes:
        machine: of Khepri's state machine there.
        effective_machine: the one in use, that of the oldest member.
        khepri: of the application.
        otp: of Erlang/OTP.
    """

    machine: int
    effective_machine: int
    khepri: str
    otp: str


class Cluster:
    """``store.cluster``. Starting, joining and leaving are the operator's: ``khepri-bridge up``."""

    def __init__(self, calls: StoreCalls) -> None:
        self._calls = calls

    async def members(self, *, timeout: float | None = None) -> list[str]:
        """Names of the nodes that keep the store, whether they are up or not."""
        return [str(member) for member in (await self._look(timeout))["members"]]

    async def leader(self, *, timeout: float | None = None) -> str | None:
        """Name of the node that leads, as far as the member knows; ``None`` while there is none."""
        leader = (await self._look(timeout))["leader"]
        return None if leader == _UNDEFINED else str(leader)

    async def wait_for_leader(self, *, timeout: float | None = None) -> str:
        """Name of the node that leads, as soon as one does.

        Raises:
            StoreTimeoutError: none did in time.
        """
        found = _named(await self._calls.read(KHEPRI, "wait_for_leader", [], {"timeout": timeout}))
        return str(found["leader"])

    async def is_running(self, *, timeout: float | None = None) -> bool:
        """Whether the store runs on the member."""
        try:
            return (await self._look(timeout))["running"] is True
        except StoreUnavailableError:
            return False

    async def stores(self, *, timeout: float | None = None) -> list[str]:
        """Ids of the stores that run on the member."""
        return [str(store) for store in await self._calls.ask(KHEPRI, "stores", [], timeout)]

    async def versions(self, *, timeout: float | None = None) -> Versions:
        """Versions of what runs on the member."""
        found = await self._look(timeout)
        return Versions(
            machine=found["machine_version"],
            effective_machine=found["effective_machine_version"],
            khepri=found["khepri"].decode(),
            otp=found["otp"].decode(),
        )

    async def info(self, *, timeout: float | None = None) -> Mapping[str, Any]:
        """What ``khepri:info/1`` prints, as data.

        Returns:
            ``nodes`` (how many the tree has), ``members``, ``keep_while`` (by path, the conditions by path),
            ``keep_while_count``, ``projections``, as they come.
        """
        return _named(await self._calls.read(KHEPRI, "info", [], {"timeout": timeout}))

    async def _look(self, timeout: float | None) -> Mapping[str, Any]:
        seconds = self._calls.seconds(timeout)
        arguments = [self._calls.store, read_options({}, seconds)]
        # Not a read of the store, which another member would answer as well: it is about this one.
        found = _named(await self._calls.ask(KHEPRI, "cluster", arguments, seconds))
        missing = _MEMBERS - found.keys()
        if missing:
            raise ProtocolError(f"the cluster's description lacks {', '.join(sorted(missing))}")
        return found


_UNDEFINED = Atom("undefined")
_MEMBERS = {
    "members",
    "leader",
    "running",
    "machine_version",
    "effective_machine_version",
    "khepri",
    "otp",
}


def _named(term: Any) -> dict[str, Any]:
    if not isinstance(term, Mapping):
        raise ProtocolError(f"no map: {term!r:.200}")
    return {str(name): value for name, value in term.items()}
