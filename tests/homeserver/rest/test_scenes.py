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
async def test_a_keyed_repeat_is_told_what_the_first_one_did_whatever_came_after(rest: Rest) -> None:
    operator = await rest.client("ops", Role.OPERATOR)
    path = f"/v1/scenes/{fresh('scene')}"

    def keyed(key: str, **headers: str) -> dict[str, str]:
        return {"Idempotency-Key": key, **headers}

    one, two = {"servers": ["sim1"]}, {"servers": ["sim2"]}
    first = await operator.put(path, json=one, headers=keyed("make"))
    assert (await operator.put(path, json=one, headers=keyed("make"))).json() == first.json()
    matching = keyed("change", **{"If-Match": first.headers["ETag"]})
    changed = await operator.put(path, json=two, headers=matching)
    assert (changed.status_code, changed.json()["version"]) == (200, 2)
    again = await operator.put(path, json=one, headers=keyed("make"))
    assert (again.status_code, again.json()) == (201, first.json())
    await operator.put(path, json={"servers": []})
    assert (await operator.put(path, json=two, headers=matching)).json() == changed.json()
    late = keyed("late", **{"If-Match": first.headers["ETag"]})
    assert [kind(await operator.delete(path, headers=late)) for _ in range(2)] == ["scene_changed"] * 2
    assert (await operator.get(path, params={"fresh": True})).json()["version"] == 3
    assert [(await operator.delete(path, headers=keyed("end"))).status_code for _ in range(2)] == [204, 204]
    assert kind(await operator.delete(path, headers=keyed("end again"))) == "no_scene"
