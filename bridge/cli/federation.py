"""``federation …``: which other instances are trusted, and what is on its way to them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.cli.output import Json, emit, example, table
from bridge.cli.target import Target, on_store
from bridge.errors import ConfigurationError

if TYPE_CHECKING:
    from bridge.jose import Jwk
    from bridge.khepri import Khepri

InstanceName = Annotated[str, typer.Argument(metavar="INSTANCE", help="Name of the other instance.")]


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    family = typer.Typer(
        help="Instances that trust each other, and entities that pass between them.",
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
    from bridge.cli.box import read_key
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
    transfer: Annotated[str, typer.Argument(metavar="TRANSFER", help="Its number, as list prints it.")],
    as_json: Json = False,
) -> None:
    """Ask the receiver to refuse: the entity comes back, unless it was accepted before."""
    from bridge.homeserver.federation import Escrows

    if not transfer.isascii() or not transfer.isdigit() or not 1 <= int(transfer) < 2**64:
        raise ConfigurationError(f"{transfer!r:.40} is no number of a transfer")
    state = target.run(lambda store: Escrows(store).cancel(int(transfer)))
    text = {
        "cancelling": "the receiver is asked to refuse",
        "notice": "it was accepted before",
        "closed": "it is over",
    }.get(state, state)
    emit({"transfer": transfer, "state": state}, as_json=as_json, text=f"{transfer}: {text}")
