from __future__ import annotations

import asyncio

from bridge.jose.credentials import Role
from tests.support.cluster import erlang, fresh
from tests.support.rest import Rest, kind, whole_list


@erlang
async def test_a_scene_is_made_changed_and_forgotten_by_operators(rest: Rest) -> None:
    operator, reader = await rest.client("ops", Role.OPERATOR), await rest.client("reader")
    name = fresh("scene")
    path = f"/v1/scenes/{name}"
    assert kind(await operator.delete(path)) == "no_scene"
    made = await operator.put(path, json={"servers": ["sim1", "sim2", "sim1"]})
    assert (made.status_code, made.json()["servers"], made.json()["version"]) == (201, ["sim1", "sim2"], 1)
    assert kind(await reader.put(path, json={"servers": []})) == "role"
    again = await operator.put(path, json={"servers": ["sim1", "sim2"]})
    assert (again.status_code, again.headers["ETag"]) == (200, made.headers["ETag"])

    told = await reader.get(path, params={"fresh": True})
    assert told.json() == made.json()
    assert made.json() in await whole_list(reader, "/v1/scenes", "scenes")

    matching = {"If-Match": told.headers["ETag"]}
    changed = await operator.put(path, json={"servers": ["sim3"], "hand_out": False}, headers=matching)
    assert (changed.json()["version"], changed.json()["hand_out"]) == (2, False)
    late = await operator.put(path, json={"servers": ["sim4"]}, headers=matching)
    assert (kind(late), late.status_code) == ("scene_changed", 412)
    assert kind(await operator.delete(path, headers=matching)) == "scene_changed"
    assert (await operator.delete(path, headers={"If-Match": "*"})).status_code == 204
    assert kind(await reader.get(path, params={"fresh": True})) == "no_scene"
    assert (
        kind(await operator.put(path, json={"servers": []}, headers={"If-Match": '"2"'})) == "scene_changed"
    )


@erlang
async def test_of_two_who_make_one_scene_at_once_one_hears_of_the_other(rest: Rest) -> None:
    operator = await rest.client("ops", Role.OPERATOR)
    path = f"/v1/scenes/{fresh('scene')}"
    bodies = [{"servers": [f"sim{number}"]} for number in range(4)]
    responses = await asyncio.gather(*(operator.put(path, json=body) for body in bodies))
    kinds = {kind(response) for response in responses}
    assert "201" in kinds
    assert kinds <= {"201", "200", "conflict"}


@erlang
async def test_a_keyed_repeat_changes_nothing(rest: Rest) -> None:
    operator = await rest.client("ops", Role.OPERATOR, headers={"Idempotency-Key": "once"})
    path = f"/v1/scenes/{fresh('scene')}"
    first = await operator.put(path, json={"servers": ["sim1"]})
    assert (await operator.put(path, json={"servers": ["sim1"]})).json() == first.json()
