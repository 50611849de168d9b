from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge.errors import ConfigurationError, OutcomeUnknownError, ProtocolError
from bridge.etf import Atom
from bridge.khepri import Exported, Khepri, TooLargeError
from bridge.khepri.transfer import MAX_EXPORT_BYTES
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
