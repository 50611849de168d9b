"""Entries of made-up histories: servers ``a`` and ``b``, a client ``c``, and a ball."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from bridge.authority import Acceptance, Act, Called, Entry, Final, Granted, Known, RecordView, Replied

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16


def act(server: str, epoch: int, first: int, last: int, entity: str = "ball") -> Act:
    session = A if server == "a" else B
    return Act(server=server, session=session, entity=entity, epoch=epoch, first_ns=first, last_ns=last)


def accepted(epoch: int, first: int, last: int, sender: str = "a") -> Acceptance:
    return Acceptance(receiver="c", sender=sender, entity="ball", epoch=epoch, first_ns=first, last_ns=last)


def granted(server: str, epoch: int) -> Granted:
    session = A if server == "a" else B
    return Granted(server=server, session=session, entity="ball", epoch=epoch, at_ns=0)


def view(version: int, epoch: int, session: bytes | None = A, owner: str = "Ann") -> RecordView:
    return RecordView(owner=owner, master="Ann", rule="allow", session=session, epoch=epoch, version=version)


def asked(
    number: int, function: str, at: int, record: RecordView | None, known: Known = Known.OK, **members: Any
) -> list[Entry]:
    """A call that was answered 10 ns later."""
    return [
        Called(client="c", number=number, function=function, at_ns=at, entity="ball", **members),
        Replied(client="c", number=number, at_ns=at + 10, known=known, record=record),
    ]


def created() -> list[Entry]:
    return asked(1, "create_entity", 100, view(1, 1), session=A, owner="Ann", master="Ann", value="allow")


def pulled(number: int, at: int, version: int, epoch: int, session: bytes = B) -> list[Entry]:
    shown = view(version, epoch, session, "Bob")
    return asked(number, "pull", at, shown, session=session, owner="Bob", epoch=1)


def final(instance: str = "local", *, sessions: tuple[bytes, ...] = (A, B), **entities: RecordView) -> Final:
    return Final(instance=instance, at_ns=10_000, entities=entities, sessions=list(sessions))


def gone(number: int, at: int, version: int, epoch: int) -> list[Entry]:
    shown = replace(view(version, epoch, None, "Bob"), deleted=True)
    return asked(number, "delete_entity", at, shown, by="Ann")


def again(number: int, at: int, epoch: int) -> list[Entry]:
    shown = view(1, epoch)
    return asked(number, "create_entity", at, shown, session=A, owner="Ann", master="Ann", value="allow")


def leaving(at: int, *passed: str) -> list[Entry]:
    return [
        Called(client="d", number=1, function="leave", at_ns=at, player="Bob", session=A),
        Replied(client="d", number=1, at_ns=at + 10, known=Known.OK, passed=list(passed)),
    ]
