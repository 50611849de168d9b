"""``federation …``: which other instances are trusted, and what is on its way to them."""

from __future__ import annotations

import contextlib
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.cli.output import Json, emit, example, table
from bridge.cli.target import Target, on_store
from bridge.errors import ConfigurationError

if TYPE_CHECKING:
    from bridge.homeserver.federation.resolving import Judgement, Knowledge
    from bridge.jose import Jwk
    from bridge.khepri import Khepri

TransferNumber = Annotated[str, typer.Argument(metavar="TRANSFER", help="Its number, as list prints it.")]
InstanceName = Annotated[str, typer.Argument(metavar="INSTANCE", help="Name of the other instance.")]


class Became(StrEnum):
    """What an operator says became of an entity."""

    BACK = "back"
    GONE = "gone"
    FORGET = "forget"


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    family = typer.Typer(
        help="Instances that trust each other, and what passes between them.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    peer = typer.Typer(help="Instances that are trusted here.", no_args_is_help=True, rich_markup_mode=None)
    example(
        peer, "add", "khepri-bridge federation peer add ruby --url https://ruby.example:8443 --key ruby.jwk"
    )(on_store(add))
    example(peer, "list", "khepri-bridge federation peer list")(on_store(list_peers))
    example(peer, "remove", "khepri-bridge federation peer remove ruby")(on_store(remove))
    family.add_typer(peer, name="peer")
    escrow = typer.Typer(
        help="Entities that another instance has yet to decide about.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    example(escrow, "list", "khepri-bridge federation escrow list")(on_store(list_escrows))
    example(escrow, "cancel", "khepri-bridge federation escrow cancel 281474976710657")(on_store(cancel))
    example(
        escrow,
        "resolve",
        "khepri-bridge federation escrow resolve 281474976710657 --signer emerald.sock --as back "
        '--reason "ruby was restored, and has no ball"',
    )(on_store(resolve))
    example(escrow, "resolved", "khepri-bridge federation escrow resolved")(on_store(list_resolutions))
    family.add_typer(escrow, name="escrow")
    app.add_typer(family, name="federation")


def add(
    target: Target,
    instance: InstanceName,
    url: Annotated[
        list[str],
        typer.Option(help="Of its REST service, once or more: https, or http on this machine."),
    ],
    key: Annotated[
        list[Path] | None,
        typer.Option(
            help="Its public signing key, JWK or PEM, as its operator gave it; once or more.",
            show_default=False,
        ),
    ] = None,
    thumbprint: Annotated[
        list[str] | None,
        typer.Option(
            help="Or the key's thumbprint: the key is then fetched from the instance, and must have it.",
            show_default=False,
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            help="Authority that its TLS must show, or its self-signed certificate (PEM).",
            show_default="the system's authorities",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Trust an instance: take entities from it, and give it some. What was pinned of it is replaced."""
    from bridge.cli.key_file import read_key
    from bridge.homeserver.federation import Escrows, Peer
    from bridge.homeserver.federation.link import fetch_keys, tls_context

    if not key and not thumbprint:
        raise ConfigurationError(
            "which key is its? Give --key FILE, or the --thumbprint that its operator says"
        )
    pinned = [read_key(file).public() for file in key or ()]
    authority = None if ca is None else ca.read_text(encoding="ascii", errors="replace")
    # Here, where somebody reads it, and not when the first entity goes.
    tls_context(authority)

    async def run(store: Khepri) -> Peer:
        found: list[Jwk] = pinned
        if thumbprint:
            found = pinned + await fetch_keys(url[0], thumbprint, ca=authority)
        now = int(time.time())
        peer = Peer(instance=instance, urls=tuple(url), keys=tuple(found), ca=authority, since=now)
        await Escrows(store).pin(peer)
        return peer

    peer = target.run(run)
    thumbprints = [pinned.thumbprint() for pinned in peer.keys]
    emit(
        {"instance": peer.instance, "urls": list(peer.urls), "keys": thumbprints},
        as_json=as_json,
        text=f"{peer.instance} is trusted under {', '.join(thumbprints)}",
    )


def list_peers(target: Target, as_json: Json = False) -> None:
    """Print who is trusted, and by which keys."""
    from bridge.homeserver.federation import Escrows

    peers = target.run(lambda store: Escrows(store).peers())
    rows = [
        (peer.instance, " ".join(peer.urls), " ".join(key.thumbprint() for key in peer.keys))
        for peer in peers
    ]
    emit(
        {
            "peers": [
                {
                    "instance": peer.instance,
                    "urls": list(peer.urls),
                    "keys": [key.thumbprint() for key in peer.keys],
                }
                for peer in peers
            ]
        },
        as_json=as_json,
        text=table(("INSTANCE", "URLS", "KEYS"), rows) if rows else "no instance is trusted",
    )


def remove(
    target: Target,
    instance: InstanceName,
    anyway: Annotated[
        bool,
        typer.Option(
            "--anyway",
            help="Also where it may not have heard yet that entities of its escrow came here: never pin it "
            "again then, or these are in both.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Trust an instance no more; refused while something is in escrow, for it or of it."""
    from bridge.homeserver.federation import Escrows

    target.run(lambda store: Escrows(store).unpin(instance, anyway=anyway))
    emit({"instance": instance}, as_json=as_json, text=f"{instance} is trusted no more")


def list_escrows(target: Target, as_json: Json = False) -> None:
    """Print what is on its way, and who has yet to decide."""
    from bridge.homeserver.federation import Escrows

    escrows = target.run(lambda store: Escrows(store).escrows())
    rows = [(str(e.transfer), e.entity, e.instance, e.state, e.asked) for e in escrows]
    emit(
        {
            "escrows": [
                {
                    "transfer": str(escrow.transfer),
                    "entity": escrow.entity,
                    "instance": escrow.instance,
                    "state": escrow.state,
                    "asked": escrow.asked,
                }
                for escrow in escrows
            ]
        },
        as_json=as_json,
        text=table(("TRANSFER", "ENTITY", "TO", "STATE", "ASKED"), rows) if rows else "nothing is in escrow",
    )


def cancel(
    target: Target,
    transfer: TransferNumber,
    as_json: Json = False,
) -> None:
    """Ask the receiver to refuse: the entity comes back, unless it was accepted before."""
    from bridge.homeserver.federation import Escrows

    number = _number(transfer)
    state = target.run(lambda store: Escrows(store).cancel(number))
    text = {
        "cancelling": "the receiver is asked to refuse",
        "notice": "it was accepted before",
        "closed": "it is over",
    }.get(state, state)
    emit({"transfer": transfer, "state": state}, as_json=as_json, text=f"{transfer}: {text}")


def resolve(
    target: Target,
    transfer: TransferNumber,
    signer: Annotated[
        Path | None,
        typer.Option(
            help="Socket of `homeserver signer`, to ask the other instances; without it none is asked.",
            show_default=False,
        ),
    ] = None,
    choice: Annotated[
        Became | None,
        typer.Option(
            "--as",
            help="back: it is this instance's again; gone: another one has it; forget: of an entity that was "
            "passed on, its home need not hear where it is. Without it what is known is printed, and nothing "
            "is done.",
            show_default=False,
        ),
    ] = None,
    reason: Annotated[
        str | None, typer.Option(help="Why, for the record; must be given with --as.", show_default=False)
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="INSTANCE", help="Which one has it, with gone.", show_default="its receiver"),
    ] = None,
    anyway: Annotated[
        bool,
        typer.Option(
            "--anyway",
            help="Also where an instance does not say what it has: you know by its operator that this "
            "neither doubles nor loses the entity.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what became of an entity in escrow that neither side can say any more, as after a restore.

    What this and every other trusted instance knows of it is printed first. Refused where the entity would be
    doubled, as far as they say, and where the transfer goes on by itself.
    """
    from msgspec import to_builtins

    number = _number(transfer)
    if choice is not None and not (reason or "").strip():
        raise ConfigurationError("what became of it takes a --reason, which is kept")
    knowledge, judgement = target.run(
        lambda store: _resolved(store, number, signer, choice, reason or "", at, anyway)
    )
    escrow = knowledge.escrow
    lines = [
        f"{knowledge.here} has {escrow.entity} (home {knowledge.home}) in escrow for {escrow.instance}: "
        f"{escrow.state}",
        *map(str, knowledge.sayings),
    ]
    if judgement is not None:
        if objections := [*judgement.refusals, *(() if anyway else judgement.doubts)]:
            hint = "" if judgement.refusals else "\nif you know better by its operator: --anyway"
            told = "\n".join([*lines, *(f"not resolved: {one}" for one in objections)])
            raise ConfigurationError(told + hint)
        lines.append(f"resolved: {choice}")
    emit(
        {
            "transfer": transfer,
            "entity": escrow.entity,
            "instance": escrow.instance,
            "home": knowledge.home,
            "state": escrow.state,
            "says": {
                saying.instance: saying.problem if saying.standing is None else to_builtins(saying.standing)
                for saying in knowledge.sayings
            },
            "resolved": None if choice is None else choice.value,
        },
        as_json=as_json,
        text="\n".join(lines),
    )


async def _resolved(
    store: Khepri,
    transfer: int,
    signer: Path | None,
    choice: Became | None,
    reason: str,
    at: str | None,
    anyway: bool,
) -> tuple[Knowledge, Judgement | None]:
    """What is known, and what came of the choice, if one was made."""
    from bridge.homeserver.federation import Escrows
    from bridge.homeserver.federation.resolving import judge

    knowledge = await _ask_around(store, transfer, signer)
    if choice is None:
        return knowledge, None
    place = at or knowledge.escrow.instance
    judgement = judge(knowledge, choice.value, at=place)
    if not judgement.refusals and (anyway or not judgement.doubts):
        await Escrows(store).resolve(
            transfer,
            choice.value,
            at=place,
            epoch=judgement.epoch,
            reason=reason,
            said=knowledge.recorded(),
        )
    return knowledge, judgement


async def _ask_around(store: Khepri, transfer: int, signer: Path | None) -> Knowledge:
    from bridge.homeserver.federation import Escrows, HttpLink
    from bridge.homeserver.federation.asking import Asker
    from bridge.homeserver.federation.resolving import ask_around
    from bridge.homeserver.signer.client import SignerClient
    from bridge.registry.requests import Requests

    escrows = Escrows(store)
    found = [escrow for escrow in await escrows.escrows() if escrow.transfer == transfer]
    if not found:
        raise ConfigurationError(f"nothing is in escrow under the number {transfer} (any more)")
    here = (await store.health()).instance
    home = (await Requests(store).entity(found[0].entity)).home
    peers = [peer.instance for peer in await escrows.peers()]
    async with contextlib.AsyncExitStack() as stack:
        asker = None
        if signer is not None:
            key = await stack.enter_async_context(SignerClient(signer))
            link = await stack.enter_async_context(HttpLink())
            asker = Asker(escrows, instance=here, signer=key, link=link)
        return await ask_around(asker, here=here, escrow=found[0], home=home, peers=peers)


def list_resolutions(target: Target, as_json: Json = False) -> None:
    """Print what was resolved by operators, and why."""
    from bridge.homeserver.federation import Escrows

    found = target.run(lambda store: Escrows(store).resolutions())
    rows = [(str(one.transfer), one.entity, one.instance, one.choice, one.at, one.reason) for one in found]
    emit(
        {
            "resolved": [
                {
                    "transfer": str(one.transfer),
                    "entity": one.entity,
                    "instance": one.instance,
                    "choice": one.choice,
                    "at": one.at,
                    "epoch": str(one.epoch),
                    "reason": one.reason,
                    "said": one.said,
                    "at_ms": one.at_ms,
                }
                for one in found
            ]
        },
        as_json=as_json,
        text=table(("TRANSFER", "ENTITY", "TO", "AS", "AT", "REASON"), rows)
        if rows
        else "nothing was resolved",
    )


def _number(transfer: str) -> int:
    if not transfer.isascii() or not transfer.isdigit() or not 1 <= int(transfer) < 2**64:
        raise ConfigurationError(f"{transfer!r:.40} is no number of a transfer")
    return int(transfer)
