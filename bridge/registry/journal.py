"""Requests and their answers as entries of a history, for ``bridge.authority.history`` to check."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bridge.authority import Called, Entry, Known, RecordFile, RecordView, Replied, record_path
from bridge.errors import AuthorityError
from bridge.etf import Atom
from bridge.registry.records import EntityRecord

_VALUE: Final = {
    "set_rule": "rule",
    "set_master": "master",
    "set_default_owner": "default_owner",
    "answer": "grant",
}
"""which member of a request is the value of its record; of others the rule"""


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
