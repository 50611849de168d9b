from __future__ import annotations

import threading
from pathlib import Path

import pytest

from bridge.cluster.build import Workshop, build_release, is_built
from bridge.cluster.sources import APPLICATIONS
from bridge.errors import ConfigurationError

REBAR3 = """#!/bin/sh
echo "$@" >>calls
mkdir -p _build/default/rel/khepri_bridge/bin
touch _build/default/rel/khepri_bridge/bin/khepri_bridge
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A clone beside tools that only note that they were called."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, script in (("rebar3", REBAR3), ("erl", "#!/bin/sh\n"), ("epmd", "#!/bin/sh\n")):
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/bin:/usr/bin")
    root = tmp_path / "clone"
    (root / "erlang" / "src").mkdir(parents=True)
    (root / "erlang" / "src" / "kb_api.erl").write_text("-module(kb_api).")
    (root / "rebar.config").write_text("[].")
    for name in APPLICATIONS:
        (root / "_checkouts" / name / "src").mkdir(parents=True)
        (root / "_checkouts" / name / "src" / f"{name}.app.src").touch()
    return Workshop(root=root, origin=None)


def calls(place: Workshop) -> int:
    return len((place.root / "calls").read_text().splitlines())


def quietly(_line: str) -> None:
    return None


def test_a_release_is_built_once(place: Workshop) -> None:
    assert not is_built(place)
    assert build_release(quietly, place=place) == place.release
    assert is_built(place)
    build_release(quietly, place=place)
    assert calls(place) == 1


@pytest.mark.parametrize("changed", ["rebar.config", "erlang/src/kb_api.erl", "erlang/src/kb_new.erl"])
def test_a_changed_source_is_built_again(place: Workshop, changed: str) -> None:
    build_release(quietly, place=place)
    (place.root / changed).write_text("changed")
    assert not is_built(place)
    build_release(quietly, place=place)
    assert calls(place) == 2


def test_a_changed_test_is_not(place: Workshop) -> None:
    build_release(quietly, place=place)
    (place.root / "erlang" / "test").mkdir()
    (place.root / "erlang" / "test" / "kb_api_tests.erl").write_text("changed")
    assert is_built(place)


def test_force_builds_anyway(place: Workshop) -> None:
    build_release(quietly, place=place)
    build_release(quietly, place=place, force=True)
    assert calls(place) == 2


def test_two_builds_at_once_are_one(place: Workshop) -> None:
    threads = [
        threading.Thread(target=build_release, args=(quietly,), kwargs={"place": place}) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls(place) == 1


def test_packed_sources_are_copied_before_they_are_built(place: Workshop, tmp_path: Path) -> None:
    cache = Workshop(root=tmp_path / "cache", origin=place.root)
    (tmp_path / "cache").mkdir()
    (place.root / "_checkouts").rename(tmp_path / "cache" / "_checkouts")
    build_release(quietly, place=cache)
    assert (cache.root / "erlang" / "src" / "kb_api.erl").read_text() == "-module(kb_api)."
    assert is_built(cache)


def test_a_compiler_error_is_quoted_with_its_log(place: Workshop, tmp_path: Path) -> None:
    (tmp_path / "tools" / "rebar3").write_text("#!/bin/sh\necho kb_api.erl:3: syntax error\necho\nexit 1\n")
    with pytest.raises(
        ConfigurationError, match=r"does not build: kb_api\.erl:3: syntax error \(log: .*build\.log"
    ):
        build_release(quietly, place=place)
    assert not is_built(place)


def test_missing_tools_are_named_with_the_line_that_installs_them(
    place: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"erl and epmd and rebar3 not found.*apt-get install"):
        build_release(quietly, place=place)
