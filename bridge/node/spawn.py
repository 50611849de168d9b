"""Calls by a process that the other node spawns for them, as OTP's ``erpc`` does.

Source: OTP's ``erpc`` (``call/5``: ``spawn_request`` of ``erpc:execute_call/4`` with a monitor; the process
answers by its exit reason); Erlang "Distribution Protocol", SPAWN_REQUEST and SPAWN_REPLY.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge.dist import DemonitorP, SpawnReply, SpawnRequest
from bridge.errors import RemoteError
from bridge.etf import Atom, Pid, Reference
from bridge.node.calls import Calls, Down, argument_list
from bridge.node.gen import forget
from bridge.node.outcomes import erpc_result, refused
from bridge.node.peer import Peer

_EXECUTE_CALL: Final = (Atom("erpc"), Atom("execute_call"), 4)
_OPTIONS: Final = [Atom("monitor")]
_USER: Final = Atom("user")


@dataclass(frozen=True, slots=True)
class _Refused:
    reason: Any


class Spawns:
    """Processes that other nodes run for this one.

    Args:
        calls: where the answers are waited for.
        caller: the process that they come to.
    """

    def __init__(self, calls: Calls, caller: Pid) -> None:
        self._calls = calls
        self._caller = caller
        self._running: dict[Reference, Pid] = {}
        self._abandoned: dict[Reference, str] = {}
        self._leaders: dict[str, Pid] = {}

    def __len__(self) -> int:
        """Processes that run, or are about to, as far as is known."""
        return len(self._running) + len(self._abandoned)

    async def call(
        self,
        peer: Peer,
        node: str,
        module: str,
        function: str,
        args: Sequence[Any],
        *,
        seconds: float,
        deadline: float,
    ) -> Any:
        """Call a function and wait for its outcome.

        Whoever gives up, by its deadline or by being cancelled, leaves no monitor behind; the function runs
        on, as with OTP's own ``erpc``.

        Raises:
            RemoteRaisedError, RemoteThrewError, RemoteExitedError: what the function did.
            RemoteRefusedError: it was not called: ``notsup``, ``system_limit``, ``badarg``.
            NodeDownError, DeadlineError, LimitExceededError, ClosedError: as for ``Calls.ask``.
        """
        arguments = argument_list(args)
        what = f"{module}:{function}/{len(arguments)}"
        leader = await self._leader(peer, node, seconds, deadline)
        requests: list[Reference] = []
        outcome: Any = None

        def send(reference: Reference) -> None:
            # One reference serves as the request's, the monitor's and the result's.
            peer.send(
                SpawnRequest(
                    request=reference,
                    source=self._caller,
                    group_leader=leader,
                    mfa=_EXECUTE_CALL,
                    options=_OPTIONS,
                ),
                [reference, Atom(module), Atom(function), arguments],
            )
            requests.append(reference)

        try:
            outcome = await self._calls.ask(peer, node, what, send, seconds=seconds, deadline=deadline)
        finally:
            if requests and not isinstance(outcome, Down | _Refused):
                self._abandon(peer, node, requests[0])
        if isinstance(outcome, Down):
            self._running.pop(requests[0], None)
            return erpc_result(node, what, requests[0], outcome.reason)
        # A plain message in place of an end cannot come from execute_call; it counts as a refusal too.
        raise refused(node, what, outcome.reason if isinstance(outcome, _Refused) else outcome)

    def replied(self, transport: Peer, message: SpawnReply) -> None:
        """Take the answer to a request: the process, or why there is none."""
        request, result = message.request, message.result
        if self._abandoned.pop(request, None) is not None:
            if isinstance(result, Pid):
                forget(transport, DemonitorP(source=self._caller, to=result, reference=request))
        elif not isinstance(result, Pid):
            self._calls.settle(request, _Refused(result))
        elif self._calls.waits(request):
            self._running[request] = result

    def node_down(self, node: str) -> None:
        """The connection to a node ended, and with it the monitors there."""
        self._leaders.pop(node, None)
        for request in [r for r, where in self._abandoned.items() if where == node]:
            del self._abandoned[request]
        for request in [r for r, pid in self._running.items() if pid.node.text == node]:
            del self._running[request]

    def _abandon(self, peer: Peer, node: str, request: Reference) -> None:
        pid = self._running.pop(request, None)
        if pid is not None:
            forget(peer, DemonitorP(source=self._caller, to=pid, reference=request))
        elif not peer.closed.done():
            # Its process is not known yet; the reply, which always comes, says what to stop watching.
            self._abandoned[request] = node

    async def _leader(self, peer: Peer, node: str, seconds: float, deadline: float) -> Pid:
        """The group leader of what runs there: the node's own ``user``, as ``rex`` has it too."""
        leader = self._leaders.get(node)
        if leader is None:
            try:
                found = await self._calls.call(
                    peer, node, "erlang", "whereis", [_USER], seconds=seconds, deadline=deadline
                )
            except RemoteError:
                found = None  # no BEAM, so nothing there writes to a group leader
            leader = self._leaders[node] = found if isinstance(found, Pid) else self._caller
        return leader
