from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from bridge.errors import BridgeError, ConnectionLostError, DeadlineError
from bridge.homeserver.federation import Peer, RejectedError
from bridge.homeserver.federation.reaching import ReachedLink, UnreachableError
from bridge.jose import Jwk


class Scripted:
    """A link that answers as it is told, one question after the other."""

    def __init__(self, *answers: BridgeError | None) -> None:
        self._answers: Iterator[BridgeError | None] = iter(answers)

    async def ask(self, peer: Peer, body: bytes, seal: str) -> tuple[bytes, str]:
        del peer
        error = next(self._answers)
        if error is not None:
            raise error
        return body, seal


class Watched:
    """A link of an instance that is watched, and a clock that goes on by ten seconds with each look."""

    def __init__(self, *answers: BridgeError | None) -> None:
        self.problems: list[str] = []
        self.questions: Counter[str] = Counter()
        self._now = 0.0
        self._peer = Peer(instance="ruby", urls=("https://ruby",), keys=(Jwk.generate().public(),))
        self._link = ReachedLink(
            Scripted(*answers),
            on_problem=self.problems.append,
            on_question=lambda instance, outcome: self.questions.update([outcome]),
            clock=self._clock,
        )

    def _clock(self) -> float:
        self._now += 10.0
        return self._now

    async def ask(self) -> tuple[bytes, str]:
        return await self._link.ask(self._peer, b"body", "seal")


GONE, LATE = ConnectionLostError("ruby is not to be reached"), DeadlineError("ruby did not answer")
NO = RejectedError("ruby: ask again", status=409, kind="elsewhere")


async def test_an_instance_that_is_away_is_told_of_once_and_once_that_it_is_back() -> None:
    watched = Watched(GONE, LATE, GONE, None, None, GONE)
    for _ in range(3):
        with pytest.raises(UnreachableError):
            await watched.ask()
    assert watched.problems == ["ruby is not to be reached; what is for ruby waits"]
    assert await watched.ask() == (b"body", "seal")
    assert watched.problems[1:] == ["ruby answers again, after 10 s and 3 questions"]
    await watched.ask()
    assert len(watched.problems) == 2
    with pytest.raises(UnreachableError):
        await watched.ask()
    assert len(watched.problems) == 3, "away anew"
    assert watched.questions == {"unreachable": 4, "answered": 2}


async def test_one_that_does_not_decide_is_reached() -> None:
    watched = Watched(GONE, NO)
    with pytest.raises(UnreachableError):
        await watched.ask()
    with pytest.raises(RejectedError, match="ask again"):
        await watched.ask()
    assert watched.problems[1].startswith("ruby answers again")
    assert watched.questions == {"unreachable": 1, "rejected": 1}
