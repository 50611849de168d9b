from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.khepri.memory.children import Children

names = st.sampled_from([b"a", b"b", b"c"])


@given(st.lists(st.tuples(names, st.one_of(st.none(), st.integers()))), st.randoms())
def test_every_version_stays_what_it_was(changes: list[tuple[bytes, int | None]], random: object) -> None:
    versions: list[tuple[Children[int], dict[bytes, int]]] = [(Children(), {})]
    for name, value in changes:
        made, known = versions[random.randrange(len(versions))]  # type: ignore[attr-defined]
        if value is not None:
            versions.append((made.put(name, value), {**known, name: value}))
        elif name in known:
            rest = {other: kept for other, kept in known.items() if other != name}
            versions.append((made.without(name), rest))
    for made, known in [*versions, *reversed(versions)]:
        assert len(made) == len(known)
        assert dict(made.items()) == known
        assert set(made.names()) == set(known)
        assert made.get(b"a") == known.get(b"a")
