"""What a local cluster leaves on disk so that a later command finds it again.

::

    <directory>/cluster.json      ports, node names and processes; replaced as a whole, never written in place
    <directory>/.lock             held while the cluster is being started or stopped
    <directory>/epmd.log
    <directory>/hs1.log           everything that node said
    <directory>/hs1/              its data, and its cookie file (0600)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from bridge.cluster.processes import ProcessIdentity
from bridge.errors import ConfigurationError
from bridge.files import replace_file

STATE_FILE: Final = "cluster.json"
ENDED_FILE: Final = "cluster.ended.json"
"""the state of a cluster that was ended in order: what it was, for when it is started again"""
_FORMAT: Final = 1
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    """One BEAM node of a cluster.

    Attributes:
        name: full node name, ``hs1@127.0.0.1``.
        process: its process; ``None`` while it is not running.
    """

    name: str
    process: ProcessIdentity | None = None

    @property
    def short(self) -> str:
        """The part before the ``@``, which also names the node's directory and log."""
        return self.name.partition("@")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterState:
    """A local cluster as its state file holds it.

    Attributes:
        instance: name of the logical homeserver.
        store: name of the Khepri store.
        epmd_port: where the cluster's own port mapper listens on 127.0.0.1.
        epmd: its process.
        nodes: in the order of their numbers.
    """

    instance: str
    store: str
    epmd_port: int
    epmd: ProcessIdentity | None
    nodes: tuple[NodeRecord, ...]

    def with_node(self, node: NodeRecord) -> ClusterState:
        """The same cluster with one node's record replaced."""
        return replace(self, nodes=tuple(node if old.name == node.name else old for old in self.nodes))

    @property
    def processes(self) -> list[ProcessIdentity]:
        """All recorded processes, nodes first."""
        recorded = [*(node.process for node in self.nodes), self.epmd]
        return [process for process in recorded if process is not None]


def default_directory(name: str = "local") -> Path:
    """Directory of the cluster called ``name``: below ``XDG_STATE_HOME``, else ``~/.local/state``.

    Raises:
        ConfigurationError: the name is not made of a-z, 0-9, ``_`` and ``-`` (at most 32).
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"cluster name {name!r} must be of a-z, 0-9, _ and -, at most 32")
    home = os.environ.get("XDG_STATE_HOME")
    return Path(home or Path.home() / ".local" / "state") / "khepri-bridge" / name


def cluster_options(directory: Path) -> str:
    """What a command is to be given to be about the cluster in ``directory``: nothing for the default one."""
    if directory == default_directory():
        return ""
    if directory.parent == default_directory().parent and _NAME.fullmatch(directory.name):
        return f" --name {directory.name}"
    return f" --dir {shlex.quote(str(directory))}"


def load_state(directory: Path, name: str = STATE_FILE) -> ClusterState | None:
    """The recorded cluster, or ``None`` when there is none.

    Args:
        directory: of the cluster.
        name: `STATE_FILE` for the one that runs, `ENDED_FILE` for the one that was ended.

    Raises:
        ConfigurationError: the file is no state file of this version.
    """
    path = directory / name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error}): remove it after `khepri-bridge down`"
        ) from None
    try:
        if content["format"] != _FORMAT:
            raise ConfigurationError(f"{path} was written by another version: run `down` with that version")
        return ClusterState(
            instance=content["instance"],
            store=content["store"],
            epmd_port=content["epmd_port"],
            epmd=_process(content["epmd"]),
            nodes=tuple(NodeRecord(name=n["name"], process=_process(n["process"])) for n in content["nodes"]),
        )
    except (KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} is damaged ({error!r}): run `khepri-bridge down`") from None


def save_state(directory: Path, state: ClusterState) -> None:
    """Replace the state file in one step: a reader sees the old one or the new one."""
    text = json.dumps({"format": _FORMAT, **asdict(state)}, indent=2)
    # Others of the machine may ask what runs here: the cookie is not in it.
    replace_file(directory / STATE_FILE, text.encode(), mode=0o666)


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold the directory for a start or a stop.

    Raises:
        ConfigurationError: another command is starting or stopping this cluster.
    """
    with (directory / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"another command is starting or stopping the cluster in {directory}"
            ) from None
        yield


def _process(content: dict[str, object] | None) -> ProcessIdentity | None:
    if content is None:
        return None
    match content:
        case {"pid": int(pid), "started": int(started), "boot": str(boot)}:
            return ProcessIdentity(pid=pid, started=started, boot=boot)
    raise TypeError("process record")
