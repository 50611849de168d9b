"""``homeserver …``: what runs beside the homeservers of an instance: its REST service."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.cli import credentials
from bridge.cli.output import Json, emit, example
from bridge.cli.target import Target, on_store

if TYPE_CHECKING:
    from bridge.khepri import Khepri


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    family = typer.Typer(
        help="The REST service of an instance, and its credentials.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    example(family, "serve", "khepri-bridge homeserver serve --listen 8080")(on_store(serve))
    credentials.add_to(family)
    app.add_typer(family, name="homeserver")


def serve(
    target: Target,
    listen: Annotated[
        str,
        typer.Option(
            help="Address and TCP port to listen on; beyond this machine only with TLS.", metavar="HOST:PORT"
        ),
    ] = "127.0.0.1:8080",
    https_cert: Annotated[
        Path | None,
        typer.Option(help="Certificate (PEM) to show to whom connects, for TLS.", show_default=False),
    ] = None,
    https_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).", show_default=False)] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            help="Address or network of a balancer whose X-Forwarded-For is believed, once or more.",
            show_default=False,
        ),
    ] = None,
    signer: Annotated[
        Path | None,
        typer.Option(
            help="Socket of `homeserver signer`: with it this process gives certificates, tokens, tickets, "
            "answers other instances, and carries what is in escrow for them.",
            show_default=False,
        ),
    ] = None,
    open_registration: Annotated[
        bool,
        typer.Option("--open-registration", help="Let anybody register a name for a player that nobody has."),
    ] = False,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Address and TCP port where Prometheus finds metrics of the instance and this process, "
            "for a network of the operator's own.",
            metavar="HOST:PORT",
            show_default=False,
        ),
    ] = None,
    record_dir: Annotated[
        Path | None,
        typer.Option(
            help="Record requests and answers there, for `history check`: a file of each run, before "
            "requests are sent.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve the instance by REST until it is ended; run several behind a balancer.

    It keeps nothing: any process answers any request. The options --tls-… are of its connection to the
    cluster, --https-… of what connects to it.
    """
    from bridge.homeserver.issuing import IssuingSettings
    from bridge.homeserver.rest.serve import Listening

    listening = Listening.at(
        listen, tls_certificate=https_cert, tls_key=https_key, proxies=tuple(proxy or ())
    )
    issuing = IssuingSettings(open_registration=open_registration)

    async def run(store: Khepri) -> None:
        from bridge.homeserver.federation.service import federating
        from bridge.homeserver.metrics import exposing
        from bridge.homeserver.rest.app import create_app
        from bridge.homeserver.rest.serve import serving, store_context
        from bridge.homeserver.signer.client import SignerClient
        from bridge.registry.journal import recording
        from bridge.registry.trust import Trust

        async with contextlib.AsyncExitStack() as stack:
            trust = await stack.enter_async_context(Trust(store))
            key = None if signer is None else await stack.enter_async_context(SignerClient(signer))
            journal = None if record_dir is None else stack.enter_context(recording(record_dir))
            context = await store_context(store, trust=trust, signer=key, issuing=issuing, journal=journal)
            if context.issuing is not None:
                await stack.enter_async_context(context.issuing.publishing())
            if key is not None:
                desk = await stack.enter_async_context(
                    federating(store, instance=context.instance, signer=key, registry=context.registry)
                )
                context = replace(context, desk=desk)
            if metrics is not None:
                await stack.enter_async_context(exposing(metrics, store, context.registry))
            url, ended = await stack.enter_async_context(serving(create_app(context), listening))
            emit({"url": url}, as_json=as_json, text=f"serving {url}")
            await ended

    target.run(run)
