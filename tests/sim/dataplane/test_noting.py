from bridge.authority import Act, Began, Entry, Granted, HandOver
from bridge.sim.dataplane.noting import MAX_ENTRIES, Notes
from bridge.sim.dataplane.sealing import Sealing

SESSION = b"s" * 16


def notes(*, written: list[Entry] | None = None, keep_history: bool = False) -> Notes:
    made = Notes("a", record=None if written is None else written.append, keep_history=keep_history)
    made.session = SESSION
    return made


def sealing(*, first_ns: int | None = 3, last_ns: int = 9) -> Sealing:
    return Sealing(entity="ball", epoch=5, slot=0, handle=0, first_ns=first_ns, last_ns=last_ns)


def test_memory_has_the_newest_and_the_file_all() -> None:
    written: list[Entry] = []
    kept = notes(written=written)
    for epoch in range(MAX_ENTRIES + 3):
        kept.granted("ball", epoch, at_ns=epoch)
    granted = [
        Granted(server="a", session=SESSION, entity="ball", epoch=n, at_ns=n) for n in range(MAX_ENTRIES + 3)
    ]
    assert (written, list(kept.entries()), kept.dropped) == (granted, granted[3:], 3)


def test_the_whole_history_is_kept_where_it_is_wanted() -> None:
    kept = notes(keep_history=True)
    for epoch in range(MAX_ENTRIES + 3):
        kept.hand_over("gave", "ball", epoch, bytes(32))
    assert len(list(kept.entries())) == MAX_ENTRIES + 3
    assert kept.dropped == 0


def test_an_act_is_what_was_sealed_and_none_where_nothing_was() -> None:
    kept = notes()
    kept.ended(sealing(first_ns=None))
    kept.ended(sealing())
    assert list(kept.entries()) == [
        Act(server="a", session=SESSION, entity="ball", epoch=5, first_ns=3, last_ns=9)
    ]


def test_that_an_act_began_is_written_to_the_file_alone() -> None:
    written: list[Entry] = []
    for kept in (notes(), notes(written=written)):
        kept.began([sealing()], now_ns=3)
        assert list(kept.entries()) == []
    assert written == [Began(server="a", session=SESSION, entity="ball", epoch=5, first_ns=3)]


def test_a_hand_over_names_its_side() -> None:
    kept = notes()
    kept.hand_over("took", "ball", 4, b"h" * 32)
    assert list(kept.entries()) == [HandOver(server="a", side="took", entity="ball", epoch=4, hash=b"h" * 32)]
