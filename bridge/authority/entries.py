"""What servers did and clients were answered, as entries of a history file: one JSON object a line.

A server records its *acts*: for each entity and epoch, when it sealed state for the first and the last time;
a receiver what it *accepted*; a client what it asked for, and what it was answered. Times are
``CLOCK_MONOTONIC`` of one kernel, in nanoseconds, so records of processes and containers of one machine
compare; of several machines they do not.

A record that is written as things happen (``Began``, ``Called`` before the request is sent, ``Alive`` before
each tick) holds also what a killed process did: at most, an act lasted until its server's last tick, and a
request without an answer may have been applied.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final as Constant

import msgspec

from bridge.authority.record_model import Known, RecordView
from bridge.errors import DecodeError


class Act(msgspec.Struct, frozen=True, kw_only=True, tag="act"):
    """A server acted for an entity under one grant.

    Attributes:
        first_ns: when it sealed the first state record.
        last_ns: when it sealed the last one.
    """

    server: str
    session: bytes
    entity: str
    epoch: int
    first_ns: int
    last_ns: int


class Began(msgspec.Struct, frozen=True, kw_only=True, tag="began"):
    """A server begins to act; its ``Act`` follows when it stops, unless it is killed."""

    server: str
    session: bytes
    entity: str
    epoch: int
    first_ns: int


class Alive(msgspec.Struct, frozen=True, kw_only=True, tag="alive"):
    """A server's last tick: what it had begun and not stopped, it did until then."""

    server: str
    session: bytes
    at_ns: int


class Acceptance(msgspec.Struct, frozen=True, kw_only=True, tag="accepted"):
    """A receiver accepted state of an entity under one epoch.

    Told again with a later ``last_ns`` it takes the place of the earlier record.

    Attributes:
        session: of the receiver; one that was started again knows nothing of what it had accepted.
    """

    receiver: str
    session: bytes = b""
    sender: str
    entity: str
    epoch: int
    first_ns: int
    last_ns: int


class Granted(msgspec.Struct, frozen=True, kw_only=True, tag="granted"):
    """A server got a grant: an acknowledged write of the homeserver."""

    server: str
    session: bytes
    entity: str
    epoch: int
    at_ns: int


class HandOver(msgspec.Struct, frozen=True, kw_only=True, tag="handover"):
    """A server took over the last state that another one released (R0-27).

    Attributes:
        hash: state hash, 32 bytes; the giver's and the taker's records of one epoch must agree.
        side: ``gave`` or ``took``.
    """

    server: str
    side: str
    entity: str
    epoch: int
    hash: bytes


class Called(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="called"):
    """A client is about to ask the homeserver; members as of ``Operation``.

    Attributes:
        client: one run of one client.
        number: of the request, among those of the client.
        entity: empty where the request is about none.
    """

    client: str
    number: int
    function: str
    at_ns: int
    entity: str = ""
    session: bytes | None = None
    epoch: int | None = None
    owner: str | None = None
    to: str | None = None
    by: str | None = None
    player: str | None = None
    value: str | None = None
    authority: bool = False
    master: str | None = None


class Replied(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="replied"):
    """How the request of that number ended; members as of ``Operation``.

    Attributes:
        passed: entities of which a player who left was told that they passed on.
    """

    client: str
    number: int
    at_ns: int
    known: Known
    detail: str = ""
    record: RecordView | None = None
    told_epoch: int | None = None
    passed: list[str] = []


class Final(msgspec.Struct, frozen=True, kw_only=True, tag="final"):
    """All that an instance has in the end, by a linearizable read.

    Attributes:
        entities: records of those that are the instance's own, not another's.
        sessions: those that are open.
    """

    instance: str
    at_ns: int
    entities: dict[str, RecordView]
    sessions: list[bytes]


Entry = Act | Began | Alive | Acceptance | Granted | HandOver | Called | Replied | Final

_encoder: Constant = msgspec.json.Encoder()
_decoder: Constant = msgspec.json.Decoder(Entry)


def encode_entry(entry: Entry) -> bytes:
    """One line of a history file, without its line feed."""
    return _encoder.encode(entry)


def decode_entries(lines: Iterable[bytes]) -> list[Entry]:
    """Entries of a history file.

    Raises:
        DecodeError: a line that is no entry; names its number.
    """
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entries.append(_decoder.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError(f"line {number} is no history entry: {error}") from error
    return entries


def of_instance(entries: Iterable[Entry], instance: str) -> list[Entry]:
    """Records of one instance's servers, to be checked together with those of others.

    Servers get ``@`` and the instance behind their names, as other instances name them; epochs rise for an
    entity wherever it goes, so acts and what was accepted compare. What clients asked of one instance says
    nothing about another's records: that is left out, and checked by itself.
    """
    qualified: list[Entry] = []
    for entry in entries:
        names = {
            name: f"{value}@{instance}"
            for name in ("server", "sender", "receiver")
            if isinstance(value := getattr(entry, name, None), str) and "@" not in value
        }
        if not isinstance(entry, Called | Replied | Final):
            qualified.append(msgspec.structs.replace(entry, **names))
    return qualified
