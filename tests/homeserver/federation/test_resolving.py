"""What neither side can decide any more: what is known of it, and what an operator may make of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from bridge.errors import AuthorityError
from bridge.homeserver.federation.asking import Asker
from bridge.homeserver.federation.documents import Cancel, Moved, Offer, Standing
from bridge.homeserver.federation.escrows import Choice, Escrow, State
from bridge.homeserver.federation.resolving import Judgement, Knowledge, Saying, ask_around, judge
from bridge.registry import EntityRecord
from tests.support.authority import Server
from tests.support.cluster import fresh
from tests.support.federation import Federation, term

CANCEL = Cancel(transfer="7", low="6", trace="A" * 22, hop=1)
MOVED = Moved(entity="ball", at="ruby", epoch="9")


def says(instance: str, transfer: Any = "settled", place: Any = "none", **members: Any) -> Saying:
    known = {"at": None, "home": None if place == "none" else "emerald", "epoch": "0", **members}
    standing = Standing(entity="ball", transfer=transfer, place=place, **known)
    return Saying(instance=instance, standing=standing)


def silent(instance: str) -> Saying:
    return Saying(instance=instance, problem="it is not to be reached")


def stuck(*sayings: Saying, state: State = "cancelling", home: str = "emerald") -> Knowledge:
    question = MOVED if state == "notice" else CANCEL
    escrow = Escrow(transfer=7, instance="ruby", entity="ball", state=state, question=question, asked="ruby")
    return Knowledge(here="emerald", escrow=escrow, home=home, sayings=sayings)


def is_free(judgement: Judgement) -> bool:
    return not judgement.refusals and not judgement.doubts


def is_doubted(judgement: Judgement) -> bool:
    return not judgement.refusals and len(judgement.doubts) == 1


def test_it_may_be_taken_back_where_nobody_has_it() -> None:
    assert is_free(judge(stuck(says("ruby"), says("opal")), "back", at="ruby"))
    # A thing of the same name that was made there is another one.
    other = says("ruby", place="here", home="ruby", epoch="99")
    assert is_free(judge(stuck(other), "back", at="ruby"))
    # Its home knows it to be here, from before.
    known = says("ruby", place="away", at="emerald", home="ruby")
    assert is_free(judge(stuck(known, home="ruby"), "back", at="ruby"))


@pytest.mark.parametrize(
    "saying",
    [
        says("ruby", place="here", epoch="9"),
        says("ruby", place="escrow", at="opal", epoch="9"),
        says("opal", place="here", epoch="11"),
        says("opal", place="away", at="ruby", epoch="11"),
    ],
    ids=["receiver", "on its way", "third", "told"],
)
def test_it_is_never_taken_back_where_somebody_says_that_it_is_elsewhere(saying: Saying) -> None:
    sayings = [saying] if saying.instance == "ruby" else [says("ruby"), saying]
    judgement = judge(stuck(*sayings), "back", at="ruby")
    assert judgement.refusals == [f"it would be in two places: {saying}"]


@pytest.mark.parametrize("transfer", ["accepted", "refused", "unknown"])
@pytest.mark.parametrize("choice", ["back", "gone"])
def test_what_its_receiver_decides_is_not_resolved(choice: Choice, transfer: str) -> None:
    assert judge(stuck(says("ruby", transfer, "here", epoch="9")), choice, at="ruby").refusals


def test_who_does_not_say_may_have_it() -> None:
    assert is_doubted(judge(stuck(silent("ruby"), says("opal")), "back", at="ruby"))
    assert is_doubted(judge(stuck(says("ruby"), silent("opal")), "back", at="ruby"))
    one_says = stuck(silent("ruby"), says("opal", place="here"))
    assert judge(one_says, "back", at="ruby").refusals


def test_while_it_is_offered_it_is_not_taken_back() -> None:
    assert judge(stuck(says("ruby"), state="open"), "back", at="ruby").refusals
    there = says("ruby", place="here", epoch="9")
    assert is_free(judge(stuck(there, state="open"), "gone", at="ruby"))


def test_it_is_gone_to_who_says_so_or_to_whom_the_operator_knows() -> None:
    there = judge(stuck(says("ruby", place="here", epoch="9")), "gone", at="ruby")
    assert (is_free(there), there.epoch) == (True, 9)
    third = stuck(says("ruby"), says("opal", place="here", epoch="11"))
    passed_on = judge(third, "gone", at="opal")
    assert (is_free(passed_on), passed_on.epoch) == (True, 11)
    assert is_doubted(judge(third, "gone", at="ruby"))
    assert is_doubted(judge(stuck(silent("ruby")), "gone", at="ruby"))
    assert is_doubted(judge(stuck(says("ruby")), "gone", at="jade"))
    assert judge(stuck(says("ruby")), "gone", at="emerald").refusals


def test_a_notice_is_forgotten_where_its_home_does_not_take_it() -> None:
    def forgotten(saying: Saying) -> Judgement:
        there = says("ruby", place="here", home="opal")
        return judge(stuck(there, saying, state="notice", home="opal"), "forget", at="ruby")

    assert is_free(forgotten(says("opal", place="away", at="jade", home="opal")))
    assert is_free(forgotten(says("opal")))
    assert is_doubted(forgotten(silent("opal")))
    assert forgotten(says("opal", place="away", at="emerald", home="opal")).refusals
    assert judge(stuck(says("ruby")), "forget", at="ruby").refusals
    assert judge(stuck(says("ruby"), state="notice"), "back", at="ruby").refusals


def test_words_of_many_instances_fit_the_record() -> None:
    many = [says(f"{number}{'x' * 250}", place="away", at="y" * 255) for number in range(100)]
    assert len(stuck(*many).recorded().encode()) <= 16_384


class Restored:
    """X is back from a backup of when the ball was in its escrow; Y heard since that X had closed."""

    def __init__(self, federation: Federation, a: Server, b: Server, spawned: EntityRecord) -> None:
        self.x, self.y = federation.x, federation.y
        self.federation, self.a, self.b, self.ball = federation, a, b, spawned.entity

    async def escrow(self) -> Escrow:
        (found,) = [one for one in await self.x.escrows.escrows() if one.entity == self.ball]
        return found

    async def knowledge(self) -> Knowledge:
        x = self.x
        asker = Asker(x.escrows, instance=x.name, signer=x.signer, link=self.federation.link)
        return await ask_around(
            asker, here=x.name, escrow=await self.escrow(), home=x.name, peers=[self.y.name]
        )

    async def forget(self) -> None:
        """Y forgets the transfer, as X once said that it may."""
        await self.y.escrows.settle(self.x.name, str((await self.escrow()).transfer))


@pytest.fixture
async def restored(federation: Federation) -> AsyncIterator[Restored]:
    a, b = federation.x.server(), federation.y.server()
    await a.open()
    await b.open()
    spawned = await a.spawn(fresh("ball"))
    await federation.x.push_abroad(spawned, a, federation.y, b)
    yield Restored(federation, a, b, spawned)
    await a.home.close_session()
    await b.home.close_session()


@pytest.mark.erlang
@pytest.mark.slow
async def test_what_had_come_back_comes_back_again(restored: Restored) -> None:
    x, y = restored.x, restored.y
    escrow = await restored.escrow()
    assert judge(await restored.knowledge(), "back", at="ruby").refusals, "it is offered, and not decided"
    await x.escrows.cancel(escrow.transfer)
    cancelling = (await restored.escrow()).question
    assert isinstance(cancelling, Cancel)
    await y.escrows.refuse(x.name, cancelling)
    assert judge(await restored.knowledge(), "back", at="ruby").refusals, "it says so to the courier"
    await restored.forget()
    knowledge = await restored.knowledge()
    assert str(knowledge.sayings[0]) == "ruby has no entity of this name; the transfer: settled"
    assert is_doubted(judge(knowledge, "gone", at="ruby"))
    assert is_free(judge(knowledge, "back", at="ruby"))
    done = await x.escrows.resolve(
        escrow.transfer, "back", at="ruby", epoch=0, reason="from a backup", said=knowledge.recorded()
    )
    await x.store.fence()
    assert done in await x.escrows.resolutions()
    assert (done.reason, done.entity, done.instance) == ("from a backup", restored.ball, "ruby")
    assert await restored.federation.places(restored.ball) == ["emerald"]
    assert (await x.entity(restored.ball)).server == restored.a.name
    # It is as any other again.
    async with restored.federation.couriers():
        await x.push_abroad(await x.entity(restored.ball), restored.a, y, restored.b)
        await restored.federation.settled(restored.ball)
    assert await restored.federation.places(restored.ball) == ["ruby"]


@pytest.mark.erlang
@pytest.mark.slow
async def test_what_its_receiver_has_is_gone_and_nothing_else(restored: Restored) -> None:
    x, y = restored.x, restored.y
    escrow = await restored.escrow()
    assert isinstance(escrow.question, Offer)
    await y.escrows.accept(x.name, escrow.question)
    await restored.forget()
    await x.escrows.cancel(escrow.transfer)
    # The courier is told `settled`, again and again: this is where it is stuck.
    async with restored.federation.couriers():
        while x.questions["ruby", "rejected"] < 3:
            await restored.knowledge()
    knowledge = await restored.knowledge()
    (refusal,) = judge(knowledge, "back", at="ruby").refusals
    assert refusal.startswith("it would be in two places: ruby has the entity, at epoch ")
    judgement = judge(knowledge, "gone", at="ruby")
    assert is_free(judgement)
    said = knowledge.recorded()
    with pytest.raises(AuthorityError, match="wrong_state"):
        await x.escrows.resolve(escrow.transfer, "forget", at="ruby", epoch=0, reason="no", said=said)
    await x.escrows.resolve(
        escrow.transfer, "gone", at="ruby", epoch=judgement.epoch, reason="it has it", said=said
    )
    here, there = await x.entity(restored.ball), await y.entity(restored.ball)
    assert here.away is not None
    assert (here.away.instance, here.away.in_escrow, here.epoch) == ("ruby", False, there.epoch)
    # And it comes home as if nothing had been.
    async with restored.federation.couriers():
        await y.push_abroad(there, restored.b, x, restored.a)
        await restored.federation.settled(restored.ball)
    assert await restored.federation.places(restored.ball) == ["emerald"]
    assert await term(y, "entities", restored.ball) is None
