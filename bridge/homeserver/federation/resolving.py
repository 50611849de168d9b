"""The operator's way out of an escrow that is stuck: what all sides know of it, and what that lets one do.

A transfer ends by its receiver's decision. Where that is lost, as after the restore of one of the two from a
backup, nobody can have it again: the receiver says that the transfer is settled, the giver's tree says that
it is open. Then people decide, by what is known of the entity itself. What would double it, as far as
anybody who can be asked says, is refused; where somebody cannot be asked, it takes the operator's word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from bridge.errors import BridgeError, ProtocolError
from bridge.homeserver.federation.asking import Asker
from bridge.homeserver.federation.documents import AskEntity, Standing
from bridge.homeserver.federation.escrows import Choice, Escrow
from bridge.homeserver.federation.link import RejectedError

_RECORDED_BYTES: Final = 16_384
"""of what was said, in the record of a resolution"""
_SAID_CHARACTERS: Final = 2_000
"""of one instance: names in it may be escaped sixfold"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saying:
    """What one instance says of an entity.

    Attributes:
        instance: whose word it is.
        standing: what it knows; ``None`` where it did not say.
        problem: why it did not.
    """

    instance: str
    standing: Standing | None = None
    problem: str = ""

    def __str__(self) -> str:
        if self.standing is None:
            return f"{self.instance} does not say: {self.problem}"
        says = self.standing
        where = {
            "here": f"has the entity, at epoch {says.epoch}",
            "escrow": f"has it in escrow for {says.at}, at epoch {says.epoch}",
            "away": f"knows it to be at {says.at}, at epoch {says.epoch}",
            "none": "has no entity of this name",
        }[says.place]
        if says.home is not None:
            where += f" (home {says.home})"
        return f"{self.instance} {where}; the transfer: {says.transfer}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What is known of a transfer.

    Attributes:
        here: the name of this instance.
        escrow: as this instance's tree has it.
        home: of the entity.
        sayings: of every other instance that is trusted here, the receiver first.
    """

    here: str
    escrow: Escrow
    home: str
    sayings: Sequence[Saying]

    def of(self, instance: str) -> Saying:
        """What an instance says; one that is not trusted was not asked."""
        for saying in self.sayings:
            if saying.instance == instance:
                return saying
        return Saying(instance=instance, problem="it is not trusted here")

    def elsewhere(self) -> list[Saying]:
        """Who says that the very entity is at another instance than this one."""
        return [
            saying
            for saying in self.sayings
            if (says := saying.standing) is not None
            and says.home == self.home
            and (says.place in ("here", "escrow") or (says.place == "away" and says.at != self.here))
        ]

    def recorded(self) -> str:
        """The same as JSON, for the record; without the last ones where they are too many for it."""
        said = {saying.instance: str(saying)[:_SAID_CHARACTERS] for saying in self.sayings}
        while len(text := msgspec.json.encode(said)) > _RECORDED_BYTES:
            said.popitem()
        return text.decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Whether a choice may be made.

    Attributes:
        refusals: why it may not, whatever the operator says.
        doubts: what only the operator can know; with the operator's word it may be made.
        epoch: under which the entity is elsewhere, as far as was said; 0: unknown.
    """

    refusals: Sequence[str] = ()
    doubts: Sequence[str] = ()
    epoch: int = 0


async def ask_around(
    asker: Asker | None, *, here: str, escrow: Escrow, home: str, peers: Sequence[str]
) -> Knowledge:
    """Ask all that can be asked, at once; nothing is changed by it.

    Args:
        asker: in the name of this instance; ``None``: nobody is asked.
        here: its name.
        escrow: what is stuck.
        home: of its entity.
        peers: instances that are trusted here.
    """
    names = sorted(peers, key=lambda name: (name != escrow.instance, name))
    sayings = await asyncio.gather(*(_said(asker, name, escrow) for name in names))
    return Knowledge(here=here, escrow=escrow, home=home, sayings=sayings)


async def _said(asker: Asker | None, instance: str, escrow: Escrow) -> Saying:
    if asker is None:
        return Saying(instance=instance, problem="it was not asked, which takes --signer")
    try:
        answer = await asker.ask(instance, AskEntity(entity=escrow.entity, transfer=str(escrow.transfer)))
        if not isinstance(answer, Standing) or answer.entity != escrow.entity:
            raise ProtocolError("it answered something else")
    except RejectedError as error:
        older = "; is it of an earlier version?" if error.kind == "invalid_request" else ""
        return Saying(instance=instance, problem=f"{error}{older}")
    except BridgeError as error:
        return Saying(instance=instance, problem=str(error))
    return Saying(instance=instance, standing=answer)


def judge(knowledge: Knowledge, choice: Choice, *, at: str) -> Judgement:
    """Whether an operator may make a choice, by what is known.

    Args:
        knowledge: what all sides say.
        choice: as of ``Resolution``.
        at: where the entity is, with ``gone``.
    """
    is_notice = knowledge.escrow.state == "notice"
    if (choice == "forget") != is_notice:
        what = "only the notice to its home is open: forget" if is_notice else "back, or gone"
        return Judgement(refusals=[f"this transfer can be resolved otherwise: {what}"])
    match choice:
        case "back":
            return _back(knowledge)
        case "gone":
            return _gone(knowledge, at)
        case "forget":
            return _forget(knowledge)


def _undecided(knowledge: Knowledge) -> list[str]:
    """Why the transfer need not be resolved: it goes on by itself."""
    receiver = knowledge.of(knowledge.escrow.instance)
    decided = None if receiver.standing is None else receiver.standing.transfer
    match decided:
        case "accepted" | "refused":
            return [f"{receiver.instance} has {decided} it, and says so to the courier: wait for that"]
        case "unknown":
            return [
                f"{receiver.instance} has not decided, and will when it is asked to refuse: "
                "`federation escrow cancel`"
            ]
        case _:
            return []


def _back(knowledge: Knowledge) -> Judgement:
    refusals = _undecided(knowledge)
    if knowledge.escrow.state == "open":
        refusals.append("it is offered still: `federation escrow cancel` first")
    refusals += [f"it would be in two places: {saying}" for saying in knowledge.elsewhere()]
    doubts = [f"{saying}; it may have it" for saying in knowledge.sayings if saying.standing is None]
    return Judgement(refusals=refusals, doubts=doubts)


def _gone(knowledge: Knowledge, at: str) -> Judgement:
    refusals = _undecided(knowledge)
    if at == knowledge.here:
        refusals.append("it cannot be gone to this instance itself: back")
    said = knowledge.of(at)
    if said.standing is not None and said in knowledge.elsewhere():
        return Judgement(refusals=refusals, epoch=int(said.standing.epoch))
    return Judgement(refusals=refusals, doubts=[f"it may be nobody's then: {said}"])


def _forget(knowledge: Knowledge) -> Judgement:
    home = knowledge.of(knowledge.home)
    if home.standing is None:
        return Judgement(doubts=[f"its home may have to hear it yet: {home}"])
    if home.standing.place == "away" and home.standing.at == knowledge.here:
        return Judgement(refusals=[f"{home.instance} takes the notice from the courier: wait for that"])
    return Judgement()
