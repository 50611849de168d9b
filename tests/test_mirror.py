"""Tests mirror the source: ``bridge/udp/replay.py`` is tested by ``tests/udp/test_replay.py``."""

from pathlib import Path

ROOT = Path(__file__).parent.parent

# Files without a test module of their own, and where they are tested instead.
EXCEPTIONS: dict[str, str] = {}


def test_every_source_file_has_its_test_module() -> None:
    missing = []
    for file in sorted((ROOT / "bridge").rglob("*.py")):
        name = file.relative_to(ROOT / "bridge")
        if file.name in ("__init__.py", "__main__.py") or str(name) in EXCEPTIONS:
            continue
        if not (ROOT / "tests" / name.parent / f"test_{name.name}").is_file():
            missing.append(str(name))
    assert missing == []


def test_every_exception_is_needed_and_true() -> None:
    for source, test in EXCEPTIONS.items():
        assert (ROOT / "bridge" / source).is_file(), source
        assert (ROOT / test).exists(), test
        own = ROOT / "tests" / Path(source).parent / f"test_{Path(source).name}"
        assert not own.is_file(), f"{source} has a test module now"
