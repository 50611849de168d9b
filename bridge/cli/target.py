"""Which store a command is about: that of a cluster of this machine, or of any other that is named."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, get_type_hints

import typer

from bridge.cli.cluster import Directory, Name, cluster_directory
from bridge.cli.connection import Way, local_way, node_config, open_store, read_cookie_file
from bridge.errors import ConfigurationError, InvalidStateError

if TYPE_CHECKING:
    from bridge.khepri import Khepri
    from bridge.node import TlsConfig

Result = TypeVar("Result")

_COOKIE_FILE: Final = "KB_COOKIE_FILE"
_STORE: Final = "homeserver"
_WITH_MEMBER: Final = (
    "cookie_file",
    "store",
    "epmd_port",
    "port",
    "node",
    "tls_certificate",
    "tls_key",
    "tls_authority",
)
"""options that a cluster of this machine needs none of: its state tells"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the options that every command on a store takes say; ``on_store`` adds them to a command."""

    name: Name = "local"
    directory: Directory = None
    member: Annotated[
        list[str] | None,
        typer.Option(
            help="Node name of a member, once or more, of a cluster that `up` did not start.",
            show_default=False,
        ),
    ] = None
    cookie_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the cookie (also: KB_COOKIE_FILE), with --member.",
            show_default="~/.erlang.cookie",
        ),
    ] = None
    store: Annotated[
        str | None, typer.Option(help="Id of the store, with --member.", show_default=_STORE)
    ] = None
    epmd_port: Annotated[
        int | None,
        typer.Option(
            help="Port of the members' port mapper, with --member.",
            min=1,
            max=65_535,
            show_default="ERL_EPMD_PORT, else 4369",
        ),
    ] = None
    port: Annotated[
        int | None,
        typer.Option(
            help="Port of the members, with --member, where no port mapper knows it.",
            min=1,
            max=65_535,
            show_default=False,
        ),
    ] = None
    node: Annotated[
        str | None,
        typer.Option(
            help="Name of this command's hidden node, with --member; no two commands have the same at once.",
            show_default="one on this host",
        ),
    ] = None
    tls_certificate: Annotated[
        Path | None,
        typer.Option(
            help="Certificate of this node (PEM); it and the next two make the connection TLS.",
            show_default=False,
        ),
    ] = None
    tls_key: Annotated[
        Path | None,
        typer.Option(help="Its private key.", show_default=False),
    ] = None
    tls_authority: Annotated[
        Path | None,
        typer.Option(help="The authority whose certificates are believed.", show_default=False),
    ] = None

    def way(self) -> Way:
        """How to get there.

        Raises:
            ConfigurationError: options that do not fit together, or a file that cannot be read.
            InvalidStateError: no cluster of that name runs on this machine.
        """
        if not self.member:
            return self._local_way()
        if self.directory is not None or self.name != "local":
            raise ConfigurationError("--member is for clusters elsewhere: leave --name and --dir out")
        from bridge.cluster.state import default_directory

        file = self.cookie_file or (Path(text) if (text := os.environ.get(_COOKIE_FILE)) else None)
        if file is None and not (Path.home() / ".erlang.cookie").is_file():
            raise ConfigurationError(
                f"no cookie: give --cookie-file, or set {_COOKIE_FILE}, or write it to ~/.erlang.cookie"
            )
        return Way(
            members=tuple(self.member),
            store=self.store or _STORE,
            cookie=read_cookie_file(file),
            config=node_config(epmd_port=self.epmd_port, port=self.port, tls=self._tls()),
            node=self.node,
            names=f"cli-{os.getuid()}-",
            slots=default_directory().parent / ".names",
        )

    def run(self, action: Callable[[Khepri], Awaitable[Result]]) -> Result:
        """Run one action against the store, and give what it returns.

        Raises:
            BridgeError: the store cannot be reached, or whatever the action raises.
        """
        import asyncio

        way = self.way()

        async def run() -> Result:
            async with open_store(way) as store:
                return await action(store)

        return asyncio.run(run())

    def _local_way(self) -> Way:
        from bridge.cluster.running import running_cluster

        for option in _WITH_MEMBER:
            if getattr(self, option) is not None:
                text = option.replace("_", "-")
                raise ConfigurationError(f"--{text} goes with --member: name a member of the cluster")
        place = cluster_directory(self.directory, self.name)
        try:
            state = running_cluster(place)
        except InvalidStateError as error:
            raise InvalidStateError(f"{error}, or name a member of another one with --member") from None
        return local_way(place, state)

    def _tls(self) -> TlsConfig | None:
        return tls_config(self.tls_certificate, self.tls_key, self.tls_authority)


def tls_config(certificate: Path | None, key: Path | None, authority: Path | None) -> TlsConfig | None:
    """What the three options of TLS say together; nothing where none is given.

    Raises:
        ConfigurationError: one or two of them, or a file that cannot be read.
    """
    from bridge.node import TlsConfig

    if certificate is not None and key is not None and authority is not None:
        return TlsConfig(certificate=certificate, key=key, authority=authority)
    if (certificate, key, authority) == (None, None, None):
        return None
    raise ConfigurationError("TLS takes --tls-certificate, --tls-key and --tls-authority, all three")


def on_store(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose first argument is a ``Target``, with the options that make one."""
    signature = inspect.signature(command)
    options = get_type_hints(Target, include_extras=True)
    own = {
        **get_type_hints(command, include_extras=True),
        "return": None,
    }
    parameters = [
        parameter.replace(annotation=own[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in list(signature.parameters.items())[1:]
    ]
    parameters += [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=Target.__dataclass_fields__[name].default,
            annotation=annotation,
        )
        for name, annotation in options.items()
    ]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        target = Target(**{name: values.pop(name) for name in options})
        command(target, **values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
