"""Messages that are decoded in steps, and those that keep their place behind them.

Source for the order of signals: "Processes", section "Signals", of the Erlang reference manual.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

from bridge.dist.control import ControlMessage, MonitorPExit, Send, address_of, parse_control_untrusted
from bridge.dist.events import Received
from bridge.dist.fragments import FragmentedMessage
from bridge.dist.outbox import Address
from bridge.etf import Decoding, Pid

AT_ONCE: Final = 98_304
"""bytes of a payload that are decoded in one step: three to four milliseconds"""

_Waiting = tuple[FragmentedMessage, Decoding] | Received
_Key = Address | None


class Unfinished:
    """What of one connection has come and is not told yet.

    Answers keep no place: each is for whoever waits for its reference. Only the end of the process that was
    asked, which would end that wait too, stays behind its answer.

    Args:
        answers_to: the process that answers go to.

    Attributes:
        held_bytes: of the payloads that are not decoded.
    """

    def __init__(self, answers_to: Pid | None) -> None:
        self._answers_to = answers_to
        self._waiting: deque[tuple[_Waiting, _Key]] = deque()
        self._addresses: Counter[Address] = Counter()
        self._answering: Counter[Address] = Counter()
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put_large(self, message: FragmentedMessage, control: ControlMessage | None) -> None:
        """Add a whole message; ``control`` is what it will be, as far as that is known without its payload."""
        key = None if control is None else address_of(control)
        if key == self._answers_to:
            key = message.answered() if type(control) is Send else None
            if key is not None:
                self._answering[key] += 1
        elif key is not None:
            self._addresses[key] += 1
        self.held_bytes += message.size
        self._waiting.append(((message, message.decoding()), key))

    def must_wait(self, control: ControlMessage) -> bool:
        """Whether a message has to keep its place behind one that is not told yet.

        A process may be reached by pid, name and alias alike, so one kind of address waits for the others.
        """
        to = address_of(control)
        if to == self._answers_to:
            return type(control) is MonitorPExit and control.reference in self._answering
        return to is not None and any(
            to == address or type(to) is not type(address) for address in self._addresses
        )

    def put_behind(self, event: Received) -> None:
        """Add a message that ``must_wait``."""
        key = address_of(event.control)
        if key == self._answers_to:
            key = None
        elif key is not None:
            self._addresses[key] += 1
        self._waiting.append((event, key))

    def step_untrusted(self) -> list[Received]:
        """Decode one step of the first message; gives what can be told now, in order.

        Raises:
            DecodeError, PeerLimitError: as ``Decoding.step_untrusted``.
        """
        found: list[Received] = []
        first, key = self._waiting[0]
        if not isinstance(first, Received):
            message, decoding = first
            if not decoding.step_untrusted():
                return found
            self._waiting.popleft()
            self._told(key)
            self.held_bytes -= message.size
            control = parse_control_untrusted(message.control, decoding.value)
            if control is not None:
                found.append(Received(control=control, payload=decoding.value))
        while self._waiting:
            event, key = self._waiting[0]
            if not isinstance(event, Received):
                break
            self._waiting.popleft()
            self._told(key)
            found.append(event)
        return found

    def clear(self) -> None:
        """The connection ended: what waits is not told."""
        self._waiting.clear()
        self._addresses.clear()
        self._answering.clear()
        self.held_bytes = 0

    def _told(self, key: _Key) -> None:
        for counted in (self._addresses, self._answering):
            if key is not None and key in counted:
                counted[key] -= 1
                if not counted[key]:
                    del counted[key]
