"""Reasons of the homeserver as classes of errors."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import AuthorityError
from bridge.etf import Atom
from bridge.khepri import InvalidRequestError, UnknownKhepriError
from bridge.registry import (
    AlreadyOwnerError,
    AwayError,
    ConflictError,
    DeniedError,
    EntityExistsError,
    MasterAwayError,
    NameInUseError,
    NameTakenError,
    NoAskError,
    NotEnrolledError,
    NotHereError,
    NotHolderError,
    NotMasterError,
    NotOwnerError,
    PendingError,
    ReplayedError,
    RevokedError,
    TooManyAsksError,
    UnknownEntityError,
    UnknownServerError,
    refusals,
)
from bridge.registry.refusals import authority_error


def refused(reason: str, **props: Any) -> Exception:
    return authority_error(UnknownKhepriError(reason, reason=Atom(reason), props=props))


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("conflict", ConflictError),
        ("denied", DeniedError),
        ("not_owner", NotOwnerError),
        ("not_master", NotMasterError),
        ("not_holder", NotHolderError),
        ("no_session", NotHolderError),
        ("pending", PendingError),
        ("master_away", MasterAwayError),
        ("too_many_asks", TooManyAsksError),
        ("no_ask", NoAskError),
        ("already_owner", AlreadyOwnerError),
        ("no_player", NotHereError),
        ("not_here", NotHereError),
        ("no_entity", UnknownEntityError),
        ("no_server", UnknownServerError),
        ("name_in_use", NameInUseError),
        ("entity_exists", EntityExistsError),
        ("away", AwayError),
        ("name_taken", NameTakenError),
        ("key_taken", NameTakenError),
        ("not_enrolled", NotEnrolledError),
        ("revoked", RevokedError),
        ("replayed", ReplayedError),
        ("bad_release", AuthorityError),
    ],
)
def test_each_reason_has_its_class_and_is_kept(reason: str, error: type[AuthorityError]) -> None:
    found = refused(reason)
    assert type(found) is error
    assert found.reason == Atom(reason)


def test_a_conflict_names_the_winner_and_the_epoch() -> None:
    conflict = refused("conflict", winner="Grün".encode(), epoch=7)
    assert isinstance(conflict, ConflictError)
    assert (conflict.winner, conflict.epoch) == ("Grün", 7)


def test_a_name_in_use_tells_the_session_that_is_open() -> None:
    found = refused("name_in_use", session=bytes(16))
    assert isinstance(found, NameInUseError)
    assert found.session == bytes(16)
    nothing = refused("name_in_use", session=Atom("undefined"))
    assert isinstance(nothing, NameInUseError)
    assert nothing.session == b""


def test_a_conflict_that_says_nothing_still_reads() -> None:
    conflict = refused("conflict", winner=b"\xff", epoch=Atom("undefined"))
    assert isinstance(conflict, ConflictError)
    assert (conflict.winner, conflict.epoch) == ("\ufffd", 0)


def test_what_is_away_says_where() -> None:
    away = refused("away", instance=b"ruby")
    assert isinstance(away, AwayError)
    assert away.instance == "ruby"
    silent = refused("away")
    assert isinstance(silent, AwayError)
    assert silent.instance == ""


def test_what_the_store_refuses_stays_what_it_is() -> None:
    error = InvalidRequestError("no", reason=Atom("invalid_request"), props={})
    assert authority_error(error) is error


def test_the_classes_drawn_are_the_classes_there_are() -> None:
    assert refusals.__doc__ is not None
    for name in ("ConflictError", "DeniedError", "NotOwnerError", "NoAskError", "UnknownServerError"):
        assert f"── {name} " in refusals.__doc__
