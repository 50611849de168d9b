"""What members say of themselves, put together as one view of their cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bridge.errors import BridgeError
from bridge.khepri import MemberHealth


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberView:
    """One member.

    Attributes:
        name: of its node.
        running: whether its process runs.
        pid: of its process.
        role: in Raft, as it says itself; ``silent`` or ``stopped`` where it does not say anything.
        term: of Raft, as it knows it; 0 where it does not answer.
        lag: entries of the log that it has still to apply, against the furthest commit that anybody tells.
    """

    name: str
    running: bool
    pid: int | None
    role: str
    term: int
    lag: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView:
    """A cluster as all of its members tell it.

    Attributes:
        ok: all members are there, and agree on a leader.
        leader: that of the highest term that anybody knows.
        members: who belongs to it.
        nodes: those that were started, in their order.
    """

    HEADER: ClassVar = ("node", "process", "role", "term", "behind", "pid")

    ok: bool
    instance: str
    leader: str | None
    members: tuple[str, ...]
    nodes: tuple[MemberView, ...]
    khepri: str | None
    otp: str | None

    @classmethod
    def of(
        cls,
        answers: Mapping[str, MemberHealth | BridgeError],
        *,
        instance: str,
        alive: Mapping[str, bool],
        pids: Mapping[str, int | None],
    ) -> ClusterView:
        """Put answers together.

        Args:
            answers: by name of the node.
            instance: the logical homeserver.
            alive: whether the node's process runs.
            pids: of the processes.
        """
        healthy = [answer for answer in answers.values() if isinstance(answer, MemberHealth)]
        # A member that was cut off goes on naming the leader of its time.
        newest = max(healthy, key=lambda health: (health.leader is not None, health.term), default=None)
        furthest = max((health.commit_index for health in healthy), default=0)
        members = newest.members if newest is not None else ()
        leader = newest.leader if newest is not None else None
        return cls(
            ok=bool(members)
            and leader is not None
            and all(
                isinstance(answer := answers.get(member), MemberHealth) and answer.leader == leader
                for member in members
            ),
            instance=instance,
            leader=leader,
            members=members,
            nodes=tuple(
                _member(name, answer, alive[name], pids[name], members, furthest)
                for name, answer in answers.items()
            ),
            khepri=newest.khepri if newest is not None else None,
            otp=newest.otp if newest is not None else None,
        )

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """A row for each node, in the order of ``HEADER``."""
        return tuple(
            (
                node.name,
                "running" if node.running else "stopped",
                node.role,
                str(node.term) if node.term else "-",
                str(node.lag) if node.term else "-",
                str(node.pid) if node.pid is not None else "-",
            )
            for node in self.nodes
        )

    def advice(self, start: str, *, logs: Path) -> list[str]:
        """What is wrong with members, and what to do, a line each.

        Args:
            start: the command that starts members that do not run.
            logs: where the log of each member lies.
        """
        if not any(node.running for node in self.nodes):
            return [f"no member runs: `{start}` starts all of them"]
        lines = []
        for node in self.nodes:
            short = node.name.partition("@")[0]
            log = logs / f"{short}.log"
            if not node.running:
                lines.append(
                    f"{node.name} does not run: `{start} --member {short}` starts it again; log {log}"
                )
            elif node.role == "silent":
                lines.append(
                    f"{node.name} runs and does not answer: look at {log}, or end process {node.pid}"
                )
            elif node.role == "not a member":
                lines.append(f"{node.name} runs and is no member: look at {log}")
        answering = sum(node.name in self.members and node.term > 0 for node in self.nodes)
        if lines and 2 * answering <= len(self.nodes):
            lines.append(
                f"{answering} of {len(self.nodes)} members answer, no majority: nothing can be changed"
            )
        return lines

    def line(self) -> str:
        """All of it in one line."""
        each = (
            f"{node.name.partition('@')[0]} {node.role}{f' in term {node.term}' if node.term else ''}"
            for node in self.nodes
        )
        return f"leader {self.leader or 'none'}; {', '.join(each)}"

    def to_dict(self) -> dict[str, object]:
        """What ``--json`` prints."""
        return {
            "ok": self.ok,
            "instance": self.instance,
            "leader": self.leader,
            "members": list(self.members),
            "nodes": [
                {
                    "name": node.name,
                    "running": node.running,
                    "role": node.role,
                    "term": node.term,
                    "behind": node.lag,
                }
                for node in self.nodes
            ],
            "khepri": self.khepri,
            "otp": self.otp,
        }


def _member(
    name: str,
    answer: MemberHealth | BridgeError,
    running: bool,
    pid: int | None,
    members: tuple[str, ...],
    furthest: int,
) -> MemberView:
    if isinstance(answer, MemberHealth):
        role = answer.role if not members or name in members else "not a member"
        lag = max(0, furthest - answer.last_applied)
        return MemberView(name=name, running=running, pid=pid, role=role, term=answer.term, lag=lag)
    role = "silent" if running else "stopped"
    return MemberView(name=name, running=running, pid=pid, role=role, term=0, lag=0)
