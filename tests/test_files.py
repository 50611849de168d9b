from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.files import replace_file, write_new


def test_a_new_file_has_its_content_and_its_mode(tmp_path: Path) -> None:
    write_new(tmp_path / "key", b"secret")
    assert (tmp_path / "key").read_bytes() == b"secret"
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    write_new(tmp_path / "public", b"open", mode=0o644)
    assert (tmp_path / "public").stat().st_mode & 0o777 == 0o644 & ~_umask()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "public"]


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("key", "link"):
        with pytest.raises(FileExistsError):
            write_new(tmp_path / name, b"yours")
    assert (tmp_path / "key").read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "link"]


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    replace_file(tmp_path / "export", b"old")
    replace_file(tmp_path / "export", b"new")
    assert (tmp_path / "export").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


@pytest.mark.parametrize("write", [write_new, replace_file])
def test_a_writer_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, bytes], None]
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "key", b"secret")
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_is_killed_leaves_the_name_free(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from bridge.files import write_new\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_new(Path(sys.argv[1]), b'secret')"
    )
    file = tmp_path / "key"
    assert subprocess.run([sys.executable, "-c", program, str(file)], check=False).returncode == -9
    write_new(file, b"another")
    assert file.read_bytes() == b"another"


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
