"""What is asked and what is broken, and when: all of it from a seed, decided before anything runs.

The same seed gives the same schedule on any machine. What it cannot give is the same timing: which request is
under way when a process dies, who holds an entity then, and who leads.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

ENTITIES: Final = 8
SERVERS: Final = 3
HOMESERVERS: Final = 3
PLAYERS: Final = ("Ann", "Bob", "Cem")
STEPS_PER_SECOND: Final = 12.0
ASKS_PER_SECOND: Final = 3.0
LIVES_PER_SECOND: Final = 1.5
FIRST_FAULT: Final = 2.0
"""seconds of peace, in which the entities are made"""
_LONG: Final = 0.15
"""share of the faults that last longer than a lease"""


class Kind(StrEnum):
    """A fault. ``leader`` is whoever leads when it begins; a server is a simulation server."""

    KILL_HOMESERVER = "kill homeserver"
    KILL_LEADER = "kill leader"
    KILL_HOMESERVERS = "kill all homeservers"
    KILL_EVERYTHING = "kill everything"
    STOP_HOMESERVER = "stop homeserver"
    STOP_LEADER = "stop leader"
    KILL_CONTROL = "kill control plane"
    KILL_DATA_PLANE = "kill data plane"
    KILL_SERVER = "kill server"
    STOP_CONTROL = "stop control plane"
    STOP_DATA_PLANE = "stop data plane"
    STOP_SERVER = "stop server"
    KILL_HOST = "kill host of server"
    CUT_HOMESERVER = "cut homeserver off"
    CUT_LEADER = "cut leader off"
    CUT_SERVER = "cut server off"
    DEAFEN = "homeserver hears nothing"
    MUTE = "homeserver is not heard"
    DEAFEN_SERVER = "server hears nothing"
    PART = "part two homeservers"
    PART_SERVERS = "part two servers"
    MINORITY = "leader and a server apart"
    FULL_DISK = "full disk"
    CLOCK = "clock jump"


SIGNALS: Final = (
    Kind.KILL_HOMESERVER,
    Kind.KILL_LEADER,
    Kind.KILL_HOMESERVERS,
    Kind.KILL_EVERYTHING,
    Kind.STOP_HOMESERVER,
    Kind.STOP_LEADER,
    Kind.KILL_CONTROL,
    Kind.KILL_DATA_PLANE,
    Kind.KILL_SERVER,
    Kind.STOP_CONTROL,
    Kind.STOP_DATA_PLANE,
    Kind.STOP_SERVER,
)
"""those that need no containers: signals to processes"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something breaks, and is mended.

    Attributes:
        at: seconds from the start.
        seconds: until it is mended.
        target: number of the homeserver or server, from 0.
        other: number of another one.
        offset: seconds that a clock jumps by.
    """

    at: float
    seconds: float
    kind: Kind
    target: int
    other: int
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.at:7.1f} s  {self.kind} {self.target + 1} for {self.seconds:.1f} s"


class Act(StrEnum):
    """What a client asks."""

    TAKE = "take"
    PUSH = "push"
    OFFER = "offer"
    GIVE = "give"
    TRANSFER = "transfer"
    REVOKE = "revoke"
    REQUEST = "request"
    SET_RULE = "set_rule"
    SET_DEFAULT_OWNER = "set_default_owner"
    SET_RULE_ASK = "set_rule ask"
    ANSWER = "answer"
    WITHDRAW = "withdraw"
    ENTER = "enter"
    LEAVE = "leave"
    DELETE = "delete"
    SPAWN = "spawn"


BY_SERVERS: Final = (Act.TAKE, Act.PUSH, Act.OFFER, Act.GIVE, Act.SPAWN)
_WEIGHTS: Final = {
    Act.TAKE: 5.0,
    Act.PUSH: 5.0,
    Act.OFFER: 2.0,
    Act.GIVE: 2.0,
    Act.TRANSFER: 2.0,
    Act.REVOKE: 1.0,
    Act.REQUEST: 2.0,
    Act.SET_RULE: 1.0,
    Act.SET_DEFAULT_OWNER: 0.5,
}
_ASK_WEIGHTS: Final = {
    Act.REQUEST: 6.0,
    Act.ANSWER: 6.0,
    Act.SET_RULE_ASK: 2.0,
    Act.ENTER: 2.0,
    Act.LEAVE: 1.0,
    Act.WITHDRAW: 1.0,
}
"""what players do about the rule ``ask``"""
_LIFE_WEIGHTS: Final = {Act.DELETE: 1.0, Act.SPAWN: 2.0}
"""most entities are there most of the time: only its master or the operator deletes one"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One request.

    Attributes:
        actor: number of the server or of the player's client that asks.
        player: in whose name; ``operator`` where a player's request may come from nobody.
        to: number of the server that an entity is passed to.
        other: player who is given something.
        denies: whether a rule is set to ``deny``, or an answer refuses.
    """

    at: float
    act: Act
    actor: int
    entity: str
    player: str
    to: int
    other: str
    denies: bool


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything that a run does, by time."""

    seed: int
    seconds: float
    steps: tuple[Step, ...]
    faults: tuple[Fault, ...]


def entities() -> list[str]:
    """Names of the entities of a run."""
    return [f"e{number}" for number in range(ENTITIES)]


def make_schedule(seed: int, seconds: float, kinds: Sequence[Kind] = tuple(Kind)) -> Schedule:
    """The schedule of a seed.

    Args:
        seed: any integer.
        seconds: of the run, without its beginning and end.
        kinds: faults that may come; each comes once before any comes again.
    """
    # One source each, so that a change of the ones leaves the others as they were.
    steps = heapq.merge(
        _steps(random.Random(f"steps {seed}"), seconds, STEPS_PER_SECOND, _WEIGHTS),
        _steps(random.Random(f"asks {seed}"), seconds, ASKS_PER_SECOND, _ASK_WEIGHTS),
        _steps(random.Random(f"lives {seed}"), seconds, LIVES_PER_SECOND, _LIFE_WEIGHTS),
        key=lambda step: step.at,
    )
    faults = tuple(_faults(random.Random(f"faults {seed}"), seconds, list(kinds)))
    return Schedule(seed, seconds, tuple(steps), faults)


def _steps(
    rng: random.Random, seconds: float, per_second: float, weights: Mapping[Act, float]
) -> Iterator[Step]:
    at = 0.0
    while (at := at + rng.expovariate(per_second)) < seconds:
        act = rng.choices(list(weights), list(weights.values()))[0]
        player = rng.choice(PLAYERS)
        yield Step(
            at=round(at, 3),
            act=act,
            actor=rng.randrange(SERVERS),
            entity=rng.choice(entities()),
            player=player if rng.random() < 0.9 or act in BY_SERVERS else "operator",
            to=rng.randrange(SERVERS),
            other=rng.choice(PLAYERS),
            denies=rng.random() < 0.3,
        )


def _faults(rng: random.Random, seconds: float, kinds: list[Kind]) -> Iterator[Fault]:
    at, deck = FIRST_FAULT, list[Kind]()
    while True:
        at += rng.uniform(0.5, 4.0)
        lasts = rng.uniform(4.0, 8.0) if rng.random() < _LONG else rng.uniform(0.3, 3.0)
        if at + lasts > seconds:
            return
        if not deck:
            deck = rng.sample(kinds, len(kinds))
        target = rng.randrange(HOMESERVERS)
        yield Fault(
            at=round(at, 3),
            seconds=round(lasts, 3),
            kind=deck.pop(),
            target=target,
            other=(target + rng.randint(1, HOMESERVERS - 1)) % HOMESERVERS,
            offset=rng.choice((-86_400, -3_600, -60, 60, 3_600, 86_400)),
        )
        # Some faults come while another one lasts.
        at += lasts * (1.0 if rng.random() < 0.7 else rng.random())
