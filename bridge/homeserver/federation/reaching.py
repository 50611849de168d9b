"""Which instances are to be reached: said once when one is not, and once when it is again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from bridge.errors import BridgeError, ConnectionLostError, DeadlineError
from bridge.homeserver.federation.link import Link, RejectedError
from bridge.homeserver.federation.peers import Peer


class UnreachableError(BridgeError):
    """Another instance does not answer, which was said when it began."""


@dataclass(slots=True)
class _Away:
    """An instance that cannot be reached.

    Attributes:
        since: when that was first so, by the monotonic clock.
        tries: questions since, that one among them.
    """

    since: float
    tries: int = 1


class ReachedLink:
    """A link that tells of instances that are away, however many questions wait for them.

    Args:
        link: that carries.
        on_problem: is told, in words, when an instance is away, and when it is back.
        on_question: is told of each question, by the instance's name, whether it was ``answered``,
            ``rejected``, or the instance ``unreachable``.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        link: Link,
        *,
        on_problem: Callable[[str], None],
        on_question: Callable[[str, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._link = link
        self._on_problem = on_problem
        self._on_question = on_question
        self._clock = clock
        self._away: dict[str, _Away] = {}

    async def ask(self, peer: Peer, body: bytes, seal: str) -> tuple[bytes, str]:
        """As of ``Link``.

        Raises:
            UnreachableError: the instance is not to be reached, or did not answer in time.
        """
        instance = peer.instance
        try:
            answer = await self._link.ask(peer, body, seal)
        except RejectedError:
            self._on_question(instance, "rejected")
            self._is_back(instance)
            raise
        except (ConnectionLostError, DeadlineError) as error:
            self._on_question(instance, "unreachable")
            if (away := self._away.get(instance)) is not None:
                away.tries += 1
            else:
                self._away[instance] = _Away(self._clock())
                self._on_problem(f"{error}; what is for {instance} waits")
            raise UnreachableError(str(error)) from error
        self._on_question(instance, "answered")
        self._is_back(instance)
        return answer

    def _is_back(self, instance: str) -> None:
        away = self._away.pop(instance, None)
        if away is not None:
            seconds = self._clock() - away.since
            self._on_problem(f"{instance} answers again, after {seconds:.0f} s and {away.tries} questions")
