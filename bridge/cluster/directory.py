"""What a cluster keeps in its directory beside its state: one secret, and the data of each node."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from pathlib import Path

from bridge.cluster.processes import marked_processes
from bridge.cluster.state import ENDED_FILE, ClusterState
from bridge.errors import ConfigurationError, InvalidStateError
from bridge.files import replace_file


def read_cookie(directory: Path, state: ClusterState) -> str:
    """The cookie of the cluster in ``directory``.

    Raises:
        ConfigurationError: its file cannot be read.
    """
    path = directory / state.nodes[0].short / ".erlang.cookie"
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigurationError(f"the cookie {path} cannot be read: {error.strerror}") from None


def write_cookies(directory: Path, state: ClusterState) -> None:
    """One secret, in a file per node that only this user may read (Erlang insists on that).

    A cluster that has a cookie keeps it; an empty file, which a start that was killed may have left, gets it.
    """
    paths = [directory / node.short / ".erlang.cookie" for node in state.nodes]
    found = {path: path.read_text(encoding="ascii") if path.exists() else "" for path in paths}
    # Hexadecimal: one that begins with a dash is an option to `erl -setcookie`.
    cookie = next(filter(None, found.values()), None) or secrets.token_hex(32)
    for path, present in found.items():
        if not present:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            replace_file(path, cookie.encode("ascii"))


def log_file(directory: Path, name: str) -> Path:
    """Log of the node ``name`` (``hs1`` or ``hs1@127.0.0.1``)."""
    return directory / f"{name.partition('@')[0]}.log"


def holds_data(directory: Path) -> bool:
    """Whether a node has written in its directory; the cookie and other dotfiles are no data."""
    return directory.is_dir() and any(not path.name.startswith(".") for path in directory.iterdir())


def erase_data(directory: Path) -> bool:
    """Remove a stopped cluster's data, logs and cookies; other files in the directory stay.

    Returns:
        Whether there was any data.

    Raises:
        InvalidStateError: the cluster runs.
    """
    if marked_processes(directory):
        raise InvalidStateError(f"the cluster in {directory} runs: end it first")
    data = list(directory.glob("hs[1-9]"))
    for path in data:
        shutil.rmtree(path)
    for path in [
        *directory.glob("hs[1-9].log"),
        *directory.glob(".*lock"),
        directory / "epmd.log",
        directory / ENDED_FILE,
    ]:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        directory.rmdir()
    return bool(data)
