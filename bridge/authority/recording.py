"""Records that are on disk before what they tell of can have an effect, so that a killed process leaves them.

A line is handed to the kernel before the request is sent, or the state sealed: what a process does afterwards
cannot be missing, unless the machine itself goes down. A record that cannot be written ends what wanted to
act: evidence that has holes would prove nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from bridge.authority.history import Alive, Called, Entry, Replied, encode_entry
from bridge.authority.record_model import Known, RecordView
from bridge.authority.records import EntityRecord
from bridge.errors import AuthorityError, ConfigurationError
from bridge.etf import Atom

_ALIVE_BYTES: Final = 1_024
"""bytes of the first line, which is written anew in place: a server's name has up to 255, escaped sixfold"""

_VALUE: Final = {
    "set_rule": "rule",
    "set_master": "master",
    "set_default_owner": "default_owner",
    "answer": "grant",
}
"""which member of a request is the value of its record; of others the rule"""


class RecordFile:
    """A history file (``bridge.authority.history``) that is written as things happen.

    Args:
        path: made anew, with its directory.

    Raises:
        ConfigurationError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigurationError(f"cannot write the record {path}: {error.strerror}") from error
        # Room for the line of the last tick, and valid while there is none.
        os.write(self._file, b"\n".rjust(_ALIVE_BYTES))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, entry: Entry) -> None:
        """Append an entry."""
        os.write(self._file, encode_entry(entry) + b"\n")

    def alive(self, server: str, session: bytes, at_ns: int) -> None:
        """Say that the server lives, in the place where it said so last."""
        line = encode_entry(Alive(server=server, session=session, at_ns=at_ns))
        os.pwrite(self._file, line.ljust(_ALIVE_BYTES - 1), 0)

    def close(self) -> None:
        """End the file; harmless twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def record_path(directory: str | Path, server: str, session: bytes, what: str) -> Path:
    """Where one run of a server writes; names of servers may hold anything."""
    name = "".join(letter if letter.isalnum() else "_" for letter in server)[:64]
    return Path(directory) / f"{name}-{session.hex()[:12]}-{what}.jsonl"


@contextlib.contextmanager
def recording(directory: str | Path) -> Iterator[Journal]:
    """Record what a service process is asked to do, in a file of this run.

    Raises:
        ConfigurationError: it cannot be made.
    """
    run = secrets.token_bytes(16)
    with RecordFile(record_path(directory, "rest", run, "requests")) as file:
        yield Journal(f"rest-{run.hex()[:12]}", file.write)


class Journal:
    """Records requests and their answers.

    Args:
        client: name of this run of the client, no other's.
        write: takes the entries, in order.
        clock: nanoseconds, ``CLOCK_MONOTONIC``.
    """

    def __init__(
        self, client: str, write: Callable[[Entry], None], clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._client = client
        self._write = write
        self._clock = clock
        self._numbers = itertools.count(1)

    def of(self, client: str) -> Journal:
        """Records in the same place what is asked as another client.

        Requests of one client and number are one request, wherever they are recorded: so a request that
        several processes may repeat counts once.
        """
        return Journal(client, self._write, self._clock)

    def called(self, function: str, request: Mapping[str, Any]) -> int:
        """A request is about to be sent; its number."""
        number = next(self._numbers)
        value = request.get(_VALUE.get(function, "rule"))
        master = request.get("master") if function == "create_entity" else None
        self._write(
            Called(
                client=self._client,
                number=number,
                function=function,
                at_ns=self._clock(),
                entity=_text(request.get("entity")) or "",
                session=request.get("session"),
                epoch=request.get("epoch"),
                owner=_text(request.get("owner")),
                to=_text(request.get("to")),
                by=_text(request.get("by")),
                player=_text(request.get("player")),
                value=_text(value),
                authority=bool(request.get("authority", False)),
                master=_text(master),
            )
        )
        return number

    def granted(self, number: int, value: Mapping[Any, Any]) -> None:
        """It was granted, with this answer."""
        record = None
        if Atom("entity") in value and Atom("version") in value:
            record = view_of(EntityRecord.from_term(value))
        # Of a player who left: names; of a session that ended: pairs, which are of no entity's history here.
        passed = [
            entity.decode(errors="replace")
            for entity in value.get(Atom("passed"), ())
            if isinstance(entity, bytes)
        ]
        outcome = str(value.get(Atom("outcome"), ""))
        self._answered(number, Known.OK, detail=outcome, record=record, passed=passed)

    def refused(self, number: int, error: AuthorityError) -> None:
        """It was refused for good. An answer that is recorded by neither may have been anything."""
        reason = str(error.reason)
        epoch = error.props.get("epoch") if reason == "conflict" else None
        told = epoch if isinstance(epoch, int) else None
        self._answered(number, Known.REFUSED, detail=reason, told_epoch=told)

    def _answered(
        self,
        number: int,
        known: Known,
        *,
        detail: str,
        record: RecordView | None = None,
        told_epoch: int | None = None,
        passed: Sequence[str] = (),
    ) -> None:
        self._write(
            Replied(
                client=self._client,
                number=number,
                at_ns=self._clock(),
                known=known,
                detail=detail,
                record=record,
                told_epoch=told_epoch,
                passed=list(passed),
            )
        )


def view_of(record: EntityRecord) -> RecordView:
    """What the checker of histories knows of a record."""
    return RecordView(
        owner=record.owner,
        master=record.master,
        rule=record.rule.value,
        session=record.session,
        epoch=record.epoch,
        version=record.version,
        default_owner=record.default_owner,
        deleted=record.is_deleted,
    )


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, Atom):
        return None if value == Atom("undefined") else str(value)
    return None if value is None else str(value)
