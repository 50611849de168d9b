"""The ranks of the rooms: imports go only from a higher rank to a lower one."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "bridge"


def ranks(table: str) -> dict[str, int]:
    """Rooms and their ranks, as rows of the document's table: ``| 1 | `etf/` · `jose/` | …``."""
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", table, re.MULTILINE)
    return {name: int(rank) for rank, cell in rows for name in re.findall(r"`(\w+)(?:/|\.py)`", cell)}


RANKS = ranks((ROOT.parent / "docs" / "design.md").read_text(encoding="utf-8"))

# Rooms that take bytes, time and randomness as arguments, and the files of others that do.
PURE = ("errors", "authority", "etf", "jose", "dist", "replication")
PURE_FILES = (
    "khepri/caller.py",
    "khepri/conditions.py",
    "khepri/config.py",
    "khepri/memory/children.py",
    "khepri/memory/evaluate.py",
    "khepri/memory/feed.py",
    "khepri/memory/keep_while.py",
    "khepri/memory/match_spec.py",
    "khepri/memory/nodes.py",
    "khepri/memory/operations.py",
    "khepri/memory/order.py",
    "khepri/memory/outcomes.py",
    "khepri/memory/requests.py",
    "khepri/memory/store.py",
    "khepri/memory/tree.py",
    "khepri/memory/walk.py",
    "khepri/memory/watches.py",
    "khepri/operations.py",
    "khepri/options.py",
    "khepri/paths.py",
    "khepri/pipeline.py",
    "khepri/procedures.py",
    "khepri/projections.py",
    "khepri/props.py",
    "khepri/reply.py",
    "port/connection.py",
    "registry/fields.py",
    "registry/inbox.py",
    "registry/lessor.py",
    "registry/records.py",
    "sim/bodies.py",
    "sim/dataplane/plane.py",
    "sim/dataplane/receiving.py",
    "sim/following.py",
    "sim/zones.py",
    "udp/bucket.py",
    "udp/conditions.py",
    "udp/cookie.py",
    "udp/draft.py",
    "udp/endpoint.py",
    "udp/evidence/proof.py",
    "udp/evidence/record.py",
    "udp/evidence/signer.py",
    "udp/evidence/tree.py",
    "udp/evidence/verifier.py",
    "udp/fanout.py",
    "udp/frames.py",
    "udp/handshake.py",
    "udp/handshakes.py",
    "udp/inbound.py",
    "udp/keys.py",
    "udp/latest.py",
    "udp/loss.py",
    "udp/messages.py",
    "udp/outbound.py",
    "udp/probe.py",
    "udp/rate.py",
    "udp/reliable.py",
    "udp/replay.py",
    "udp/runs.py",
    "udp/session.py",
    "udp/unordered.py",
    "udp/wire.py",
)
IMPURE = {"asyncio", "socket", "time", "random", "select", "subprocess", "uvloop"}

FILES = sorted(ROOT.rglob("*.py"))


def room(file: Path) -> str:
    first = file.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str() as module, level=0):
                yield module
            case ast.ImportFrom(level=level):
                assert level == 0, f"{file}: imports are absolute"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_imports_only_from_lower_ranks(file: Path) -> None:
    here = room(file)
    if here == "__init__":
        assert not list(imports(file))
        return
    for module in imports(file):
        parts = module.split(".")
        if parts[0] != "bridge" or len(parts) == 1:
            continue
        there = parts[1]
        assert there == here or RANKS[there] < RANKS[here], f"{here} ({RANKS[here]}) imports {module}"


def test_every_room_has_a_rank() -> None:
    assert {room(file) for file in FILES} - {"__init__"} == set(RANKS)


@pytest.mark.parametrize(
    "file",
    [f for f in FILES if room(f) in PURE or str(f.relative_to(ROOT)) in PURE_FILES],
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_a_pure_file_touches_no_socket_clock_or_event_loop(file: Path) -> None:
    assert not {module.split(".")[0] for module in imports(file)} & IMPURE


def test_the_list_of_pure_files_is_true() -> None:
    assert [name for name in PURE_FILES if not (ROOT / name).is_file()] == []
