"""Members describe themselves."""

from __future__ import annotations

import pytest

from bridge.cluster.local import LocalCluster
from bridge.errors import BridgeError, ProtocolError
from bridge.etf import Atom
from bridge.khepri import Khepri, MemberHealth, members_health
from bridge.node import HiddenNode
from tests.support.cluster import erlang


@erlang
async def test_every_member_tells_its_role_and_all_tell_one_leader_and_one_term(
    cluster: LocalCluster, node: HiddenNode
) -> None:
    answers = await members_health(node, cluster.members, cluster.store)
    told = [answer for answer in answers.values() if isinstance(answer, MemberHealth)]
    assert [health.node for health in told] == list(cluster.members)
    assert sorted(health.role for health in told) == ["follower", "follower", "leader"]
    assert {health.leader for health in told} == {next(h.node for h in told if h.role == "leader")}
    assert len({health.term for health in told}) == 1
    assert all(health.running and health.term >= 1 and health.last_applied >= 1 for health in told)


@erlang
async def test_a_member_that_is_not_there_does_not_keep_the_others_from_answering(
    cluster: LocalCluster, node: HiddenNode
) -> None:
    answers = await members_health(node, [cluster.members[0], "nobody@127.0.0.1"], cluster.store)
    assert isinstance(answers[cluster.members[0]], MemberHealth)
    assert isinstance(answers["nobody@127.0.0.1"], BridgeError)


@erlang
async def test_a_client_tells_the_health_of_the_member_it_is_connected_to(store: Khepri) -> None:
    health = await store.health()
    assert health.node == store.caller.current
    assert (health.type, health.instance, health.store) == ("homeserver", "local", "homeserver")


@pytest.mark.parametrize("term", [b"", {}, {Atom("node"): Atom("hs1@h")}, 7])
def test_what_is_no_health_is_refused(term: object) -> None:
    with pytest.raises(ProtocolError):
        MemberHealth.from_term(term)
