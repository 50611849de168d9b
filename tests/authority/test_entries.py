"""Entries in files, and of several instances."""

from __future__ import annotations

import pytest

from bridge.authority import Act, Entry, check, decode_entries, encode_entry, of_instance
from bridge.errors import DecodeError
from tests.support.history import accepted, act, created, final, granted, view


def test_entries_survive_a_file() -> None:
    entries: list[Entry] = [
        act("a", 1, 0, 1),
        accepted(1, 0, 1),
        granted("a", 1),
        *created(),
        final(b=view(1, 1)),
    ]
    assert decode_entries([*map(encode_entry, entries), b"", b"\n"]) == entries


def test_a_line_that_is_no_entry_is_named() -> None:
    with pytest.raises(DecodeError, match="line 2"):
        decode_entries([encode_entry(act("a", 1, 0, 1)), b'{"type":"nonsense"}'])


@pytest.mark.parametrize("line", [b'{"type":"act","server":"\xff"}', b"[" * 100_000, b'"\xff"'])
def test_a_line_that_is_no_utf_8_or_too_deep_is_no_entry(line: bytes) -> None:
    with pytest.raises(DecodeError, match="line 1"):
        decode_entries([line])


def test_servers_of_two_instances_with_one_name_are_told_apart() -> None:
    """What one instance accepted of another's server is that server's, whatever its own is called."""
    there: list[Entry] = [act("a", 5, 100, 200), granted("a", 5)]
    here: list[Entry] = [act("a", 3, 0, 50), accepted(5, 110, 210, sender="a@ruby"), *created()]
    together = of_instance(here, "emerald") + of_instance(there, "ruby")
    assert check(together).violations == []
    assert check(together).operations == 0
    assert {entry.server for entry in together if isinstance(entry, Act)} == {"a@emerald", "a@ruby"}
    wrong = [accepted(5, 110, 210, sender="b@ruby")]
    assert check([*together, *of_instance(wrong, "emerald")]).stale_acceptances
