from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge.errors import ConfigurationError, OutcomeUnknownError, ProtocolError
from bridge.etf import Atom
from bridge.khepri import (
    Exported,
    InvalidRequestError,
    Khepri,
    NodeExists,
    Put,
    TooLargeError,
    native_path,
)
from bridge.khepri.transfer import MAX_EXPORT_BYTES
from tests.support.cluster import erlang
from tests.support.scripted_caller import ScriptedCaller, ok, refusal

EXPORT = ok({Atom("bytes"): b"terms", Atom("nodes"): 3})


def client(*answers: Any) -> tuple[Khepri, ScriptedCaller]:
    caller = ScriptedCaller(*answers)
    return Khepri(caller), caller


async def test_a_part_of_the_tree_comes_as_bytes_and_goes_back() -> None:
    store, caller = client(EXPORT, ok({Atom("nodes"): 3}))
    exported = await store.export_bytes("/:a/**")
    assert exported == Exported(b"terms", 3)
    assert await store.import_bytes(exported.data) == 3
    assert [(asked.module, asked.function, asked.args[1], asked.idempotent) for asked in caller.asked] == [
        ("kb_export", "export", b"/:a/**", True),
        ("kb_export", "import", b"terms", False),
    ]


async def test_a_file_is_written_whole_and_read(tmp_path: Path) -> None:
    store, caller = client(EXPORT, ok({Atom("nodes"): 3}))
    file = tmp_path / "stock.khepri"
    file.write_bytes(b"older")
    assert await store.export_to(file) == 3
    assert file.read_bytes() == b"terms"
    assert await store.import_from(str(file)) == 3
    assert caller.asked[1].args[1] == b"terms"
    assert [entry.name for entry in tmp_path.iterdir()] == ["stock.khepri"]


async def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(tmp_path: Path) -> None:
    store, _ = client(EXPORT)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        await store.export_to(tmp_path / "folder")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


async def test_an_export_beyond_the_limit_changes_no_file(tmp_path: Path) -> None:
    store, _ = client(refusal("too_large"))
    with pytest.raises(TooLargeError):
        await store.export_to(tmp_path / "stock.khepri")
    assert list(tmp_path.iterdir()) == []


async def test_an_import_has_an_outcome_and_a_limit() -> None:
    store, caller = client(refusal("timeout"))
    with pytest.raises(OutcomeUnknownError):
        await store.import_bytes(b"terms")
    with pytest.raises(ConfigurationError, match="beyond"):
        await store.import_bytes(bytes(MAX_EXPORT_BYTES + 1))
    assert len(caller.asked) == 1


@pytest.mark.parametrize("answer", [7, {}, {Atom("bytes"): b""}, {Atom("nodes"): 3}])
async def test_another_answer_breaks_the_protocol(answer: Any) -> None:
    store, _ = client(ok(answer))
    with pytest.raises(ProtocolError):
        await store.export_bytes()


@erlang
async def test_a_tree_goes_out_and_comes_back(store: Khepri, root: str, tmp_path: Path) -> None:
    data = {Atom("ünd"): [1.5, (b"\x00\xff", [])], b"text": "ö".encode()}
    await store.transaction(
        [Put(f"{root}/host/deep", data), Put(f"{root}/guest", 2, {"../host": NodeExists()})]
    )
    await store.fence()
    before = await store.get_many(f"{root}/**")
    file = tmp_path / "stock.khepri"
    assert await store.export_to(file, f"{root}/**") == 3
    await store.delete(root)
    await store.put(f"{root}/other", 3)
    # Parents without data of their own are in the file, and come back with their children.
    assert await store.import_from(file) == 2
    after = await store.get_many(f"{root}/**", favor="consistency")
    assert after == before | {native_path(f"{root}/other"): 3}
    await store.delete(f"{root}/host")
    assert not await store.exists(f"{root}/guest", favor="consistency"), "what keeps a node comes back too"


@erlang
async def test_an_import_is_checked_before_it_writes(store: Khepri, root: str) -> None:
    path = b"[test,<<" + root[7:].encode() + b">>]"
    poison = b"{put,[bridge,grants],{p_data,1},#{}}.\n"
    good = b'{put,[test,<<"' + root.rsplit("/", 1)[1].encode() + b'">>],{p_data,1},#{}}.\n'
    for data in (b"no terms", good + poison, path):
        with pytest.raises(Exception) as caught:
            await store.import_bytes(data)
        assert not isinstance(caught.value, OutcomeUnknownError)
    assert not await store.exists(root, favor="consistency")
    assert await store.import_bytes(good) == 1


@erlang
async def test_what_the_format_cannot_carry_is_not_exported(store: Khepri, root: str) -> None:
    await store.put(f"{root}/a", store.caller.mailbox().pid)
    with pytest.raises(InvalidRequestError):
        await store.export_bytes(f"{root}/**", timeout=5)
