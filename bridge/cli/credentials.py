"""``homeserver keygen|signer|certify|revoke``: the instance's key, and whose keys count."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.cli.output import Json, emit, example, progress
from bridge.cli.target import Target, on_store
from bridge.errors import ConfigurationError

if TYPE_CHECKING:
    from bridge.khepri import Khepri

KeyFile = Annotated[Path, typer.Option("--key", help="The instance's private key (0600).")]


def add_to(family: typer.Typer) -> None:
    """Add these commands to the family ``homeserver``."""
    example(family, "keygen", "khepri-bridge homeserver keygen --out instance.jwk")(keygen)
    example(
        family,
        "signer",
        "khepri-bridge homeserver signer --key instance.jwk --socket signer.sock --instance emerald",
    )(signer)
    example(
        family,
        "certify",
        "khepri-bridge homeserver certify alice --key instance.jwk --of alice.public.jwk --role operator",
    )(on_store(certify))
    example(family, "revoke", "khepri-bridge homeserver revoke THUMBPRINT --reason stolen")(on_store(revoke))


def keygen(
    out: Annotated[Path, typer.Option(help="File for the private key; made, never overwritten.")],
    as_json: Json = False,
) -> None:
    """Make a signing key for an instance."""
    from bridge.homeserver.signer.key_file import make_key_file

    public = make_key_file(out)
    emit(
        {"thumbprint": public.thumbprint(), "public": public.to_dict(), "private_file": str(out)},
        as_json=as_json,
        text=f"{out}, thumbprint {public.thumbprint()}",
    )


def signer(
    key: KeyFile,
    socket: Annotated[Path, typer.Option(help="Unix socket to answer at; for this user alone (0600).")],
    instance: Annotated[str, typer.Option(help="Name of the instance: for no other anything is signed.")],
    following: Annotated[
        list[Path] | None,
        typer.Option(
            "--next", help="A key that is to sign later: published now, so that everybody has it by then."
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="Group that may use the socket (0660), where the signer has a user of its own.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign what an instance's homeservers ask for, until it is ended; the only process with the key."""
    import asyncio
    import signal

    from bridge.homeserver.signer.hardening import harden
    from bridge.homeserver.signer.key_file import read_key_file
    from bridge.homeserver.signer.policy import SigningPolicy
    from bridge.homeserver.signer.server import serving_signer

    for missing in harden():
        progress(missing)
    current = read_key_file(key)
    policy = SigningPolicy(
        instance=instance, current=current, following=[read_key_file(file) for file in following or ()]
    )

    async def run() -> None:
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        async with serving_signer(policy, socket, group=group):
            thumbprint = current.thumbprint()
            emit(
                {"socket": str(socket), "thumbprint": thumbprint},
                as_json=as_json,
                text=f"signing for {instance} at {socket}, key {thumbprint}",
            )
            await ended.wait()

    asyncio.run(run())


def certify(
    target: Target,
    subject: Annotated[str, typer.Argument(help="Name of the player, the server or the operator.")],
    key: KeyFile,
    of: Annotated[Path, typer.Option("--of", help="The subject's public key, JWK or PEM.")],
    role: Annotated[str, typer.Option(help="player, server or operator.")] = "player",
    days: Annotated[int, typer.Option(help="Until it expires.", min=1, max=90)] = 30,
    as_json: Json = False,
) -> None:
    """Certify whose a key is, whoever had the name before; prints the certificate.

    It is signed here, from the key file: so an operator's certificate never comes from a running service.
    """
    import secrets
    import time

    from bridge.cli.key_file import read_key
    from bridge.errors import SignatureError
    from bridge.homeserver.signer.key_file import read_key_file
    from bridge.jose.credentials import Certificate
    from bridge.jose.credentials.claims import role_of
    from bridge.jose.credentials.token import encode_token
    from bridge.jose.encoding import base64url_encode
    from bridge.registry import Credentials, KeyState

    private, now = read_key_file(key), int(time.time())

    async def run(store: Khepri) -> Certificate:
        try:
            made = Certificate(
                subject=subject,
                role=role_of(role),
                key=read_key(of).public(),
                instance=(await store.health()).instance,
                issued_at=now,
                expires_at=now + days * 86_400,
                id=base64url_encode(secrets.token_bytes(16)),
            )
        except SignatureError as error:
            raise ConfigurationError(f"no certificate can be made of this: {error}") from error
        credentials = Credentials(store)
        published = {found.key.thumbprint() for found in await credentials.keys() if found.verifies(now)}
        if not published:
            found = await credentials.publish_key(private, KeyState.CURRENT)
            published = {private.thumbprint()} if found.verifies(now) else set()
        if private.thumbprint() not in published:
            raise ConfigurationError(f"{key} is none of the published keys: nobody would believe it")
        await credentials.enrol(made, operator=True)
        return made

    made = target.run(run)
    token = encode_token(Certificate.TYP, made.claims(), private)
    emit(
        {"certificate": token, "id": made.id, "thumbprint": made.thumbprint, "expires": made.expires_at},
        as_json=as_json,
        text=token,
    )


def revoke(
    target: Target,
    credential: Annotated[
        str, typer.Argument(help="Thumbprint of a key, or id of a certificate.", metavar="THUMBPRINT|ID")
    ],
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "revoked by the operator",
    as_json: Json = False,
) -> None:
    """Let a key or a certificate count no more, for good."""
    if len(credential) not in (43, 22):
        raise ConfigurationError(
            f"{credential!r:.100} is neither the thumbprint of a key (43 characters) nor the id of a "
            "certificate (22): `homeserver certify --json` and GET /v1/jwks.json tell them"
        )

    async def run(store: Khepri) -> None:
        from bridge.registry import Credentials

        await Credentials(store).revoke(credential, reason=reason)

    target.run(run)
    emit({"revoked": credential}, as_json=as_json, text=f"{credential} counts no more")
