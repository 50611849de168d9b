from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bridge.khepri import NameMatches, NodeExists
from bridge.khepri.memory.keep_while import KeepWhiles
from bridge.khepri.paths import NativePath

paths = st.lists(st.sampled_from([b"a", b"b"]), min_size=1, max_size=3).map(tuple)
patterns = st.lists(st.sampled_from([b"a", b"b", NameMatches()]), min_size=1, max_size=3).map(tuple)
settings_of = st.one_of(st.none(), st.dictionaries(patterns, st.just(NodeExists()), max_size=3))


@given(st.lists(st.tuples(paths, settings_of)), st.lists(st.tuples(paths, settings_of)), paths)
def test_watchers_are_found_from_what_they_watch(
    kept: list[tuple[NativePath, Any]], undone: list[tuple[NativePath, Any]], watched: NativePath
) -> None:
    keep_whiles = KeepWhiles()
    known: dict[NativePath, Any] = {}
    for watcher, conditions in kept:
        keep_whiles.set(watcher, conditions)
        known.pop(watcher, None)
        if conditions is not None:
            known[watcher] = conditions
    keep_whiles.forget()
    mark = keep_whiles.mark()
    for watcher, conditions in undone:
        keep_whiles.set(watcher, conditions)
    keep_whiles.undo(mark)
    assert dict(keep_whiles.items()) == known
    assert all(keep_whiles.of(watcher) == conditions for watcher, conditions in known.items())
    assert set(keep_whiles.watchers(watched)) == {
        watcher for watcher, conditions in known.items() if watched in conditions
    }
    assert set(keep_whiles.watchers_below(watched)) == {
        watcher
        for watcher, conditions in known.items()
        if any(pattern[: len(watched)] == watched for pattern in conditions)
    }
