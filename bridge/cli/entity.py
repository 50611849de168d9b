"""``entity …``: who owns, masters and simulates an entity; what master and operator change about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.cli.output import Json, emit, example, table
from bridge.cli.target import Target, on_store

if TYPE_CHECKING:
    from bridge.registry import EntityRecord, Ownership, Party

EntityName = Annotated[str, typer.Argument(metavar="ENTITY", help="Name of the entity.")]
Player = Annotated[str, typer.Argument(metavar="PLAYER", help="Name of a player.")]
By = Annotated[str | None, typer.Option(help="In the name of this player.", show_default="as the operator")]


class RuleName(StrEnum):
    """Words of the command line; ``bridge.authority`` is imported only where a command runs."""

    ALLOW = "allow"
    DENY = "deny"
    ASK = "ask"


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    family = typer.Typer(
        help="Owner, master and authority of an entity.", no_args_is_help=True, rich_markup_mode=None
    )
    example(family, "show", "khepri-bridge entity show ball")(on_store(show))
    example(family, "rule", "khepri-bridge entity rule ball ask --by Player1")(on_store(rule))
    example(family, "master", "khepri-bridge entity master ball Player2")(on_store(master))
    example(family, "transfer", "khepri-bridge entity transfer ball Player2 --by Player1")(on_store(transfer))
    example(family, "revoke", "khepri-bridge entity revoke ball --by Player1")(on_store(revoke))
    example(family, "delete", "khepri-bridge entity delete ball --by Player1")(on_store(delete))
    app.add_typer(family, name="entity")


def show(target: Target, entity: EntityName, as_json: Json = False) -> None:
    """Who owns it, who masters it by which rule, and who simulates it.

    A server that got it from another one, which awaiting names, acts once that one has released it. The
    homeservers are not told when; so awaiting stays until the entity changes hands again.
    """
    _print(target, lambda players, _: players.entity(entity), None, as_json=as_json)


def rule(
    target: Target,
    entity: EntityName,
    rule: Annotated[RuleName, typer.Argument(metavar="RULE", help="allow, deny or ask.")],
    by: By = None,
    as_json: Json = False,
) -> None:
    """Change what happens when another player asks for it."""
    from bridge.registry import Rule

    _print(target, lambda players, who: players.set_rule(entity, Rule(rule), by=who), by, as_json=as_json)


def master(target: Target, entity: EntityName, player: Player, by: By = None, as_json: Json = False) -> None:
    """Name another master."""
    _print(target, lambda players, who: players.set_master(entity, player, by=who), by, as_json=as_json)


def transfer(
    target: Target, entity: EntityName, player: Player, by: By = None, as_json: Json = False
) -> None:
    """Give it to a player; who simulates it stays."""
    _print(target, lambda players, who: players.transfer(entity, player, by=who), by, as_json=as_json)


def revoke(target: Target, entity: EntityName, by: By = None, as_json: Json = False) -> None:
    """Take it back from its owner, to its default owner or its master."""
    _print(target, lambda players, who: players.revoke(entity, by=who), by, as_json=as_json)


def delete(target: Target, entity: EntityName, by: By = None, as_json: Json = False) -> None:
    """Let there be no such entity any more; prints its last record.

    Who simulates it stops. Its name is free again once that has been said.
    """
    _print(target, lambda players, who: players.delete_entity(entity, by=who), by, as_json=as_json)


def _print(
    target: Target,
    action: Callable[[Ownership, Party], Awaitable[EntityRecord]],
    by: str | None,
    *,
    as_json: bool,
) -> None:
    from bridge.registry import OPERATOR, Ownership

    record = target.run(lambda store: action(Ownership(store), OPERATOR if by is None else by))
    awaiting = None if record.awaiting is None else record.awaiting.server
    result = {
        "entity": record.entity,
        "owner": record.owner,
        "master": record.master,
        "default_owner": record.default_owner,
        "rule": record.rule.value,
        "server": record.server,
        "awaiting": awaiting,
        "epoch": record.epoch,
        "home": record.home,
        "away": None if record.away is None else record.away.instance,
        "version": record.version,
    }
    rows = [(name, "none" if value is None else str(value)) for name, value in result.items()]
    emit(result, as_json=as_json, text=table(("what", "now"), rows))
