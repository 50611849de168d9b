"""Escrow at this instance's store: each request of ``docs/protocol.md`` §11 is one transaction, done once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from bridge.errors import DecodeError
from bridge.etf import Atom
from bridge.homeserver.federation.documents import (
    Accepted,
    Answer,
    AskEntity,
    Cancel,
    Endpoint,
    Giver,
    Moved,
    Noted,
    Offer,
    Refused,
    Servers,
    Settled,
    Standing,
)
from bridge.homeserver.federation.peers import Peer, endpoint_of, servers_term
from bridge.jose.encoding import base64url_decode_untrusted, base64url_encode
from bridge.khepri import GetMany, Khepri, NodeNotFoundError
from bridge.khepri import Path as TreePath
from bridge.registry import EntityRecord, Rule, ServerRecord, Step
from bridge.registry.fields import Fields
from bridge.registry.requests import Requests, name_bytes, step_members

_BRIDGE: Final = Atom("bridge")
_UNDEFINED: Final = Atom("undefined")
State = Literal["open", "cancelling", "notice"]
Choice = Literal["back", "gone", "forget"]
CHOICES: Final[tuple[Choice, ...]] = get_args(Choice)


@dataclass(frozen=True, slots=True, kw_only=True)
class Escrow:
    """One transfer that is not over, of ``/:bridge/:escrow``.

    Attributes:
        transfer: its number.
        instance: the receiver.
        entity: name.
        state: ``open``: the receiver is to decide; ``cancelling``: it is asked to refuse; ``notice``: it has
            accepted, and the entity's home is to be told.
        question: what is to be said.
        asked: to whom: the receiver, or the home.
    """

    transfer: int
    instance: str
    entity: str
    state: State
    question: Offer | Cancel | Moved
    asked: str


def escrow_from_term(term: Any) -> Escrow:
    """Decode a record of ``/:bridge/:escrow``.

    Raises:
        DecodeError: it is none.
    """
    try:
        state = str(term[Atom("state")])
        transfer, instance = term[Atom("transfer")], term[Atom("instance")].decode()
        entity = term[Atom("entity")].decode()
        question: Offer | Cancel | Moved
        match state:
            case "open":
                question, asked = _offer(term), instance
            case "cancelling":
                question = Cancel(transfer=str(transfer), low=str(term[Atom("low")]), **_step(term))
                asked = instance
            case "notice":
                question = Moved(entity=entity, at=instance, epoch=str(term[Atom("epoch")]))
                asked = term[Atom("home")].decode()
            case _:
                raise DecodeError(f"no state of an escrow: {state:.50}")
        return Escrow(
            transfer=transfer, instance=instance, entity=entity, state=state, question=question, asked=asked
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DecodeError(f"no record of an escrow: {error!r:.200}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """What went to another instance, of ``/:bridge/:outgoing``.

    Attributes:
        low: all transfers up to this number are closed here.
        settled: and the other instance has heard that of all up to this one.
        open: transfers that are not closed, with their entities.
    """

    instance: str
    low: int
    settled: int
    open: Mapping[int, str]

    @classmethod
    def from_term(cls, term: Any) -> Outgoing:
        """Decode a record.

        Raises:
            DecodeError: it is none.
        """
        try:
            return cls(
                instance=term[Atom("instance")].decode(),
                low=int(term[Atom("low")]),
                settled=int(term[Atom("settled")]),
                open={number: entity.decode() for number, entity in term[Atom("open")].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DecodeError(f"no record of what went out: {error!r:.200}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What an operator decided about a transfer, of ``/:bridge/:resolved``.

    Attributes:
        instance: the receiver.
        choice: ``back``: the entity is this instance's again; ``gone``: it is another one's; ``forget``: its
            home is not told where it went.
        at: where it was said to be.
        said: what the instances had said of it, JSON.
        at_ms: when, Unix milliseconds.
    """

    transfer: int
    entity: str
    instance: str
    choice: Choice
    at: str
    epoch: int
    reason: str
    said: str
    at_ms: int

    @classmethod
    def from_term(cls, term: Any) -> Resolution:
        """Decode a record.

        Raises:
            DecodeError: it is none.
        """
        fields = Fields(term)
        choice = str(fields.member("choice"))
        if choice not in CHOICES:
            raise DecodeError(f"no way to resolve an escrow: {choice:.50}")
        return cls(
            transfer=fields.number("transfer"),
            entity=fields.text("entity"),
            instance=fields.text("instance"),
            choice=choice,
            at=fields.text("where"),
            epoch=fields.number("epoch"),
            reason=fields.text("reason"),
            said=fields.text("said"),
            at_ms=fields.number("at"),
        )


class Escrows:
    """Requests about escrow and peers through one client of the instance's store.

    Every one of them may be repeated, by whomever, at any time: each is told by the number of its transfer.
    All raise ``AuthorityError`` where the homeserver refuses, and ``BridgeError`` where no answer comes.
    """

    def __init__(self, store: Khepri) -> None:
        self._store = store
        self._requests = Requests(store)

    async def pin(self, peer: Peer) -> None:
        """Trust an instance; what was pinned of it before is replaced, but for ``since``."""
        await self._store.request("pin_peer", peer.to_term())

    async def unpin(self, instance: str, *, anyway: bool = False) -> None:
        """Trust an instance no more; refused while something is in escrow for it.

        Args:
            anyway: also where it may not have heard yet that entities of its escrow came here. Pinned again,
                it would be refused when it asks, and take back what is here.
        """
        await self._requests.ask("unpin_peer", instance=instance.encode(), anyway=anyway)

    async def peer(self, instance: str) -> Peer | None:
        """The pinned instance of that name, as the connected member knows it."""
        try:
            return Peer.from_term(await self._store.get([_BRIDGE, Atom("peers"), instance.encode()]))
        except NodeNotFoundError:
            return None

    async def peers(self) -> list[Peer]:
        """All that are pinned, by name."""
        found = await self._store.get_many("/:bridge/:peers/*")
        return sorted((Peer.from_term(term) for term in found.values()), key=lambda peer: peer.instance)

    async def note_servers(self, instance: str, servers: list[Endpoint]) -> None:
        """Keep which servers another instance has; written only where it is another list."""
        await self._requests.ask("note_servers", instance=instance.encode(), servers=servers_term(servers))

    async def escrows(self) -> list[Escrow]:
        """What is not over, oldest first."""
        found = await self._store.get_many("/:bridge/:escrow/*")
        return sorted((escrow_from_term(term) for term in found.values()), key=lambda escrow: escrow.transfer)

    async def cancel(self, transfer: int) -> str:
        """Have the receiver asked to refuse, from now on.

        Returns:
            The state: ``cancelling``, or ``closed`` or ``notice`` where it was decided before.
        """
        return str((await self._requests.ask("cancel_escrow", transfer=transfer))[Atom("state")])

    async def close(self, instance: str, answer: Accepted | Refused) -> None:
        """Do as the receiver decided: the entity is gone, or it is the giver's again, or dormant."""
        accepted = isinstance(answer, Accepted)
        await self._requests.ask(
            "close_escrow",
            transfer=int(answer.transfer),
            instance=instance.encode(),
            verdict=Atom("accepted" if accepted else "refused"),
            epoch=int(answer.epoch) if isinstance(answer, Accepted) else 0,
            reason=b"none" if isinstance(answer, Accepted) else answer.reason.encode(),
            trace=base64url_decode_untrusted(answer.trace),
            hop=answer.hop,
        )

    async def resolve(
        self, transfer: int, choice: Choice, *, at: str, epoch: int, reason: str, said: str
    ) -> Resolution:
        """Decide by the operator's word what no other instance can say any more; it is recorded for good.

        Args:
            choice: as of ``Resolution``.
            at: where the entity is, with ``gone``.
            epoch: under which it is there, as far as is known; 0: not.
            reason: why, 1 to 255 bytes.
            said: what the instances said of it, for the record; up to 16 KiB.
        """
        return Resolution.from_term(
            await self._requests.ask(
                "resolve_escrow",
                transfer=transfer,
                choice=Atom(choice),
                where=at.encode(),
                epoch=epoch,
                reason=name_bytes(reason),
                said=said.encode(),
            )
        )

    async def resolutions(self) -> list[Resolution]:
        """What operators have resolved, oldest first."""
        found = await self._store.get_many("/:bridge/:resolved/*/*")
        return sorted(map(Resolution.from_term, found.values()), key=lambda one: one.at_ms)

    async def noted(self, transfer: int) -> None:
        """The entity's home has heard where it went."""
        await self._requests.ask("escrow_noted", transfer=transfer)

    async def settled(self, instance: str, low: int) -> None:
        """The receiver has forgotten all transfers up to ``low``."""
        await self._requests.ask("escrow_settled", instance=instance.encode(), low=low)

    async def accept(self, instance: str, offer: Offer) -> Accepted | Refused:
        """Decide about an offer, once: the same answer as long as the giver's instance has not closed."""
        giver, endpoint = offer.giver, offer.giver.endpoint
        return _verdict(
            await self._requests.ask(
                "accept_escrow",
                instance=instance.encode(),
                transfer=int(offer.transfer),
                low=int(offer.low),
                entity=offer.entity.encode(),
                owner=offer.owner.encode(),
                master=offer.master.encode(),
                default_owner=_UNDEFINED if offer.default_owner is None else offer.default_owner.encode(),
                rule=Atom(offer.rule.value),
                home=offer.home.encode(),
                to=offer.to.encode(),
                box=offer.box.encode(),
                giver={
                    **servers_term([endpoint])[endpoint.server.encode()],
                    Atom("epoch"): int(giver.epoch),
                },
                **step_members(_read_step(offer)),
            )
        )

    async def refuse(self, instance: str, cancel: Cancel) -> Accepted | Refused:
        """Refuse what was not accepted before."""
        return _verdict(
            await self._requests.ask(
                "refuse_escrow",
                instance=instance.encode(),
                transfer=int(cancel.transfer),
                low=int(cancel.low),
                **step_members(_read_step(cancel)),
            )
        )

    async def settle(self, instance: str, low: str) -> Answer:
        """Forget what the giver's instance has closed."""
        await self._requests.ask("settle_escrow", instance=instance.encode(), low=int(low))
        return Settled(low=low)

    async def moved(self, instance: str, moved: Moved) -> Answer:
        """Note where an entity of this home is."""
        await self._requests.ask(
            "entity_moved",
            instance=instance.encode(),
            entity=moved.entity.encode(),
            at=moved.at.encode(),
            epoch=int(moved.epoch),
        )
        return Noted(entity=moved.entity)

    async def standing(self, instance: str, question: AskEntity) -> Standing:
        """What is known here of an entity, and of a transfer of another instance, in one moment."""
        marks: TreePath = [_BRIDGE, Atom("incoming"), instance.encode()]
        paths: list[TreePath] = [
            marks,
            [*marks, question.transfer.encode()],
            [_BRIDGE, Atom("entities"), question.entity.encode()],
        ]
        mark, answer, term = (
            next(iter(found.values()), None)
            for found in await self._store.transaction(list(map(GetMany, paths)))
        )
        record = None if term is None else EntityRecord.from_term(term)
        low = 0 if mark is None else mark[Atom("low")]
        return Standing(
            entity=question.entity,
            transfer=_decided(question, answer, low),
            place=_place(record),
            at=None if record is None or record.away is None else record.away.instance,
            home=None if record is None else record.home,
            epoch="0" if record is None else str(record.epoch),
        )

    async def servers(self) -> Answer:
        """The servers of this instance that have a session."""
        found = await self._store.get_many("/:bridge/:servers/*")
        records = [ServerRecord.from_term(term) for term in found.values()]
        present = [endpoint_of(record) for record in records if record.session is not None]
        return Servers(servers=sorted(present, key=lambda server: server.server))


def _decided(
    question: AskEntity, answer: Mapping[Any, Any] | None, low: int
) -> Literal["accepted", "refused", "settled", "unknown"]:
    if answer is not None:
        return "accepted" if answer[Atom("verdict")] == Atom("accepted") else "refused"
    return "settled" if int(question.transfer) <= low else "unknown"


def _place(record: EntityRecord | None) -> Literal["here", "escrow", "away", "none"]:
    if record is None:
        return "none"
    if record.away is None:
        return "here"
    return "escrow" if record.away.in_escrow else "away"


def _offer(term: Mapping[Any, Any]) -> Offer:
    giver = term[Atom("giver")]
    host, port = giver[Atom("address")]
    default = term[Atom("default_owner")]
    return Offer(
        transfer=str(term[Atom("transfer")]),
        low=str(term[Atom("low")]),
        entity=term[Atom("entity")].decode(),
        owner=term[Atom("owner")].decode(),
        master=term[Atom("master")].decode(),
        default_owner=None if default == _UNDEFINED else default.decode(),
        rule=Rule(str(term[Atom("rule")])),
        home=term[Atom("home")].decode(),
        to=term[Atom("to")].decode(),
        box=term[Atom("box")].decode(),
        giver=Giver(
            endpoint=Endpoint(
                server=giver[Atom("server")].decode(),
                session=base64url_encode(giver[Atom("session")]),
                key=giver[Atom("key")].decode(),
                thumbprint=giver[Atom("thumbprint")].decode(),
                host=host.decode(),
                port=port,
            ),
            epoch=str(giver[Atom("epoch")]),
        ),
        **_step(term),
    )


def _step(term: Mapping[Any, Any]) -> dict[str, Any]:
    """Of a message that the escrow causes: its record has that of the escrow itself."""
    return {"trace": base64url_encode(term[Atom("trace")]), "hop": term[Atom("hop")]}


def _read_step(question: Offer | Cancel) -> Step:
    return Step(trace=base64url_decode_untrusted(question.trace), hop=question.hop)


def _verdict(value: Mapping[Any, Any]) -> Accepted | Refused:
    transfer = str(value[Atom("transfer")])
    if value[Atom("verdict")] == Atom("accepted"):
        return Accepted(transfer=transfer, epoch=str(value[Atom("epoch")]), **_step(value))
    return Refused(transfer=transfer, reason=str(value[Atom("reason")]), **_step(value))
