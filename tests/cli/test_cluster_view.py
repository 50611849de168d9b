"""Members' accounts, put together."""

from __future__ import annotations

from pathlib import Path

from bridge.cli.cluster_view import ClusterView
from bridge.errors import BridgeError, DeadlineError
from bridge.khepri import MemberHealth
from tests.support.health import member_health

_NAMES = ("hs1@h", "hs2@h", "hs3@h")


def _view(*answers: MemberHealth | BridgeError, dead: str = "") -> ClusterView:
    return ClusterView.of(
        dict(zip(_NAMES, answers, strict=True)),
        instance="local",
        alive={name: name != dead for name in _NAMES},
        pids=dict(zip(_NAMES, (11, 12, 13), strict=True)),
    )


def test_a_cluster_whose_members_agree_is_well() -> None:
    view = _view(
        member_health(node="hs1@h"),
        member_health(node="hs2@h", role="leader"),
        member_health(node="hs3@h", last_applied=97),
    )
    assert (view.ok, view.leader) == (True, "hs2@h")
    assert view.rows() == (
        ("hs1@h", "running", "follower", "4", "0", "11"),
        ("hs2@h", "running", "leader", "4", "0", "12"),
        ("hs3@h", "running", "follower", "4", "3", "13"),
    )
    assert view.line() == "leader hs2@h; hs1 follower in term 4, hs2 leader in term 4, hs3 follower in term 4"


def test_the_leader_is_that_of_the_newest_term_and_not_of_a_member_that_was_cut_off() -> None:
    view = _view(
        member_health(node="hs1@h", leader="hs3@h", term=5),
        member_health(node="hs2@h", role="leader", term=4),
        member_health(node="hs3@h", role="leader", leader="hs3@h", term=5),
    )
    assert (view.ok, view.leader) == (False, "hs3@h")


def test_a_member_that_says_nothing_is_silent_or_stopped() -> None:
    late = DeadlineError("hs3@h did not answer in 1 s")
    healthy = member_health(), member_health(node="hs2@h", role="leader")
    assert _view(*healthy, late).rows()[2] == ("hs3@h", "running", "silent", "-", "-", "13")
    view = _view(*healthy, late, dead="hs3@h")
    assert (view.ok, view.rows()[2][1:3]) == (False, ("stopped", "stopped"))


def test_without_any_answer_there_is_no_leader() -> None:
    late = DeadlineError("late")
    view = _view(late, late, late)
    assert (view.ok, view.leader, view.khepri, view.members) == (False, None, None, ())
    assert view.to_dict()["leader"] is None


def test_a_node_that_left_is_no_member() -> None:
    two = ("hs1@h", "hs2@h")
    view = _view(
        member_health(members=two), member_health(node="hs2@h", members=two), member_health(node="hs3@h")
    )
    assert view.rows()[2][2] == "not a member"


def test_what_is_wrong_comes_with_what_to_do(tmp_path: Path) -> None:
    late = DeadlineError("late")
    healthy = member_health(), member_health(node="hs2@h", role="leader")
    assert _view(*healthy, member_health(node="hs3@h")).advice("up", logs=tmp_path) == []
    (dead,) = _view(*healthy, late, dead="hs3@h").advice("up --name x", logs=tmp_path)
    assert dead == f"hs3@h does not run: `up --name x --member hs3` starts it again; log {tmp_path}/hs3.log"
    (silent,) = _view(*healthy, late).advice("up", logs=tmp_path)
    assert silent.startswith("hs3@h runs and does not answer")
    assert silent.endswith("process 13")
    alone = _view(member_health(), late, late, dead="hs3@h").advice("up", logs=tmp_path)
    assert alone[-1] == "1 of 3 members answer, no majority: nothing can be changed"
    nobody = ClusterView.of(
        dict.fromkeys(_NAMES, late),
        instance="local",
        alive=dict.fromkeys(_NAMES, False),
        pids=dict.fromkeys(_NAMES),
    )
    assert nobody.advice("up --name x", logs=tmp_path) == ["no member runs: `up --name x` starts all of them"]
