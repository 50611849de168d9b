"""Mailboxes, monitors and links as another node sees them, with transports that record."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.dist import (
    AliasSend,
    DemonitorP,
    Exit,
    Exit2,
    GroupLeader,
    Link,
    MonitorP,
    MonitorPExit,
    RegSend,
    Send,
    UnlinkId,
    UnlinkIdAck,
)
from bridge.errors import ClosedError, ConfigurationError, RemoteExitedError
from bridge.etf import Atom, Pid, Reference
from bridge.node.mailbox import Watch
from bridge.node.processes import Processes
from tests.support.peer import RecordingPeer

_ME, _PEER = Atom("me@h"), Atom("peer@h")
_THEIRS = Pid(_PEER, 9, 0, 3)
_REF = Reference(_PEER, 3, (1, 2, 3))


def _processes(transport: RecordingPeer | None = None) -> Processes:
    return Processes(_ME, 7, 100, {"peer@h": transport}.get)


def _connected() -> tuple[Processes, RecordingPeer]:
    transport = RecordingPeer()
    return _processes(transport), transport


async def test_pids_and_references_are_never_given_twice() -> None:
    processes = _processes()
    pids = [processes.mailbox(None).pid for _ in range(100)]
    references = [processes.reference() for _ in range(100)]
    assert len({*pids, processes.caller}) == 101
    assert len(set(references)) == 100
    assert all(pid.node is _ME and pid.creation == 7 for pid in pids)
    assert all(reference.ids[0] < 1 << 18 for reference in references)


async def test_messages_reach_pids_and_names_and_others_are_counted() -> None:
    processes, transport = _connected()
    box = processes.mailbox("inbox")
    processes.receive(transport, Send(to=box.pid), 1)
    processes.receive(transport, RegSend(source=_THEIRS, to=Atom("inbox")), 2)
    assert [await box.receive(), await box.receive()] == [1, 2]
    earlier = Pid(box.pid.node, box.pid.id, box.pid.serial, box.pid.creation + 1)
    processes.receive(transport, Send(to=earlier), 3)
    processes.receive(transport, RegSend(source=_THEIRS, to=Atom("nobody")), 4)
    processes.receive(transport, AliasSend(source=_THEIRS, alias=_REF), 5)
    processes.receive(transport, GroupLeader(source=_THEIRS, to=box.pid), None)
    assert processes.undelivered == 4
    assert transport.sent == []


async def test_a_name_is_free_again_when_its_mailbox_closes() -> None:
    processes = _processes()
    processes.service("net_kernel", lambda _: None)
    box = processes.mailbox("inbox")
    for name in ("inbox", "net_kernel"):
        with pytest.raises(ConfigurationError, match="taken"):
            processes.mailbox(name)
    await box.close()
    processes.mailbox("inbox")


@pytest.mark.parametrize("by_name", [True, False])
async def test_a_monitor_of_a_mailbox_is_told_its_reason(by_name: bool) -> None:
    processes, transport = _connected()
    box = processes.mailbox("inbox")
    target = Atom("inbox") if by_name else box.pid
    processes.receive(transport, MonitorP(source=_THEIRS, to=target, reference=_REF), None)
    await box.close(Atom("stone"))
    assert transport.sent == [MonitorPExit(source=target, to=_THEIRS, reference=_REF, reason=Atom("stone"))]


async def test_a_monitor_of_nobody_is_answered_noproc() -> None:
    processes, transport = _connected()
    for target in (Atom("nobody"), Pid(_ME, 99, 0, 7)):
        processes.receive(transport, MonitorP(source=_THEIRS, to=target, reference=_REF), None)
        assert transport.sent.pop() == MonitorPExit(
            source=target, to=_THEIRS, reference=_REF, reason=Atom("noproc")
        )


async def test_a_monitor_that_was_undone_is_told_nothing() -> None:
    processes, transport = _connected()
    box = processes.mailbox(None)
    processes.receive(transport, MonitorP(source=_THEIRS, to=box.pid, reference=_REF), None)
    processes.receive(transport, DemonitorP(source=_THEIRS, to=box.pid, reference=_REF), None)
    processes.receive(transport, DemonitorP(source=_THEIRS, to=Atom("nobody"), reference=_REF), None)
    await box.close()
    assert transport.sent == []


async def test_a_link_to_a_mailbox_is_told_its_reason_and_one_to_nobody_noproc() -> None:
    processes, transport = _connected()
    box = processes.mailbox(None)
    processes.receive(transport, Link(source=_THEIRS, to=box.pid), None)
    await box.close(Atom("stone"))
    assert transport.sent.pop() == Exit(source=box.pid, to=_THEIRS, reason=Atom("stone"))
    processes.receive(transport, Link(source=_THEIRS, to=box.pid), None)
    assert transport.sent.pop() == Exit(source=box.pid, to=_THEIRS, reason=Atom("noproc"))


async def test_an_unlink_is_acknowledged_and_undoes_the_link() -> None:
    processes, transport = _connected()
    box = processes.mailbox(None)
    processes.receive(transport, Link(source=_THEIRS, to=box.pid), None)
    processes.receive(transport, UnlinkId(id=5, source=_THEIRS, to=box.pid), None)
    assert transport.sent == [UnlinkIdAck(id=5, source=box.pid, to=_THEIRS)]
    await box.close()
    assert len(transport.sent) == 1


async def test_exits_of_linked_and_other_processes_arrive_as_messages() -> None:
    processes, transport = _connected()
    box = processes.mailbox(None)
    processes.receive(transport, Link(source=_THEIRS, to=box.pid), None)
    processes.receive(transport, Exit(source=_THEIRS, to=box.pid, reason=Atom("stone")), None)
    processes.receive(transport, Exit2(source=_THEIRS, to=box.pid, reason=Atom("normal")), None)
    assert await box.receive() == (Atom("EXIT"), _THEIRS, Atom("stone"))
    assert await box.receive() == (Atom("EXIT"), _THEIRS, Atom("normal"))
    # The link went with the exit, so closing tells nobody.
    await box.close()
    assert transport.sent == []


async def test_our_own_watches_end_by_what_the_peer_says() -> None:
    processes, transport = _connected()
    box = processes.mailbox(None)
    reference = processes.reference()
    monitor = Watch(_THEIRS, "peer@h", box.pid, reference, box)
    link = Watch(_THEIRS, "peer@h", box.pid, None, box)
    processes.watch(monitor)
    processes.link(link)
    assert processes.linked(box.pid, _THEIRS) is link
    exit_ = MonitorPExit(source=_THEIRS, to=box.pid, reference=reference, reason=Atom("stone"))
    processes.receive(transport, exit_, None)
    processes.receive(transport, exit_, None)
    processes.receive(transport, Exit(source=_THEIRS, to=box.pid, reason=Atom("stone")), None)
    assert await monitor.wait() is await link.wait() is Atom("stone")
    assert processes.linked(box.pid, _THEIRS) is None
    assert len(box) == 2


async def test_a_mailbox_that_closes_gives_up_its_own_watches() -> None:
    processes, transport = _connected()
    box = processes.mailbox(None)
    reference = processes.reference()
    processes.watch(Watch(_THEIRS, "peer@h", box.pid, reference, box))
    processes.link(Watch(_THEIRS, "peer@h", box.pid, None, box))
    await box.close(Atom("stone"))
    assert transport.sent == [
        Exit(source=box.pid, to=_THEIRS, reason=Atom("stone")),
        DemonitorP(source=box.pid, to=_THEIRS, reference=reference),
    ]


async def test_a_node_that_goes_down_ends_the_watches_of_it_and_forgets_its_own() -> None:
    processes, transport = _connected()
    box = processes.mailbox(None)
    monitor = Watch(_THEIRS, "peer@h", box.pid, processes.reference(), None)
    link = Watch(_THEIRS, "peer@h", processes.caller, None, None)
    elsewhere = Watch(_THEIRS, "other@h", box.pid, processes.reference(), None)
    processes.link(link)
    for watch in (monitor, elsewhere):
        processes.watch(watch)
    processes.receive(transport, MonitorP(source=_THEIRS, to=box.pid, reference=_REF), None)
    processes.receive(transport, Link(source=_THEIRS, to=box.pid), None)
    processes.node_down("peer@h", transport)
    assert await monitor.wait() is await link.wait() is Atom("noconnection")
    assert not elsewhere.ended
    assert await box.receive() == (Atom("EXIT"), _THEIRS, Atom("noconnection"))
    await box.close()
    assert transport.sent == []


async def test_closing_the_node_tells_everybody_shutdown() -> None:
    processes, transport = _connected()
    processes.service("net_kernel", lambda _: None)
    box = processes.mailbox(None)
    processes.receive(transport, MonitorP(source=_THEIRS, to=box.pid, reference=_REF), None)
    other = Reference(_PEER, 3, (2, 2, 3))
    processes.receive(transport, MonitorP(source=_THEIRS, to=Atom("net_kernel"), reference=other), None)
    processes.close()
    assert box.closed
    reasons = [message.reason for message in transport.sent if isinstance(message, MonitorPExit)]
    assert reasons == [Atom("shutdown")] * 2


async def test_telling_a_connection_that_has_ended_is_no_error() -> None:
    processes, transport = _connected()
    box = processes.mailbox(None)
    processes.receive(transport, MonitorP(source=_THEIRS, to=box.pid, reference=_REF), None)
    transport.ended = True
    await box.close()


async def test_kill_ends_a_mailbox_that_traps_exits_and_others_are_ended_by_any_reason_but_normal() -> None:
    processes, transport = _connected()
    trapping, mortal = processes.mailbox(None), processes.mailbox(None, trap_exit=False)
    for box in (trapping, mortal):
        processes.receive(transport, MonitorP(source=_THEIRS, to=box.pid, reference=_REF), None)
    processes.receive(transport, Exit2(source=_THEIRS, to=trapping.pid, reason=Atom("kill")), None)
    processes.receive(transport, Exit2(source=_THEIRS, to=mortal.pid, reason=Atom("normal")), None)
    assert not mortal.closed
    processes.receive(transport, Exit2(source=_THEIRS, to=mortal.pid, reason=Atom("stone")), None)
    assert [message.reason for message in transport.sent] == [Atom("killed"), Atom("stone")]
    with pytest.raises(RemoteExitedError, match="killed"):
        await trapping.receive()


async def test_an_exit_where_no_link_stands_is_dropped() -> None:
    """It crossed our own unlink, which the other side had not seen yet."""
    processes, transport = _connected()
    box = processes.mailbox(None)
    link = Watch(_THEIRS, "peer@h", box.pid, None, box)
    processes.link(link)
    processes.unlink(box.pid, _THEIRS)
    processes.unlink(box.pid, _THEIRS)
    assert transport.sent == [UnlinkId(id=1, source=box.pid, to=_THEIRS)]
    processes.receive(transport, Exit(source=_THEIRS, to=box.pid, reason=Atom("stone")), None)
    processes.receive(transport, UnlinkIdAck(id=1, source=_THEIRS, to=box.pid), None)
    assert len(box) == 0
    with pytest.raises(ClosedError, match="undone"):
        await link.wait()


async def test_a_link_that_the_other_side_made_is_undone_too() -> None:
    processes, transport = _connected()
    box = processes.mailbox(None)
    processes.receive(transport, Link(source=_THEIRS, to=box.pid), None)
    processes.unlink(box.pid, _THEIRS)
    await box.close()
    assert transport.sent == [UnlinkId(id=1, source=box.pid, to=_THEIRS)]


async def test_a_link_that_the_other_side_undoes_ends_our_wait() -> None:
    processes, transport = _connected()
    link = Watch(_THEIRS, "peer@h", processes.caller, None, None)
    processes.link(link)
    processes.receive(transport, UnlinkId(id=5, source=_THEIRS, to=processes.caller), None)
    with pytest.raises(ClosedError, match="other side"):
        await link.wait()


async def test_a_monitor_that_is_given_up_reports_nothing() -> None:
    processes, transport = _connected()
    box = processes.mailbox(None)
    reference = processes.reference()
    watch = Watch(_THEIRS, "peer@h", box.pid, reference, box)
    processes.watch(watch)
    processes.demonitor(watch)
    processes.demonitor(watch)
    assert transport.sent == [DemonitorP(source=box.pid, to=_THEIRS, reference=reference)]
    gone = MonitorPExit(source=_THEIRS, to=box.pid, reference=reference, reason=Atom("stone"))
    processes.receive(transport, gone, None)
    assert len(box) == 0
    with pytest.raises(ClosedError, match="given up"):
        await watch.wait()


async def test_names_are_given_and_taken() -> None:
    processes = _processes()
    processes.service("rex", lambda _: None)
    box, other = processes.mailbox(None), processes.mailbox("other")
    processes.register("inbox", box.pid)
    assert processes.whereis("inbox") == box.pid
    assert processes.whereis("rex") == processes.caller
    assert processes.whereis("nobody") is None
    for name, pid, why in (
        ("inbox", other.pid, "taken"),
        ("rex", other.pid, "taken"),
        ("third", other.pid, "registered as other already"),
        ("third", _THEIRS, "no process"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            processes.register(name, pid)
    processes.unregister("inbox")
    assert processes.whereis("inbox") is None
    with pytest.raises(ConfigurationError, match="no process"):
        processes.unregister("inbox")
    processes.register("inbox", box.pid)
    await box.close()
    assert processes.whereis("inbox") is None


async def test_a_reason_that_is_no_term_is_told_as_the_error_that_it_is() -> None:
    processes, transport = _connected()
    box = processes.mailbox(None)
    processes.receive(transport, MonitorP(source=_THEIRS, to=box.pid, reference=_REF), None)
    await box.close(object())
    (told,) = transport.sent
    assert told.reason[:2] == (Atom("python"), b"ConfigurationError")


async def test_what_is_sent_to_a_service_is_given_to_it() -> None:
    processes, transport = _connected()
    taken: list[object] = []
    processes.service("rex", taken.append)
    processes.receive(transport, RegSend(source=_THEIRS, to=Atom("rex")), 1)
    assert taken == [1]
    processes.receive(transport, MonitorP(source=_THEIRS, to=Atom("rex"), reference=_REF), None)
    assert transport.sent == []


async def test_a_message_to_a_node_that_is_not_connected_is_counted() -> None:
    processes, transport = _connected()
    processes.send_if_connected("other@h", Send(to=_THEIRS), 1)
    transport.ended = True
    processes.send_if_connected("peer@h", Send(to=_THEIRS), 1)
    assert processes.undelivered == 2


async def test_a_node_that_goes_down_ends_mailboxes_linked_to_it_once() -> None:
    processes, transport = _connected()
    trapping, mortal = processes.mailbox(None), processes.mailbox(None, trap_exit=False)
    for box in (trapping, mortal):
        processes.link(Watch(_THEIRS, "peer@h", box.pid, None, box))
        processes.receive(transport, Link(source=_THEIRS, to=box.pid), None)
        processes.watch(Watch(_THEIRS, "peer@h", box.pid, processes.reference(), None))
    processes.node_down("peer@h", transport)
    assert len(trapping) == 1
    assert mortal.closed


async def test_a_node_that_takes_no_more_is_waited_for_so_long_and_not_longer() -> None:
    processes, transport = _connected()
    await processes.drain("other@h", 60.0)
    await processes.drain("peer@h", 60.0)
    transport.hold()
    await processes.drain("peer@h", 0.0)
    waiting = asyncio.create_task(processes.drain("peer@h", 60.0))
    await asyncio.sleep(0)
    assert not waiting.done()
    transport.hold(False)
    await waiting


_MINE = [Pid(_ME, number, 0, 7) for number in range(1, 5)]
_YOURS = [Pid(_PEER, number, 0, 3) for number in range(1, 3)]
_mine, _yours = st.sampled_from(_MINE), st.sampled_from(_YOURS)
_names = st.sampled_from([Atom("inbox"), Atom("rex"), Atom("nobody")])
_references = st.sampled_from(
    [Reference(_PEER, 3, (n, 0, 0)) for n in (1, 2)] + [Reference(_ME, 7, (1, 0, 0))]
)
_reasons = st.sampled_from([Atom("normal"), Atom("kill"), Atom("stone"), [1]])
_control = st.one_of(
    st.builds(Send, to=_mine),
    st.builds(RegSend, source=_yours, to=_names),
    st.builds(AliasSend, source=_yours, alias=_references),
    st.builds(GroupLeader, source=_yours, to=_mine),
    st.builds(MonitorP, source=_yours, to=_mine | _names, reference=_references),
    st.builds(DemonitorP, source=_yours, to=_mine | _names, reference=_references),
    st.builds(MonitorPExit, source=_yours, to=_mine, reference=_references, reason=_reasons),
    st.builds(Link, source=_yours, to=_mine),
    st.builds(UnlinkId, id=st.integers(1, 3), source=_yours, to=_mine),
    st.builds(UnlinkIdAck, id=st.integers(1, 3), source=_yours, to=_mine),
    st.builds(Exit, source=_yours, to=_mine, reason=_reasons),
    st.builds(Exit2, source=_yours, to=_mine, reason=_reasons),
)


@given(st.lists(_control, max_size=30), st.booleans())
def test_no_order_of_messages_brings_the_processes_down(messages: list[Any], ended: bool) -> None:
    async def play() -> None:
        processes, transport = _connected()
        processes.service("rex", lambda _: None)
        boxes = [
            processes.mailbox("inbox"), processes.mailbox(None, trap_exit=False), processes.mailbox(None)
        ]  # fmt: skip
        assert [processes.caller, *(box.pid for box in boxes)] == _MINE
        watch = Watch(_YOURS[0], "peer@h", boxes[0].pid, processes.reference(), boxes[0])
        processes.watch(watch)
        processes.link(Watch(_YOURS[0], "peer@h", boxes[1].pid, None, boxes[1]))
        for message in messages:
            processes.receive(transport, message, b"payload")
        transport.ended = ended
        processes.node_down("peer@h", transport)
        told = len(transport.sent)
        assert watch.ended
        processes.close()
        assert all(box.closed for box in boxes)
        # Who is gone is not spoken to.
        assert len(transport.sent) == told

    asyncio.run(play())
