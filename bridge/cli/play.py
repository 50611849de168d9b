"""``demo``, ``replay``, ``sim``, ``history``: authority that changes hands."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.cli.cluster import Directory, LeaseMs, Name, cluster_directory
from bridge.cli.output import Json, emit, example, fail
from bridge.errors import ConfigurationError

if TYPE_CHECKING:
    from bridge.udp import NetworkConditions

_NODE_NAME = re.compile(r"[0-9A-Za-z_.-]{1,64}")
_DEMO_PASSES = 160
_DEMO_SECONDS = 20.0

Linger = Annotated[
    int,
    typer.Option(
        "--linger-ms",
        help="Let each former holder send on for so long after a hand-over, to be refused.",
        min=0,
        max=10_000,
    ),
]


def _check_network(text: str | None) -> str | None:
    from bridge.udp import NetworkConditions

    if text is not None:
        try:
            NetworkConditions.parse(text)
        except ConfigurationError as error:
            raise typer.BadParameter(str(error)) from error
    return text


Network = Annotated[
    str | None,
    typer.Option(
        "--network",
        metavar="SPEC",
        help="Send datagrams through a bad network, such as loss=5%,burst=4,delay=25ms,jitter=10ms. "
        "Also: duplicate=1% reorder=2% reorder_by=10ms rate=10mbit queue=64KiB partition=10s+5s seed=7.",
        envvar="KHEPRI_BRIDGE_NETWORK",
        callback=_check_network,
        show_default=False,
    ),
]
Record = Annotated[
    Path | None,
    typer.Option("--record", help="Directory for history.jsonl and messages.jsonl.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    example(app, "demo", "khepri-bridge demo --json")(demo)
    replays = typer.Typer(no_args_is_help=True, help="Replay recorded events through a cluster.")
    example(replays, "passes", "khepri-bridge replay passes --speed 60 --record record")(replay_passes)
    app.add_typer(replays, name="replay")
    example(app, "sim", "khepri-bridge sim --name sim1 --cluster local")(simulate)
    histories = typer.Typer(no_args_is_help=True, help="Check what servers recorded.")
    example(histories, "check", "khepri-bridge history check record/history.jsonl")(check_history)
    app.add_typer(histories, name="history")


def demo(
    passes: Annotated[int, typer.Option(help="Number of passes.", min=1, max=10_000)] = _DEMO_PASSES,
    seconds: Annotated[float, typer.Option(help="Length of play.", min=1, max=3_600)] = _DEMO_SECONDS,
    seed: Annotated[int, typer.Option(help="Seed of the generated match.")] = 1,
    linger_ms: Linger = 200,
    network: Network = None,
    lease_ms: LeaseMs = None,
    record: Record = None,
    as_json: Json = False,
) -> None:
    """Start three homeservers and two simulation servers, play a generated match, end with a table."""
    from bridge.cli.stage import play
    from bridge.sim.match import generate_match

    match = generate_match(passes=passes, seconds=seconds, seed=seed)
    asyncio_run(
        play(
            match,
            speed=1.0,
            linger_ms=linger_ms,
            network=_conditions(network),
            directory=None,
            lease_ms=lease_ms,
            sims=(),
            record=record,
            as_json=as_json,
        )
    )


def replay_passes(
    file: Annotated[
        Path | None, typer.Argument(help="Event file of a match; without one a match is generated.")
    ] = None,
    speed: Annotated[
        float, typer.Option(help="Time lapse: 60 plays an hour in a minute.", min=0.01, max=100_000)
    ] = 60.0,
    linger_ms: Linger = 200,
    network: Network = None,
    lease_ms: LeaseMs = None,
    name: Name = "local",
    directory: Directory = None,
    sims: Annotated[
        list[str] | None,
        typer.Option(
            "--sim",
            help="NAME=COMMAND that starts a simulation server elsewhere (twice or more); "
            "COMMAND ends in `khepri-bridge sim … --keep-history --commands`.",
            show_default=False,
        ),
    ] = None,
    record: Record = None,
    as_json: Json = False,
) -> None:
    """Replay the passes of a match; every one moves the ball's owner, and its authority where it crosses.

    A file is an event file as Metrica Sports publishes them, one row an event. Players are spread over two
    servers by turns, in the order of their names. A cluster that `up` started is used; where none runs, one
    is started for the replay.
    """
    from bridge.cli.stage import play
    from bridge.cluster.state import load_state
    from bridge.sim.match import generate_match, load_match

    match = load_match(file) if file is not None else generate_match(passes=800, seconds=5_700, seed=1)
    place = cluster_directory(directory, name)
    running = load_state(place) is not None
    asyncio_run(
        play(
            match,
            speed=speed,
            linger_ms=linger_ms,
            network=_conditions(network),
            directory=place if running else None,
            lease_ms=lease_ms,
            sims=tuple(sims or ()),
            record=record,
            as_json=as_json,
        )
    )


def simulate(
    server: Annotated[str, typer.Option("--name", help="Name of the simulation server.")],
    cluster: Annotated[
        str | None, typer.Option(help="Join this machine's cluster of that name.", show_default=False)
    ] = None,
    directory: Directory = None,
    node: Annotated[
        str | None, typer.Option(help="Name of the hidden node.", show_default="NAME@127.0.0.1")
    ] = None,
    member: Annotated[
        list[str] | None, typer.Option(help="Node name of a homeserver, once or more.", show_default=False)
    ] = None,
    cookie_file: Annotated[
        Path | None, typer.Option(help="File with the cookie.", show_default="~/.erlang.cookie")
    ] = None,
    epmd_port: Annotated[int, typer.Option(help="Port of the port mapper.")] = 4369,
    register: Annotated[
        bool, typer.Option(help="Tell this host's port mapper; a host without Erlang has none.")
    ] = True,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(
            help="Certificate of this host (PEM); with the next two, connections to homeservers are TLS.",
            show_default=False,
        ),
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key.", show_default=False)] = None,
    tls_authority: Annotated[
        Path | None,
        typer.Option(help="The authority whose certificates are believed.", show_default=False),
    ] = None,
    store: Annotated[str, typer.Option(help="Id of the store.")] = "homeserver",
    host: Annotated[
        str, typer.Option(help="Numeric address for state datagrams; other servers are told it.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="UDP port; 0 takes a free one.", min=0, max=65_535)] = 0,
    key_file: Annotated[
        Path | None,
        typer.Option(help="Private key on P-256, PEM or JWK; made where there is none.", show_default=False),
    ] = None,
    signed: Annotated[
        bool, typer.Option("--signed", help="Sign the state sent, so that it can be shown to others.")
    ] = False,
    linger_ms: Linger = 0,
    network: Network = None,
    record_dir: Annotated[
        Path | None,
        typer.Option(
            help="Directory for a record that survives a kill: requests, answers, acts (`history check`).",
            show_default=False,
        ),
    ] = None,
    mesh: Annotated[
        Path | None,
        typer.Option(
            help="Zones of a mesh of servers, the same file at all of them (TOML): docs/guide-sim.md.",
            show_default=False,
        ),
    ] = None,
    shed: Annotated[
        bool,
        typer.Option(
            "--shed",
            help="Give entities to servers with less to do while this one has too much (also below).",
        ),
    ] = False,
    shed_entities: Annotated[
        int | None,
        typer.Option(
            help="Shed while more entities are held; four fifths of it are taken from others that shed.",
            min=1,
            show_default="as many as there is room for",
        ),
    ] = None,
    shed_busy: Annotated[
        float | None,
        typer.Option(
            help="Shed while simulation steps take more than this share of their period, above 0 to 1.",
            min=0.01,
            max=1.0,
            show_default="1.0",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Address and TCP port, or a port of this machine alone, where Prometheus finds metrics of "
            "this server; port 0 takes a free one, which `started` tells.",
            metavar="[HOST:]PORT",
            show_default=False,
        ),
    ] = None,
    keep_history: Annotated[
        bool,
        typer.Option(
            "--keep-history",
            help="Keep all records in memory for `report`, not the newest 1,024: for replays and tests.",
        ),
    ] = False,
    commands: Annotated[
        bool,
        typer.Option(
            "--commands", help="Read commands from standard input, one JSON object a line: docs/guide-sim.md."
        ),
    ] = False,
) -> None:
    """Run a simulation server until Ctrl-C, or the end of its commands; events go to standard output."""
    from bridge.cli.connection import read_cookie_file
    from bridge.cli.target import tls_config
    from bridge.sim.config import SimulationConfig
    from bridge.sim.local_config import local_config
    from bridge.sim.mesh_file import load_mesh
    from bridge.sim.stdio import serve

    layout = None if mesh is None else load_mesh(mesh)
    if node is None and not _NODE_NAME.fullmatch(server):
        fail(f"{server!r:.80} cannot be part of a node's name: name one with --node, too", status=2)
    node_name = node or f"{server}@127.0.0.1"
    if cluster is not None or directory is not None:
        if member or cookie_file or tls_certificate or tls_key or tls_authority:
            fail(
                "--member, --cookie-file and --tls-… are for clusters elsewhere: leave out --cluster",
                status=2,
            )
        config = local_config(server, cluster=cluster_directory(directory, cluster or "local"))
    else:
        if not member:
            fail("name a homeserver with --member, or a cluster of this machine with --cluster", status=2)
        config = SimulationConfig(
            name=server,
            node=node_name,
            members=tuple(member),
            cookie=read_cookie_file(cookie_file),
            epmd_port=epmd_port,
            register=register,
            tls=tls_config(tls_certificate, tls_key, tls_authority),
            store=store,
        )
    config = replace(
        config,
        node=node_name,
        host=host,
        port=port,
        key_file=config.key_file if key_file is None else str(key_file),
        network=_conditions(network),
        signed=signed,
        mesh=layout,
        linger_ms=linger_ms,
        record_dir=None if record_dir is None else str(record_dir),
        keep_history=keep_history,
        shed=shed or shed_entities is not None or shed_busy is not None,
        max_entities=shed_entities,
        max_busy=1.0 if shed_busy is None else shed_busy,
    )
    # To be asked to end is how a server ends in order, and no failure.
    with contextlib.suppress(KeyboardInterrupt):
        asyncio_run(serve(config, commands=commands, metrics=metrics))


def _conditions(text: str | None) -> NetworkConditions | None:
    from bridge.udp import NetworkConditions

    return NetworkConditions.parse(text) if text else None


def check_history(
    files: Annotated[
        list[str],
        typer.Argument(
            help="History files of one run: of all its servers and clients. INSTANCE=FILE for servers of "
            "several instances.",
            metavar="FILES...",
        ),
    ],
    as_json: Json = False,
) -> None:
    """Prove from the records that no two servers held an entity at once, and that answers are linearizable.

    Prints the counter-example where there is one, the shortest first. Across instances acts are checked, and
    what was accepted; answers are of one instance, and checked where its files are given alone. What nobody
    recorded cannot be explained: changes by REST or by `khepri-bridge entity`, and servers without
    --record-dir, make answers look wrong.
    """
    from bridge.authority import check
    from bridge.cli.record import read_history_of

    entries = [entry for file in files for entry in read_history_of(file)]
    if not entries:
        raise ConfigurationError(f"nothing was recorded in {', '.join(files)}: there is nothing to check")
    verdict = check(entries)
    kept = (
        f"{verdict.acts} acts: no two holders at an instant, nothing stale accepted, no state changed\n"
        f"{verdict.operations} operations, {verdict.unanswered} without a known end: linearizable, no "
        "acknowledged grant lost, no entity lost or doubled"
    )
    unsure = [f"UNDECIDED {entity}: too many orders to be searched" for entity in verdict.undecided]
    if verdict.not_linearizable:
        unsure.append(
            "Were all requests recorded, and all files given? One that was not, such as by REST or by "
            "`khepri-bridge entity`, also looks like that."
        )
    emit(
        {
            "acts": verdict.acts,
            "operations": verdict.operations,
            "unanswered": verdict.unanswered,
            "double_holders": len(verdict.double_holders),
            "stale_acceptances": len(verdict.stale_acceptances),
            "lost_grants": len(verdict.lost_grants),
            "changed_states": len(verdict.changed_states),
            "not_linearizable": len(verdict.not_linearizable),
            "lost_entities": len(verdict.lost_entities),
            "doubled_entities": len(verdict.doubled_entities),
            "undecided": verdict.undecided,
            "travelled": verdict.travelled,
            "deleted": verdict.deleted,
            "violations": [violation.text for violation in verdict.violations],
        },
        as_json=as_json,
        text="\n".join([*(f"VIOLATED {v.rule}: {v.text}" for v in verdict.violations), *unsure]) or kept,
    )
    if verdict.violations or verdict.undecided:
        raise typer.Exit(1)


def asyncio_run(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on the fast event loop; Ctrl-C and SIGTERM cancel it, so that everything is closed.

    Raises:
        KeyboardInterrupt: after either.
    """
    import uvloop

    # Also for the first process of a container, which a signal without a handler does not reach.
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work)
    finally:
        signal.signal(signal.SIGTERM, before)
