"""An instance that lost its cluster, and comes back from a backup."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.khepri import InvalidRequestError, Khepri, NotEmptyError
from bridge.registry import Ownership, RestoringError, Rule
from tests.support.authority import STEP, Server
from tests.support.cluster import fresh, hidden_node, local_cluster
from tests.support.target import target

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


@asynccontextmanager
async def client(cluster: LocalCluster) -> AsyncIterator[Khepri]:
    async with (
        hidden_node(cluster) as node,
        Khepri.connect(node, cluster.members, store=cluster.store) as store,
    ):
        yield store


async def play(store: Khepri) -> tuple[Server, Server, int]:
    """Two servers and a ball that went from one to the other; its epoch."""
    red, blue = Server(store, fresh("red")), Server(store, fresh("blue"))
    await red.open()
    await blue.open()
    record = await red.spawn("ball", rule=Rule.ASK)
    record = await red.push(record, blue)
    return red, blue, record.epoch


async def test_what_was_known_is_known_again_and_every_entity_is_dormant_at_higher_epochs(
    tmp_path: Path,
) -> None:
    file = tmp_path / "instance.backup"
    with local_cluster(nodes=1) as lost:
        async with client(lost) as store:
            await store.put("/:stock/wood", {b"count": 3})
            _, blue, epoch = await play(store)
            before = await Ownership(store).entity("ball")
            await store.backup_to(file)
            # After the backup: forgotten, but for the epochs that it must not reach.
            later = await blue.home.release(entity="ball", epoch=epoch)
            assert later.session is None
    with local_cluster(nodes=1) as fresh_one:
        async with client(fresh_one) as store:
            await store.restore_from(file)
            assert await store.get("/:stock/wood") == {b"count": 3}
            after = await Ownership(store).entity("ball")
            assert (after.owner, after.master, after.rule) == (before.owner, before.master, Rule.ASK)
            assert (after.session, after.server, after.awaiting) == (None, None, None)
            # A name that had a session is free, for the holder of its key.
            again = Server(store, blue.name, blue.key)
            opened = await again.open()
            assert not getattr(opened, "held", opened)
            record = await again.home.pull(entity="ball", epoch=after.epoch, owner=after.owner, step=STEP)
            assert record.epoch >> 48 == (epoch >> 48) + 1


async def test_a_cluster_that_knows_something_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "instance.backup"
    with local_cluster(nodes=1) as cluster:
        async with client(cluster) as store:
            await store.put("/:stock/wood", 1)
            await store.backup_to(file)
            await store.put("/:stock/wood", 2)
            with pytest.raises(NotEmptyError):
                await store.restore_from(file)
            assert await store.get("/:stock/wood") == 2


async def test_the_backup_of_another_instance_and_what_is_none_are_refused(tmp_path: Path) -> None:
    backup, export = tmp_path / "instance.backup", tmp_path / "some.khepri"
    with local_cluster(nodes=1) as cluster:
        async with client(cluster) as store:
            await store.put("/:stock/wood", 1)
            await store.backup_to(backup)
            await store.export_to(export)
    config = LocalClusterConfig(nodes=1, instance="elsewhere", release=target().release)
    with LocalCluster(config) as other:
        async with client(other) as store:
            with pytest.raises(InvalidRequestError, match="another instance"):
                await store.restore_from(backup)
            with pytest.raises(InvalidRequestError, match="no backup"):
                await store.restore_from(export)
            assert await store.is_empty()


async def test_a_restore_that_was_interrupted_lets_nobody_in_until_it_is_repeated(tmp_path: Path) -> None:
    file = tmp_path / "instance.backup"
    with local_cluster(nodes=1) as cluster:
        async with client(cluster) as store:
            await play(store)
            await store.backup_to(file)
    with local_cluster(nodes=1) as cluster:
        async with client(cluster) as store:
            mark = "khepri:put(homeserver, [bridge, restoring], #{digest => crypto:hash(sha256, B)})"
            await evaluate(cluster, f'{{ok, B}} = file:read_file("{file}"), {mark}')
            server = Server(store, fresh("green"))
            with pytest.raises(RestoringError):
                await server.open()
            await store.restore_from(file)
            await server.open()


async def evaluate(cluster: LocalCluster, script: str) -> object:
    """The value of Erlang expressions on the first member."""
    async with hidden_node(cluster) as node:
        tokens = await node.call(cluster.members[0], "erl_scan", "string", [list((script + ".").encode())])
        parsed = await node.call(cluster.members[0], "erl_parse", "parse_exprs", [tokens[1]])
        return await node.call(cluster.members[0], "erl_eval", "exprs", [parsed[1], []])
