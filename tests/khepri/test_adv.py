from __future__ import annotations

from typing import Any

import pytest

from bridge.etf import Atom, ErlangMap
from bridge.khepri import (
    InvalidRequestError,
    Khepri,
    MismatchingNodeError,
    NodeExists,
    NodeNotFoundError,
    NodeProps,
    native_path,
)
from tests.support.cluster import erlang
from tests.support.scripted_caller import ScriptedCaller, ok

TOUCHED = ErlangMap([([Atom("a")], {Atom("data"): 1, Atom("payload_version"): 2})])
FOUND = {(Atom("a"),): NodeProps(data=1, payload_version=2)}


async def test_a_read_asks_for_payload_and_version_unless_told_otherwise() -> None:
    caller = ScriptedCaller(ok(TOUCHED), ok(TOUCHED))
    store = Khepri(caller)
    assert await store.adv.get("/:a") == FOUND
    assert await store.adv.get_many("/*", props=["child_names"], include_root_props=True) == FOUND
    one, many = (asked.args[-1] for asked in caller.asked)
    assert one[Atom("props_to_return")] == [Atom("payload"), Atom("payload_version")]
    assert one[Atom("expect_specific_node")] is True
    assert many[Atom("props_to_return")] == [Atom("child_names")]
    assert many[Atom("include_root_props")] is True
    assert {asked.function for asked in caller.asked} == {"get_many"}


async def test_a_read_of_one_node_that_is_not_as_demanded_is_refused() -> None:
    store = Khepri(ScriptedCaller(ok(ErlangMap([])), ok(ErlangMap([]))))
    with pytest.raises(MismatchingNodeError):
        await store.adv.get("/:a")
    assert await store.adv.get_many("/*") == {}


@pytest.mark.parametrize(
    ("write", "tag"),
    [
        (lambda adv: adv.put("/:a", 1, keep_while={"/:b": NodeExists()}), "put"),
        (lambda adv: adv.put_many("/*", 1), "put_many"),
        (lambda adv: adv.create("/:a", 1), "create"),
        (lambda adv: adv.update("/:a", 1), "update"),
        (lambda adv: adv.compare_and_swap("/:a", 1, 2), "compare_and_swap"),
        (lambda adv: adv.delete("/:a"), "delete"),
        (lambda adv: adv.delete_many("/*"), "delete_many"),
        (lambda adv: adv.clear_payload("/:a"), "clear_payload"),
        (lambda adv: adv.clear_many_payloads("/*"), "clear_many_payloads"),
    ],
)
async def test_a_write_tells_what_it_touched(write: Any, tag: str) -> None:
    caller = ScriptedCaller(ok([TOUCHED]))
    assert await write(Khepri(caller).adv) == FOUND
    (((adv, operation),),) = [asked.args[1] for asked in caller.asked]
    assert (adv, operation[0]) == (Atom("adv"), Atom(tag))


@erlang
async def test_a_write_tells_the_old_payload_and_the_new_version(store: Khepri, root: str) -> None:
    path = f"{root}/a"
    native = native_path(path)

    async def told(write: Any) -> tuple[Any, int | None]:
        props = (await write)[native]
        return props.data, props.payload_version

    assert await told(store.adv.create(path, 1)) == (None, 1)
    assert await told(store.adv.put(path, 2)) == (1, 2)
    assert await told(store.adv.update(path, 3)) == (2, 3)
    assert await told(store.adv.compare_and_swap(path, 3, 4)) == (3, 4)
    assert await told(store.adv.put_many(f"{root}/*", 5)) == (4, 5)
    assert await told(store.adv.clear_payload(path)) == (5, 6)
    assert await told(store.adv.put(path, 6)) == (None, 7)
    assert await told(store.adv.clear_many_payloads(f"{root}/*")) == (6, 8)
    assert await told(store.adv.delete(path)) == (None, 8)
    assert await store.adv.delete(path) == {}
    assert native not in await store.adv.delete_many(f"{root}/*")


@erlang
async def test_a_write_tells_what_went_because_of_it(store: Khepri, root: str) -> None:
    await store.put(f"{root}/host", 1)
    await store.put(f"{root}/guest", 2, keep_while={"../host": NodeExists()})
    gone = await store.adv.delete(f"{root}/host")
    reasons = {path[-1]: props.delete_reason for path, props in gone.items()}
    if (await store.cluster.versions()).effective_machine >= 2:
        assert (reasons[b"host"], reasons[b"guest"]) == ("explicit", "keep_while")
        assert gone[native_path(f"{root}/guest")].data == 2
    else:
        assert reasons == {b"host": None}


@erlang
async def test_a_write_that_is_refused_tells_why(store: Khepri, root: str) -> None:
    with pytest.raises(NodeNotFoundError):
        await store.adv.update(f"{root}/a", 1)
    await store.adv.create(f"{root}/a", 1)
    with pytest.raises(MismatchingNodeError):
        await store.adv.create(f"{root}/a", 1)


@erlang
async def test_every_property_can_be_asked_for(store: Khepri, root: str) -> None:
    await store.put(f"{root}/a", 1)
    await store.put(f"{root}/a/b", 2)
    await store.fence()
    native = native_path(f"{root}/a")
    found = await store.adv.get(
        f"{root}/a",
        props=[
            "payload",
            "payload_version",
            "child_list_version",
            "child_list_length",
            "child_names",
            "has_payload",
        ],
    )
    assert found == {
        native: NodeProps(
            data=1,
            payload_version=1,
            child_list_version=2,
            child_list_length=1,
            child_names=(b"b",),
            has_data=True,
        )
    }
    assert await store.adv.get(f"{root}/a") == {native: NodeProps(data=1, payload_version=1)}
    assert await store.adv.get(f"{root}/a", props=[]) == {native: NodeProps()}
    assert set(await store.adv.get_many(f"{root}/**")) == {native, (*native, b"b")}


@erlang
async def test_one_node_is_asked_for_and_is_there(store: Khepri, root: str) -> None:
    with pytest.raises(NodeNotFoundError):
        await store.adv.get(f"{root}/missing")
    with pytest.raises(InvalidRequestError):
        await store.adv.get(f"{root}/*")
