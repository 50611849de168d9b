"""How each member of a cluster is, by its own account: who leads, in which term, how far its log is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge.errors import BridgeError, DeadlineError, ProtocolError
from bridge.etf import Atom
from bridge.khepri.reply import unwrap
from bridge.node import HiddenNode

_UNDEFINED: Final = Atom("undefined")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberHealth:
    """One member, as ``kb_api:health`` tells (``docs/protocol.md`` §1).

    Attributes:
        node: its name.
        store: id of the store.
        type: ``homeserver`` or ``simulation``; empty while the store has never run.
        instance: the logical homeserver; as empty then.
        running: whether its store runs.
        role: in Raft: ``leader``, ``follower``, ``candidate``, ``pre_vote``, ``noproc`` or another state.
        term: of Raft, as it knows it; it rises with every election.
        leader: who leads, as far as it knows.
        members: of the cluster, as far as it knows.
        absent: those of them that it has no connection to, or has not heard over it for more than a second.
        commit_index: newest entry of the log that a majority has.
        last_applied: newest entry that is in its tree.
        khepri: version.
        otp: release.
    """

    node: str
    store: str
    type: str
    instance: str
    running: bool
    role: str
    term: int
    leader: str | None
    members: tuple[str, ...]
    absent: tuple[str, ...]
    commit_index: int
    last_applied: int
    khepri: str
    otp: str

    @classmethod
    def from_term(cls, term: object) -> MemberHealth:
        """Read an answer of ``kb_api:health``.

        Raises:
            ProtocolError: it is none of this version.
        """
        if not isinstance(term, Mapping):
            raise ProtocolError(f"no health of a member: {term!r:.200}")
        found: dict[str, Any] = {str(name): value for name, value in term.items()}
        try:
            leader = found["leader"]
            return cls(
                node=str(found["node"]),
                store=str(found["store"]),
                type=_text(found["type"]),
                instance=_text(found["instance"]),
                running=found["running"] is True,
                role=str(found["role"]),
                term=int(found.get("term", 0)),
                leader=None if leader == _UNDEFINED else str(leader),
                members=tuple(str(member) for member in found["members"]),
                absent=tuple(str(member) for member in found.get("absent", ())),
                commit_index=int(found.get("commit_index", 0)),
                last_applied=int(found.get("last_applied", 0)),
                khepri=_text(found["khepri"]),
                otp=_text(found["otp"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"no health of a member of this version ({error!r})") from None


async def members_health(
    node: HiddenNode, members: Sequence[str], store: str, *, timeout: float = 1.0
) -> dict[str, MemberHealth | BridgeError]:
    """Ask every member at once; what kept one from answering stands in the place of its answer."""

    async def ask(member: str) -> MemberHealth | BridgeError:
        try:
            async with asyncio.timeout(timeout):
                await node.connect(member, timeout=timeout)
                return MemberHealth.from_term(
                    unwrap(await node.call(member, "kb_api", "health", [Atom(store)], timeout=timeout))
                )
        except TimeoutError as late:
            if isinstance(late, BridgeError):
                return late
            return DeadlineError(f"{member} did not answer in {timeout:g} s")
        except BridgeError as error:
            return error

    answers = await asyncio.gather(*(ask(member) for member in members))
    return dict(zip(members, answers, strict=True))


def _text(value: object) -> str:
    if value == _UNDEFINED:
        return ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
