"""Scenes: which servers simulate a place, and whether their addresses are told to everybody (R1-3).

A scene lies in the tree below ``/:scenes``, outside of what the homeservers keep for themselves: it is the
operator's word on where players go, and no rule of authority depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Path, Response
from pydantic import BaseModel, Field, StrictBool

from bridge.etf import Atom
from bridge.homeserver.rest.authentication import Anyone, OperatorOnly
from bridge.homeserver.rest.context import Context, Here
from bridge.homeserver.rest.idempotency import Writes
from bridge.homeserver.rest.paging import DEFAULT_LIMIT, After, Limit, Page, names_below, page_of
from bridge.homeserver.rest.problems import ProblemError, problem_of
from bridge.homeserver.rest.reading import Fresh, record_at, records_at
from bridge.homeserver.rest.shapes import Name
from bridge.khepri import (
    CompareAndSwap,
    Create,
    DataMatches,
    Delete,
    Get,
    MismatchingNodeError,
    NodeNotFoundError,
    Operation,
)
from bridge.khepri import Path as TreePath

router = APIRouter(prefix="/v1/scenes", tags=["scenes"])

SCENES: Final = Atom("scenes")
MAX_SERVERS: Final = 256
"""of one scene"""
_NEVER: Final = Atom("never")
"""what no scene is in the tree"""

CHANGED: Final[dict[int | str, dict[str, Any]]] = {
    412: problem_of("The scene is no longer at the version of If-Match")
}

SceneName = Annotated[Name, Path(description="Name of a scene.", examples=["pitch"])]
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match", max_length=100, description="Change only this version: the ETag as it was told."
    ),
]


class SceneContent(BaseModel):
    """What an operator says of a scene."""

    servers: list[Name] = Field(
        max_length=MAX_SERVERS, description="Who simulates it.", examples=[["sim1", "sim2"]]
    )
    hand_out: StrictBool = Field(
        default=True,
        description="Whether everybody is told these servers' addresses; else with tickets and peer tokens.",
    )


class Scene(SceneContent):
    """A place that servers simulate."""

    scene: str = Field(examples=["pitch"])
    version: int = Field(description="Rises with every change; also the ETag.", ge=1)


class ScenePage(Page):
    """Some scenes, by name."""

    scenes: list[Scene]


@router.get("", dependencies=[Fresh])
async def scenes(here: Here, _: Anyone, after: After = None, limit: Limit = DEFAULT_LIMIT) -> ScenePage:
    """List the scenes."""
    names, following = page_of(await names_below(here, [SCENES]), after, limit)
    found = await records_at(here, map(_path, names))
    return ScenePage(scenes=[scene_of(term) for term in found], next=following)


@router.get("/{scene}", dependencies=[Fresh])
async def show(scene: SceneName, here: Here, _: Anyone, response: Response) -> Scene:
    """Tell who simulates a scene."""
    term = await record_at(here, _path(scene))
    if term is None:
        raise _none(scene)
    found = scene_of(term)
    response.headers["ETag"] = f'"{found.version}"'
    return found


@router.put("/{scene}", responses={201: {"description": "It is new", "model": Scene}, **CHANGED})
async def put(
    scene: SceneName,
    body: SceneContent,
    here: Here,
    _: OperatorOnly,
    writes: Writes,
    response: Response,
    known: IfMatch = None,
) -> Scene:
    """Make a scene, or change it."""
    before = await record_at(here, _path(scene), current=True)
    body.servers = list(dict.fromkeys(body.servers))
    if before is not None and SceneContent(**scene_of(before).model_dump()) == body:
        # So a repeat is no change either.
        response.headers["ETag"] = f'"{before[Atom("version")]}"'
        return scene_of(before)
    made = Scene(
        scene=scene,
        servers=body.servers,
        hand_out=body.hand_out,
        version=1 if before is None else before[Atom("version")] + 1,
    )
    refusal = _refusal(known, before, scene)
    operation: Operation
    if refusal is not None:
        operation = CompareAndSwap(_path(scene), _NEVER, _term(made))
    elif before is None:
        operation = Create(_path(scene), _term(made))
    else:
        operation = CompareAndSwap(_path(scene), before, _term(made))
    # Of a repeat it is what the first one made, whatever has become of it.
    _, term = await _write(writes, scene, operation, Get(_path(scene)), refusal=refusal)
    made = scene_of(term)
    response.status_code = 201 if made.version == 1 else 200
    response.headers["ETag"] = f'"{made.version}"'
    return made


@router.delete("/{scene}", status_code=204, responses=CHANGED)
async def delete(
    scene: SceneName, here: Here, _: OperatorOnly, writes: Writes, known: IfMatch = None
) -> None:
    """Forget a scene; its servers stay."""
    before = await record_at(here, _path(scene), current=True)
    refusal = _none(scene) if before is None else _refusal(known, before, scene)
    expected = _NEVER if refusal is not None else before
    same = CompareAndSwap(_path(scene), expected, expected)
    await _write(writes, scene, same, Delete(_path(scene)), refusal=refusal)


async def hides_address(here: Context) -> set[str]:
    """Servers of scenes whose addresses are not told to everybody; other scenes stay where they are."""
    hiding = await here.store.get_many([SCENES, DataMatches({Atom("hand_out"): False})])
    return {server for scene in map(scene_of, hiding.values()) for server in scene.servers}


async def _write(
    writes: Writes, scene: str, *operations: Operation, refusal: ProblemError | None
) -> list[Any]:
    """Make a change, or say why not.

    Args:
        refusal: why it is not to be made now, if so; the operations fail then. Under a key they are sent all
            the same: it may have been made before, and a repeat hears of that.
    """
    if refusal is not None and writes.operations is None:
        raise refusal
    try:
        return await writes.here.store.transaction(
            operations, operation_id=writes.operation(), timeout=writes.here.settings.store_timeout
        )
    except (MismatchingNodeError, NodeNotFoundError) as error:
        conflict = ProblemError("conflict", f"{scene} was changed in the same moment")
        raise refusal or conflict from error


def _refusal(known: str | None, before: Mapping[Any, Any] | None, scene: str) -> ProblemError | None:
    if known is None or (known == "*" and before is not None):
        return None
    if before is None or known != f'"{before[Atom("version")]}"':
        return ProblemError("scene_changed", f"{scene} is no longer at the version of If-Match")
    return None


def _path(scene: str) -> TreePath:
    return [SCENES, scene.encode()]


def _none(scene: str) -> ProblemError:
    return ProblemError("no_scene", f"no scene is called {scene}")


def scene_of(term: Mapping[Any, Any]) -> Scene:
    """The scene that a record tells of."""
    return Scene(
        scene=term[Atom("scene")].decode(errors="replace"),
        servers=[server.decode(errors="replace") for server in term[Atom("servers")]],
        hand_out=term[Atom("hand_out")],
        version=term[Atom("version")],
    )


def _term(scene: Scene) -> dict[Atom, Any]:
    return {
        Atom("scene"): scene.scene.encode(),
        Atom("servers"): [server.encode() for server in scene.servers],
        Atom("hand_out"): scene.hand_out,
        Atom("version"): scene.version,
    }
