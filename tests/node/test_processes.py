"""Mailboxes, monitors and links as another node sees them, with transports that record."""

from __future__ import annotations

from typing import Any, cast

import pytest

from bridge.dist import (
    AliasSend,
    ControlMessage,
    DemonitorP,
    DistConnection,
    Exit,
    Exit2,
    GroupLeader,
    Link,
    MonitorP,
    MonitorPExit,
    RegSend,
    Send,
    SpawnReply,
    SpawnRequest,
    UnlinkId,
    UnlinkIdAck,
)
from bridge.errors import ConfigurationError, InvalidStateError
from bridge.etf import Atom, ImproperList, Pid, Reference
from bridge.node.mailbox import Watch
from bridge.node.processes import Processes
from bridge.node.transport import DistTransport

_ME, _PEER = Atom("me@h"), Atom("peer@h")
_THEIRS = Pid(_PEER, 9, 0, 3)
_REF = Reference(_PEER, 3, (1, 2, 3))


class _Transport(DistTransport):
    """Keeps what is sent through it, until it has ended."""

    def __init__(self) -> None:
        super().__init__(cast(DistConnection, None), lambda *_: None, lambda _: None)
        self.sent: list[ControlMessage | tuple[ControlMessage, Any]] = []
        self.ended = False

    def send(self, message: ControlMessage, payload: Any = None) -> None:
        if self.ended:
            raise InvalidStateError("ended")
        self.sent.append(message if payload is None else (message, payload))


def _processes(transport: _Transport | None = None) -> Processes:
    return Processes(_ME, 7, 100, {"peer@h": transport}.get)


async def test_pids_and_references_are_never_given_twice() -> None:
    processes = _processes()
    pids = [processes.mailbox(None).pid for _ in range(100)]
    references = [processes.reference() for _ in range(100)]
    assert len({*pids, processes.caller}) == 101
    assert len(set(references)) == 100
    assert all(pid.node is _ME and pid.creation == 7 for pid in pids)
    assert all(reference.ids[0] < 1 << 18 for reference in references)


async def test_messages_reach_pids_and_names_and_others_are_counted() -> None:
    processes, transport = _processes(), _Transport()
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
    box = processes.mailbox("inbox")
    for name in ("inbox", "net_kernel"):
        with pytest.raises(ConfigurationError, match="taken"):
            processes.mailbox(name)
    await box.close()
    processes.mailbox("inbox")


@pytest.mark.parametrize("by_name", [True, False])
async def test_a_monitor_of_a_mailbox_is_told_its_reason(by_name: bool) -> None:
    processes, transport = _processes(), _Transport()
    box = processes.mailbox("inbox")
    target = Atom("inbox") if by_name else box.pid
    processes.receive(transport, MonitorP(source=_THEIRS, to=target, reference=_REF), None)
    await box.close(Atom("stone"))
    assert transport.sent == [MonitorPExit(source=target, to=_THEIRS, reference=_REF, reason=Atom("stone"))]


async def test_a_monitor_of_nobody_is_answered_noproc() -> None:
    processes, transport = _processes(), _Transport()
    for target in (Atom("nobody"), Pid(_ME, 99, 0, 7)):
        processes.receive(transport, MonitorP(source=_THEIRS, to=target, reference=_REF), None)
        assert transport.sent.pop() == MonitorPExit(
            source=target, to=_THEIRS, reference=_REF, reason=Atom("noproc")
        )


async def test_a_monitor_that_was_undone_is_told_nothing() -> None:
    processes, transport = _processes(), _Transport()
    box = processes.mailbox(None)
    processes.receive(transport, MonitorP(source=_THEIRS, to=box.pid, reference=_REF), None)
    processes.receive(transport, DemonitorP(source=_THEIRS, to=box.pid, reference=_REF), None)
    processes.receive(transport, DemonitorP(source=_THEIRS, to=Atom("nobody"), reference=_REF), None)
    await box.close()
    assert transport.sent == []


async def test_a_link_to_a_mailbox_is_told_its_reason_and_one_to_nobody_noproc() -> None:
    processes, transport = _processes(), _Transport()
    box = processes.mailbox(None)
    processes.receive(transport, Link(source=_THEIRS, to=box.pid), None)
    await box.close(Atom("stone"))
    assert transport.sent.pop() == Exit(source=box.pid, to=_THEIRS, reason=Atom("stone"))
    processes.receive(transport, Link(source=_THEIRS, to=box.pid), None)
    assert transport.sent.pop() == Exit(source=box.pid, to=_THEIRS, reason=Atom("noproc"))


async def test_an_unlink_is_acknowledged_and_undoes_the_link() -> None:
    processes, transport = _processes(), _Transport()
    box = processes.mailbox(None)
    processes.receive(transport, Link(source=_THEIRS, to=box.pid), None)
    processes.receive(transport, UnlinkId(id=5, source=_THEIRS, to=box.pid), None)
    assert transport.sent == [UnlinkIdAck(id=5, source=box.pid, to=_THEIRS)]
    await box.close()
    assert len(transport.sent) == 1


async def test_exits_of_linked_and_other_processes_arrive_as_messages() -> None:
    processes, transport = _processes(), _Transport()
    box = processes.mailbox(None)
    processes.receive(transport, Link(source=_THEIRS, to=box.pid), None)
    processes.receive(transport, Exit(source=_THEIRS, to=box.pid, reason=Atom("stone")), None)
    processes.receive(transport, Exit2(source=_THEIRS, to=box.pid, reason=Atom("kill")), None)
    assert await box.receive() == (Atom("EXIT"), _THEIRS, Atom("stone"))
    assert await box.receive() == (Atom("EXIT"), _THEIRS, Atom("kill"))
    # The link went with the exit, so closing tells nobody.
    await box.close()
    assert transport.sent == []


async def test_our_own_watches_end_by_what_the_peer_says() -> None:
    transport = _Transport()
    processes = _processes(transport)
    box = processes.mailbox(None)
    reference = processes.reference()
    monitor = Watch(_THEIRS, "peer@h", box.pid, reference, box)
    link = Watch(_THEIRS, "peer@h", box.pid, None, box)
    processes.watch(monitor)
    processes.watch(link)
    assert processes.linked(box.pid, _THEIRS) is link
    exit_ = MonitorPExit(source=_THEIRS, to=box.pid, reference=reference, reason=Atom("stone"))
    processes.receive(transport, exit_, None)
    processes.receive(transport, exit_, None)
    processes.receive(transport, Exit(source=_THEIRS, to=box.pid, reason=Atom("stone")), None)
    assert await monitor.wait() is await link.wait() is Atom("stone")
    assert processes.linked(box.pid, _THEIRS) is None
    assert len(box) == 2


async def test_a_mailbox_that_closes_gives_up_its_own_watches() -> None:
    transport = _Transport()
    processes = _processes(transport)
    box = processes.mailbox(None)
    reference = processes.reference()
    processes.watch(Watch(_THEIRS, "peer@h", box.pid, reference, box))
    processes.watch(Watch(_THEIRS, "peer@h", box.pid, None, box))
    await box.close(Atom("stone"))
    assert transport.sent == [
        Exit(source=box.pid, to=_THEIRS, reason=Atom("stone")),
        DemonitorP(source=box.pid, to=_THEIRS, reference=reference),
    ]


async def test_a_node_that_goes_down_ends_the_watches_of_it_and_forgets_its_own() -> None:
    transport = _Transport()
    processes = _processes(transport)
    box = processes.mailbox(None)
    monitor = Watch(_THEIRS, "peer@h", box.pid, processes.reference(), None)
    link = Watch(_THEIRS, "peer@h", processes.caller, None, None)
    elsewhere = Watch(_THEIRS, "other@h", box.pid, processes.reference(), None)
    for watch in (monitor, link, elsewhere):
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
    processes, transport = _processes(), _Transport()
    box = processes.mailbox(None)
    processes.receive(transport, MonitorP(source=_THEIRS, to=box.pid, reference=_REF), None)
    other = Reference(_PEER, 3, (2, 2, 3))
    processes.receive(transport, MonitorP(source=_THEIRS, to=Atom("net_kernel"), reference=other), None)
    processes.close()
    assert box.closed
    reasons = [message.reason for message in transport.sent if isinstance(message, MonitorPExit)]
    assert reasons == [Atom("shutdown")] * 2


async def test_telling_a_connection_that_has_ended_is_no_error() -> None:
    processes, transport = _processes(), _Transport()
    box = processes.mailbox(None)
    processes.receive(transport, MonitorP(source=_THEIRS, to=box.pid, reference=_REF), None)
    transport.ended = True
    await box.close()


async def test_nothing_is_spawned_from_outside() -> None:
    processes, transport = _processes(), _Transport()
    mfa = (Atom("os"), Atom("cmd"), 1)
    request = SpawnRequest(request=_REF, source=_THEIRS, group_leader=_THEIRS, mfa=mfa, options=[])
    processes.receive(transport, request, [b"true"])
    assert transport.sent == [SpawnReply(request=_REF, to=_THEIRS, flags=0, result=Atom("notsup"))]


async def test_a_ping_is_answered_by_alias_or_by_pid() -> None:
    processes, transport = _processes(), _Transport()
    question = (Atom("is_auth"), _PEER)
    asked = RegSend(source=_THEIRS, to=Atom("net_kernel"))
    by_alias = ImproperList([Atom("alias")], _REF)
    processes.receive(transport, asked, (Atom("$gen_call"), (_THEIRS, _REF), question))
    processes.receive(transport, asked, (Atom("$gen_call"), (_THEIRS, by_alias), question))
    assert transport.sent == [
        (Send(to=_THEIRS), (_REF, Atom("yes"))),
        (AliasSend(source=processes.caller, alias=_REF), (by_alias, Atom("yes"))),
    ]
    for other in ((Atom("$gen_call"), (_THEIRS, _REF), (Atom("stop"), _PEER)), Atom("is_auth"), ()):
        processes.receive(transport, asked, other)
    assert processes.undelivered == 3
