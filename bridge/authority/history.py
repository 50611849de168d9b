"""What servers did, as records, and the check that no two of them ever did it at once.

Grants alone could not show a violation: the homeserver may grant correctly while a frozen server still
speaks. So a server records its *acts*: for each entity and epoch, when it sealed state for the first and
the last time; and a receiver records what it *accepted*. Times are ``CLOCK_MONOTONIC`` of one kernel, in
nanoseconds, so records of processes and containers of one machine compare; of several machines they do not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec

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


class Acceptance(msgspec.Struct, frozen=True, kw_only=True, tag="accepted"):
    """A receiver accepted state of an entity under one epoch."""

    receiver: str
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


Entry = Act | Acceptance | Granted | HandOver

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Entry)


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


@dataclass(frozen=True, slots=True)
class Violation:
    """A counter-example.

    Attributes:
        rule: which promise is broken.
        entries: the records that break it.
    """

    rule: str
    text: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of a check.

    Attributes:
        acts: how many acts were checked.
        double_holders: two servers acted for one entity in one instant, or one epoch had two holders.
        stale_acceptances: a receiver accepted an epoch after a higher one, or from the wrong server.
        lost_grants: an acknowledged grant is missing from the final record.
        changed_states: a hand-over whose state hash differs between giver and taker.
    """

    acts: int
    double_holders: list[Violation] = field(default_factory=list)
    stale_acceptances: list[Violation] = field(default_factory=list)
    lost_grants: list[Violation] = field(default_factory=list)
    changed_states: list[Violation] = field(default_factory=list)

    @property
    def violations(self) -> list[Violation]:
        """All of them."""
        return self.double_holders + self.stale_acceptances + self.lost_grants + self.changed_states


def check(entries: Sequence[Entry], *, final_epochs: dict[str, int] | None = None) -> Verdict:
    """Check the records of all servers together.

    Args:
        entries: from every server, in any order.
        final_epochs: the homeserver's epoch of each entity after the run, where it can still be asked; an
            acknowledged grant above it was lost.

    Returns:
        The verdict; empty lists prove the promises for what was recorded.
    """
    return Verdict(
        acts=sum(isinstance(entry, Act) for entry in entries),
        double_holders=_overlaps(entries) + _shared_epochs(entries),
        stale_acceptances=_stale(entries),
        lost_grants=_lost(entries, final_epochs or {}),
        changed_states=_changed(entries),
    )


def _overlaps(entries: Sequence[Entry]) -> list[Violation]:
    found = []
    acts: dict[str, list[Act]] = defaultdict(list)
    for entry in entries:
        if isinstance(entry, Act):
            acts[entry.entity].append(entry)
    for entity, of_entity in acts.items():
        of_entity.sort(key=lambda act: (act.first_ns, act.last_ns))
        # Sorted by start, an act overlaps some earlier one exactly if it starts before the latest end so far.
        latest: Act | None = None
        for act in of_entity:
            if latest is not None and act.session != latest.session and act.first_ns <= latest.last_ns:
                text = (
                    f"{entity}: {act.server} acted at epoch {act.epoch} while {latest.server} still did at "
                    f"{latest.epoch}, for {(min(act.last_ns, latest.last_ns) - act.first_ns) / 1e6:.3f} ms"
                )
                found.append(Violation("no two holders at an instant", text, (latest, act)))
            if latest is None or act.last_ns > latest.last_ns:
                latest = act
    return found


def _shared_epochs(entries: Sequence[Entry]) -> list[Violation]:
    found = []
    holders: dict[tuple[str, int], Act | Granted] = {}
    for entry in entries:
        if not isinstance(entry, Act | Granted):
            continue
        first = holders.setdefault((entry.entity, entry.epoch), entry)
        if first.session != entry.session:
            text = f"{entry.entity}: epoch {entry.epoch} belongs to {first.server} and to {entry.server}"
            found.append(Violation("an epoch has one holder", text, (first, entry)))
    return found


def _stale(entries: Sequence[Entry]) -> list[Violation]:
    found = []
    accepted: dict[tuple[str, str], list[Acceptance]] = defaultdict(list)
    owners: dict[tuple[str, int], str] = {}
    for entry in entries:
        if isinstance(entry, Acceptance):
            accepted[entry.receiver, entry.entity].append(entry)
        elif isinstance(entry, Granted):
            owners[entry.entity, entry.epoch] = entry.server
    for (receiver, entity), of_entity in accepted.items():
        of_entity.sort(key=lambda acceptance: acceptance.epoch)
        for lower, higher in pairwise(of_entity):
            if lower.last_ns > higher.first_ns:
                text = f"{receiver} accepted {entity} at epoch {lower.epoch} after {higher.epoch}"
                found.append(Violation("a late ex-owner is refused", text, (higher, lower)))
        for acceptance in of_entity:
            owner = owners.get((entity, acceptance.epoch))
            if owner is not None and owner != acceptance.sender:
                text = (
                    f"{receiver} accepted {entity} at epoch {acceptance.epoch} from {acceptance.sender}, "
                    f"not from {owner}"
                )
                found.append(Violation("only the holder is heard", text, (acceptance,)))
    return found


def _lost(entries: Sequence[Entry], final_epochs: dict[str, int]) -> list[Violation]:
    return [
        Violation(
            "an acknowledged grant stays",
            f"{entry.entity}: {entry.server} got epoch {entry.epoch}, the homeserver ends at {final}",
            (entry,),
        )
        for entry in entries
        if isinstance(entry, Granted) and (final := final_epochs.get(entry.entity, entry.epoch)) < entry.epoch
    ]


def _changed(entries: Sequence[Entry]) -> list[Violation]:
    found = []
    gave: dict[tuple[str, int], HandOver] = {}
    for entry in entries:
        if isinstance(entry, HandOver) and entry.side == "gave":
            gave[entry.entity, entry.epoch] = entry
    for entry in entries:
        if not isinstance(entry, HandOver) or entry.side != "took":
            continue
        giver = gave.get((entry.entity, entry.epoch))
        if giver is not None and giver.hash != entry.hash:
            text = f"{entry.entity}: {entry.server} took over another state than {giver.server} released"
            found.append(Violation("state moves unchanged", text, (giver, entry)))
    return found
