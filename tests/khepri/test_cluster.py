from __future__ import annotations

from typing import Any

import pytest

from bridge.cluster.local import LocalCluster
from bridge.errors import ProtocolError
from bridge.etf import Atom
from bridge.khepri import Khepri, NodeExists, StoreUnavailableError, Versions, native_path
from bridge.node import HiddenNode
from tests.support.cluster import erlang
from tests.support.scripted_caller import ScriptedCaller, ok

DESCRIPTION = {
    Atom("members"): [Atom("hs1@h"), Atom("hs2@h")],
    Atom("leader"): Atom("hs2@h"),
    Atom("running"): True,
    Atom("machine_version"): 3,
    Atom("effective_machine_version"): 2,
    Atom("khepri"): b"0.18.0",
    Atom("otp"): b"27",
}


def described(**more: Any) -> Khepri:
    return Khepri(ScriptedCaller(ok(DESCRIPTION | {Atom(name): value for name, value in more.items()})))


async def test_the_cluster_is_described_by_names_and_numbers() -> None:
    assert await described().cluster.members() == ["hs1@h", "hs2@h"]
    assert await described().cluster.leader() == "hs2@h"
    assert await described(leader=Atom("undefined")).cluster.leader() is None
    assert await described().cluster.is_running() is True
    assert await described(running=False).cluster.is_running() is False
    assert await described().cluster.versions() == Versions(
        machine=3, effective_machine=2, khepri="0.18.0", otp="27"
    )


async def test_a_leader_is_awaited_and_stores_are_listed() -> None:
    caller = ScriptedCaller(ok({Atom("leader"): Atom("hs1@h")}), ok([Atom("a"), Atom("b")]))
    cluster = Khepri(caller).cluster
    assert await cluster.wait_for_leader(timeout=3) == "hs1@h"
    assert await cluster.stores() == ["a", "b"]
    assert [(asked.function, asked.args) for asked in caller.asked] == [
        ("wait_for_leader", [Atom("homeserver"), {Atom("timeout"): 3000}]),
        ("stores", []),
    ]


async def test_what_khepri_prints_is_told_by_name() -> None:
    store = Khepri(ScriptedCaller(ok({Atom("nodes"): 7, Atom("keep_while"): {}})))
    assert await store.cluster.info() == {"nodes": 7, "keep_while": {}}


@pytest.mark.parametrize("answer", [7, {Atom("members"): []}])
async def test_another_description_breaks_the_protocol(answer: Any) -> None:
    with pytest.raises(ProtocolError):
        await Khepri(ScriptedCaller(ok(answer))).cluster.leader()


@erlang
async def test_a_real_cluster_describes_itself(store: Khepri, cluster: LocalCluster) -> None:
    assert sorted(await store.cluster.members()) == sorted(cluster.members)
    assert await store.cluster.wait_for_leader() in cluster.members
    assert await store.cluster.leader() in cluster.members
    assert await store.cluster.is_running() is True
    assert cluster.store in await store.cluster.stores()
    versions = await store.cluster.versions()
    assert 1 <= versions.effective_machine <= versions.machine
    assert versions.khepri.startswith("0.")
    assert int(versions.otp) >= 25


@erlang
async def test_a_real_store_tells_what_it_holds(store: Khepri, root: str) -> None:
    await store.put(f"{root}/b", 1)
    await store.put(f"{root}/a", 1, keep_while={f"{root}/b": NodeExists()})
    await store.fence()
    info = await store.cluster.info()
    assert info["nodes"] > 0
    assert [*native_path(f"{root}/a")] in list(info["keep_while"])
    assert info["keep_while_count"] >= 1


@erlang
async def test_a_store_that_is_not_there_says_so(node: HiddenNode, cluster: LocalCluster) -> None:
    async with Khepri.connect(node, cluster.members, store="elsewhere") as nowhere:
        with pytest.raises(StoreUnavailableError):
            await nowhere.cluster.members()
        with pytest.raises(StoreUnavailableError):
            await nowhere.get("/:a", timeout=0.2)
        assert await nowhere.cluster.is_running() is False
