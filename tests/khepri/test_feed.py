"""The change feed against real members, across their death."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.cluster.local import LocalCluster
from bridge.errors import ConfigurationError, DeadlineError
from bridge.etf import Atom, Reference
from bridge.khepri import (
    AllOf,
    AnyOf,
    Change,
    Cursor,
    Deleted,
    InvalidRequestError,
    Khepri,
    NameMatches,
    NativePath,
    Not,
    Pattern,
    PayloadVersion,
    Put,
    ReservedPathError,
    Snapshot,
    Updated,
    native_path,
    parse_path,
    path_text,
)
from bridge.node import Gateway, HiddenNode
from tests.support.cluster import hidden_node
from tests.support.scripted_caller import ScriptedCaller, ok, refusal

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

SECONDS = 30.0


async def take(changes: AsyncIterator[Change], count: int) -> list[Change]:
    async with asyncio.timeout(SECONDS):
        return [await anext(changes) for _ in range(count)]


def names(changes: list[Change]) -> list[object]:
    """Changes without their paths' beginnings."""
    return [
        (change.path[-1], change.data) if isinstance(change, Updated) else change.path[-1]
        for change in changes
        if not isinstance(change, Snapshot)
    ]


class Replica:
    """The tree below the prefixes as a feed tells it."""

    def __init__(self) -> None:
        self.nodes: dict[NativePath, object] = {}
        self.members: list[str] = []
        self.gaps = 0
        self._changed = asyncio.Event()

    async def follow(self, changes: AsyncIterator[Change]) -> None:
        async for change in changes:
            match change:
                case Snapshot(nodes=nodes, member=member, gap=gap):
                    self.gaps += gap
                    self.nodes = {path: data for path, data in nodes.items() if data is not None}
                    self.members.append(member)
                case Updated(path=path, data=data):
                    self.nodes[path] = data
                case Deleted(path=path):
                    self.nodes.pop(path, None)
            self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


async def test_a_snapshot_comes_first_and_then_every_change_in_order(store: Khepri, root: str) -> None:
    await store.put_once(f"{root}/a", 1)
    async with store.watch(root) as feed:
        changes = aiter(feed)
        (first,) = await take(changes, 1)
        assert isinstance(first, Snapshot)
        assert first.member == store.caller.current
        assert {path_text(path): data for path, data in first.nodes.items() if data} == {f"{root}/a": 1}
        for number in range(20):
            await store.put_once(f"{root}/b", number)
        assert names(await take(changes, 20)) == [(b"b", number) for number in range(20)]


async def test_two_prefixes_are_told_and_nothing_beside_them(store: Khepri, root: str) -> None:
    async with store.watch(f"{root}/left", f"{root}/right") as feed:
        changes = aiter(feed)
        await take(changes, 1)
        await store.transaction(
            [Put(f"{root}/leftover", 0), Put(f"{root}/left", 1), Put(f"{root}/right/x", 2)]
        )
        await store.put_once(f"{root}/left/y", 3)
        told = await take(changes, 3)
        assert sorted(names(told[:2]), key=str) == [(b"left", 1), (b"x", 2)]
        assert names(told[2:]) == [(b"y", 3)]


PATTERNS: list[Pattern] = [
    "",
    "/*",
    "/**",
    "/*/x",
    "/**/x",
    "/a*",
    [AnyOf(Atom("a"), b"b"), b"x"],
    [Not(b"b")],
    [AllOf(NameMatches("^a"), Not(Atom("a")))],
]
TREE = ["/a", "/:a", "/a/x", "/:a/x", "/ab", "/b", "/b/x", "/b/c/x", "/b/c/y"]


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
async def test_what_a_snapshot_holds_is_what_changes_are_told_of(
    store: Khepri, root: str, pattern: Pattern
) -> None:
    """Khepri decides about the first, and the feed itself about the second."""
    await store.transaction([Put(f"{root}{name}", 1) for name in TREE])
    watched = root + pattern if isinstance(pattern, str) else [*parse_path(root), *pattern]
    async with store.watch(watched) as feed:
        changes = aiter(feed)
        (first,) = await take(changes, 1)
        assert isinstance(first, Snapshot)
        expected = {path for path, data in first.nodes.items() if data is not None}
        await store.transaction([Put(f"{root}{name}", 2) for name in TREE])
        told = await take(changes, len(expected))
        assert {change.path for change in told if isinstance(change, Updated)} == expected
        await store.transaction([Put(f"{root}{name}", 3) for name in TREE])
        told = await take(changes, len(expected))
        assert {change.path for change in told if isinstance(change, Updated)} == expected


async def test_a_pattern_with_conditions_on_more_than_names_is_refused(store: Khepri, root: str) -> None:
    async with store.watch([*parse_path(root), PayloadVersion("ge", 2)]) as feed:
        with pytest.raises(InvalidRequestError, match="conditions on names"):
            await take(aiter(feed), 1)


async def test_a_watch_goes_on_from_a_cursor_without_a_snapshot(store: Khepri, root: str) -> None:
    async with store.watch(root) as feed:
        assert feed.cursor is None
        changes = aiter(feed)
        await take(changes, 1)
        for number in range(3):
            await store.put_once(f"{root}/a", number)
        await take(changes, 2)
        # The second change was handed out, and nobody has asked for the next one: it may not be done.
        kept = str(feed.cursor)
    await store.put_once(f"{root}/a", 3)
    async with store.watch(root, since=kept) as feed:
        assert names(await take(aiter(feed), 3)) == [(b"a", 1), (b"a", 2), (b"a", 3)]


async def test_a_cursor_that_nobody_can_go_on_from_is_told_as_a_gap(store: Khepri, root: str) -> None:
    await store.put_once(f"{root}/a", 1)
    async with store.watch(root, since=Cursor(bytes(8), 5)) as feed:
        (first,) = await take(aiter(feed), 1)
    assert isinstance(first, Snapshot)
    assert first.gap


async def test_a_snapshot_that_takes_long_gets_the_time_for_it() -> None:
    """One of 300,000 nodes takes longer than the first try waits."""
    here = Reference(Atom("member"), 1, (1, 2, 3))
    answer = answer_with([])
    caller = ScriptedCaller(*[DeadlineError("late")] * 2, refusal("timeout"), refusal("no_leader"), answer)
    store = Khepri(caller)
    async with store.watch("/:a") as feed:
        changes = aiter(feed)
        assert isinstance(await anext(changes), Snapshot)
        assert [asked.timeout for asked in caller.asked] == [2.0, 4.0, 8.0, 16.0, 16.0]
        # What an earlier try left behind at the member tells changes too, and is ended.
        earlier = Reference(Atom("member"), 1, (1, 2, 2))
        for reference in (earlier, here):
            caller.inbox.put((Atom("kb_feed"), reference, [(8, Atom("deleted"), [Atom("a")])]))
        assert await anext(changes) == Deleted((Atom("a"),))
    assert [(function, args[0]) for _, _, function, args in caller.cast_to] == [
        ("unsubscribe", earlier),
        ("acknowledge", here),
        ("unsubscribe", here),
    ]


def answer_with(nodes: list[Any]) -> Any:
    return ok(
        {
            Atom("subscription"): Reference(Atom("member"), 1, (1, 2, 3)),
            Atom("cursor"): (bytes(8), 7),
            Atom("mode"): Atom("snapshot"),
            Atom("nodes"): nodes,
        }
    )


async def test_others_have_their_turns_while_a_large_snapshot_is_taken() -> None:
    """And what comes meanwhile is told after it."""
    told = [([Atom("a"), b"%d" % number], number) for number in range(1000)]
    caller = ScriptedCaller(answer_with(list(told)))
    async with Khepri(caller).watch("/:a") as feed:
        changes = aiter(feed)
        first = asyncio.ensure_future(anext(changes))
        turns = 0
        while not first.done():
            if turns == 2:
                deleted = (8, Atom("deleted"), [Atom("a"), b"0"])
                caller.inbox.put((Atom("kb_feed"), Reference(Atom("member"), 1, (1, 2, 3)), [deleted]))
            turns += 1
            await asyncio.sleep(0)
        snapshot = first.result()
        assert turns > 3
        assert isinstance(snapshot, Snapshot)
        assert list(snapshot.nodes.items()) == [((Atom("a"), b"%d" % n), n) for n in range(1000)]
        assert await anext(changes) == Deleted((Atom("a"), b"0"))


async def test_a_member_that_goes_while_its_snapshot_is_taken_is_followed_by_the_next() -> None:
    nodes = [([Atom("a"), b"%d" % number], number) for number in range(1000)]
    caller = ScriptedCaller(answer_with(list(nodes)), answer_with([]))
    async with Khepri(caller).watch("/:a") as feed:
        changes = aiter(feed)
        first = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not first.done()
        feed._member_changed("other")
        snapshots = [await first, await anext(changes)]
    assert [len(snapshot.nodes) for snapshot in snapshots if isinstance(snapshot, Snapshot)] == [1000, 0]
    assert len(caller.asked) == 2


async def test_a_watch_of_nothing_is_refused() -> None:
    store = Khepri(ScriptedCaller())
    with pytest.raises(ConfigurationError, match="nothing to watch"):
        async with store.watch():
            pass
    with pytest.raises(ConfigurationError, match="since is"):
        async with store.watch("/", since=5):  # type: ignore[arg-type]
            pass


@given(run=st.binary(min_size=8, max_size=8), sequence=st.integers(0, 10**20 - 1))
def test_a_cursor_and_its_text_are_one(run: bytes, sequence: int) -> None:
    cursor = Cursor(run, sequence)
    assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize("text", ["", "5", "00-1", "0011223344556677-", "0011223344556677-x"])
def test_a_text_that_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no cursor"):
        Cursor.parse(text)


async def test_a_deletion_is_told_for_every_node_that_goes(store: Khepri, root: str) -> None:
    await store.transaction([Put(f"{root}/a", 1), Put(f"{root}/a/b", 2)])
    async with store.watch(root) as feed:
        changes = aiter(feed)
        await take(changes, 1)
        await store.delete(f"{root}/a")
        assert set(names(await take(changes, 2))) == {b"a", b"b"}


async def test_a_window_of_one_still_tells_everything(store: Khepri, root: str) -> None:
    async with store.watch(root, window=1) as feed:
        changes = aiter(feed)
        await take(changes, 1)
        await asyncio.gather(*(store.put_once(f"{root}/n{number}", number) for number in range(50)))
        told = await take(changes, 50)
        assert sorted(names(told), key=str) == sorted([(b"n%d" % n, n) for n in range(50)], key=str)


async def test_a_reader_that_falls_too_far_behind_gets_a_new_snapshot(store: Khepri, root: str) -> None:
    """A member keeps 20,000 changes."""
    async with store.watch(root, window=1) as feed:
        changes = aiter(feed)
        await take(changes, 1)
        for round_ in range(21):
            await store.transaction([Put(f"{root}/n{number}", round_) for number in range(1000)], timeout=20)
        replica = Replica()
        following = asyncio.create_task(replica.follow(changes))
        await replica.until(lambda: len(replica.members) == 1)
        assert replica.gaps == 1
        assert {data for path, data in replica.nodes.items()} == {20}
        assert len(replica.nodes) == 1000
        await store.put_once(f"{root}/n0", 21)
        await replica.until(lambda: 21 in replica.nodes.values())
        following.cancel()


async def test_a_closed_feed_tells_nothing_more(store: Khepri, root: str) -> None:
    async with store.watch(root) as feed:
        changes = aiter(feed)
        await take(changes, 1)
        waiting = asyncio.create_task(take(changes, 1))
        await asyncio.sleep(0)
    await store.put_once(f"{root}/late", 1)
    with pytest.raises(StopAsyncIteration):
        await waiting_result(waiting)
    await feed.close()


async def waiting_result(task: asyncio.Task[list[Change]]) -> list[Change]:
    """A task cannot hold StopAsyncIteration: asyncio wraps it."""
    try:
        return await task
    except RuntimeError as error:
        raise error.__cause__ or error from None


async def test_the_bridges_own_tree_may_be_watched_but_not_written(store: Khepri) -> None:
    async with store.watch([Atom("bridge"), Atom("identity")]) as feed:
        (first,) = await take(aiter(feed), 1)
    assert isinstance(first, Snapshot)
    assert native_path([Atom("bridge"), Atom("identity")]) in first.nodes
    with pytest.raises(ReservedPathError):
        await store.put("/:bridge/:identity", 1)


async def leader_of(node: HiddenNode, cluster: LocalCluster, member: str) -> str:
    async with Khepri.connect(node, member, store=cluster.store) as store:
        return str((await store.health()).leader)


@pytest.mark.parametrize("victim", ["watched", "leader"])
async def test_a_feed_converges_after_the_death_of_a_member(own_cluster: LocalCluster, victim: str) -> None:
    """Of the member it is attached to, which is the leader or not; deletions show as absence."""
    async with hidden_node(own_cluster) as node:
        leader = await leader_of(node, own_cluster, own_cluster.members[0])
        others = [member for member in own_cluster.members if member != leader]
        # Watched at the leader in one case, at a follower in the other; and the leader dies under a follower.
        order = [others[0], others[1], leader]
        async with (
            Gateway(node, order) as watching,
            Gateway(node, [others[1], leader, others[0]]) as writing,
        ):
            assert await watching.connect(timeout=5) == others[0]
            reader = Khepri.connect(node, watching, store=own_cluster.store)
            writer = Khepri.connect(node, writing, store=own_cluster.store)
            await writer.transaction([Put("/:w/gone", 1), Put("/:w/kept", 1)])
            replica = Replica()
            async with reader.watch("/:w") as feed:
                following = asyncio.create_task(replica.follow(aiter(feed)))
                await replica.until(lambda: len(replica.nodes) == 2)
                own_cluster.kill_node(others[0] if victim == "watched" else leader)
                await writer.transaction([Put("/:w/new", 1)], timeout=20)
                await writer.delete("/:w/gone", timeout=20)
                await writer.transaction([Put("/:w/kept", 2)], timeout=20)
                expected = {
                    (Atom("w"), b"kept"): 2,
                    (Atom("w"), b"new"): 1,
                }
                await replica.until(lambda: replica.nodes == expected)
            async with asyncio.timeout(SECONDS):
                await following
            assert replica.gaps == (1 if victim == "watched" else 0)
            assert replica.members == ([others[0], others[1]] if victim == "watched" else [others[0]])
