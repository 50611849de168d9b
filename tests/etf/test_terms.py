"""Terms that Python has no type for."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigurationError, LimitExceededError
from bridge.etf import (
    Atom,
    BitString,
    Closure,
    ExportFun,
    ImproperList,
    Pid,
    Port,
    Reference,
    decode_term,
    encode_term,
    set_atom_budget,
    terms,
)

_WORD = st.integers(0, 2**32 - 1)
_ATOM = st.text(max_size=12).filter(lambda text: text not in ("true", "false")).map(Atom)


@given(
    st.one_of(
        st.builds(Pid, _ATOM, _WORD, _WORD, _WORD),
        st.builds(Port, _ATOM, st.integers(0, 2**64 - 1), _WORD),
        st.builds(Reference, _ATOM, _WORD, st.lists(_WORD, min_size=1, max_size=5).map(tuple)),
        st.builds(ExportFun, _ATOM, _ATOM, st.integers(0, 255)),
        st.builds(BitString, st.binary(min_size=1, max_size=5), st.integers(1, 7)),
        st.builds(ImproperList, st.lists(_ATOM, min_size=1, max_size=3), _ATOM),
    )
)
def test_every_kind_survives_the_wire(term: Any) -> None:
    assert decode_term(encode_term(term)) == term


def test_atoms_of_one_text_are_one_object_however_they_come_about() -> None:
    atom = Atom("stone")
    assert copy.copy(atom) is copy.deepcopy(atom) is pickle.loads(pickle.dumps(atom)) is atom
    assert decode_term(b"\x83w\x05stone") is decode_term(b"\x83s\x05stone") is atom
    assert (str(atom), repr(atom)) == ("stone", "Atom('stone')")


def test_threads_that_make_an_atom_at_once_get_one_object() -> None:
    barrier = threading.Barrier(8)
    made: list[list[Atom]] = []

    def make() -> None:
        barrier.wait()
        made.append([Atom(f"thread_{n}") for n in range(200)])

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for atoms in zip(*made, strict=True):
        assert len({id(atom) for atom in atoms}) == 1


def test_an_atom_that_nobody_holds_is_collected() -> None:
    gone = weakref.ref(Atom("nobody holds this one"))
    gc.collect()
    assert gone() is None


@pytest.fixture
def fresh_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a program that has encoded no atom yet."""
    monkeypatch.setattr(terms, "_budget", terms._Budget())


@pytest.mark.usefixtures("fresh_budget")
def test_a_program_encodes_so_many_different_atoms_and_no_more() -> None:
    set_atom_budget(3)
    for turn in range(2):
        encode_term([Atom(f"spent {turn} {n}") for n in range(turn, 2)])
    gc.collect()
    encode_term([Atom("spent 0 0"), Atom("spent 0 1"), Atom("spent 1 1"), b"spent not"])
    held = Atom("spent too late")
    for _ in range(2):
        with pytest.raises(
            LimitExceededError, match=r"atom_budget=3 different atoms .*spent too late.* str or bytes"
        ):
            encode_term({b"key": [held]})
    set_atom_budget(4)
    assert decode_term(encode_term(held)) is held
    set_atom_budget(0)
    encode_term(held)
    with pytest.raises(LimitExceededError):
        encode_term(Atom("spent later still"))
    set_atom_budget(None)
    encode_term(Atom("spent later still"))


@pytest.mark.usefixtures("fresh_budget")
def test_an_atom_that_is_only_decoded_or_compared_costs_nothing() -> None:
    set_atom_budget(0)
    assert decode_term(b"\x83w\x05unspt") == Atom("unspt")
    with pytest.raises(LimitExceededError):
        encode_term(Atom("unspt"))


def test_a_budget_is_none_or_a_number() -> None:
    with pytest.raises(ConfigurationError, match="budget"):
        set_atom_budget(-1)


def test_an_atom_has_no_attributes_but_its_own() -> None:
    with pytest.raises(AttributeError, match="colour"):
        Atom("stone").colour  # type: ignore[attr-defined]  # noqa: B018


def test_an_atom_has_255_characters_at_most_of_whatever_width() -> None:
    for character in ("x", "é", "語", "🜁"):
        atom = Atom(character * 255)
        assert decode_term(encode_term(atom)) is atom
        with pytest.raises(ConfigurationError, match="255 characters, not 256"):
            Atom(character * 256)


@pytest.mark.parametrize("text", ["\ud800", b"bytes", 7, None])
def test_what_is_no_text_is_no_atom(text: Any) -> None:
    with pytest.raises(ConfigurationError):
        Atom(text)


def test_an_atom_cannot_change_or_be_subclassed() -> None:
    with pytest.raises(AttributeError, match="text"):
        Atom("stone").text = "wood"
    with pytest.raises(ConfigurationError, match="subclassed"):
        type("Other", (Atom,), {})


def test_a_bit_string_clears_the_bits_it_does_not_use() -> None:
    assert BitString(b"\xff", 3) == BitString(b"\xe0", 3)
    assert len(BitString(b"\x00\xe0", 3)) == 11
    for data, bits in ((b"", 1), (b"\x00", 0), (b"\x00", 8)):
        with pytest.raises(ConfigurationError, match="use bytes"):
            BitString(data, bits)


def test_an_improper_list_has_an_element_and_a_tail_that_is_no_list() -> None:
    for elements, tail in (([], Atom("t")), ([1], [2]), ([1], ImproperList([2], 3))):
        with pytest.raises(ConfigurationError, match="use list"):
            ImproperList(elements, tail)


@pytest.mark.parametrize(
    "term",
    [
        Pid(Atom("n@h"), 1 << 32, 0, 0),
        Pid(Atom("n@h"), 0, -1, 0),
        Port(Atom("n@h"), 1 << 64, 0),
        Port(Atom("n@h"), 0, 1 << 32),
        Reference(Atom("n@h"), 0, ()),
        Reference(Atom("n@h"), 0, (1,) * 6),
        Reference(Atom("n@h"), 0, (1 << 32,)),
        ExportFun(Atom("m"), Atom("f"), 256),
        ExportFun(Atom("m"), Atom("f"), -1),
        Pid(True, 1, 2, 3),  # type: ignore[arg-type]  # as a caller without a type checker may
        Port("n@h", 1, 2),  # type: ignore[arg-type]
        Reference(Atom("n@h"), 0, 7),  # type: ignore[arg-type]
        Reference(Atom("n@h"), 0, (1.5,)),  # type: ignore[arg-type]
        ExportFun("m", Atom("f"), 1),  # type: ignore[arg-type]
        Closure("text"),  # type: ignore[arg-type]
    ],
)
def test_a_field_that_does_not_fit_is_refused_when_it_is_encoded(term: Any) -> None:
    with pytest.raises(ConfigurationError):
        encode_term(term)


def test_a_closure_is_kept_byte_for_byte() -> None:
    body = b"\x02" + bytes(16) + bytes(8) + b"w\x01ma\x00a\x00" + encode_term(Pid(Atom("n@h"), 1, 0, 1))[1:]
    raw = b"\x83p" + (len(body) + 4).to_bytes(4, "big") + body
    closure = decode_term(raw)
    assert isinstance(closure, Closure)
    assert closure.arity == 2
    assert encode_term(closure) == raw


def test_a_pid_prints_its_node() -> None:
    assert str(Pid(Atom("n@h"), 4, 5, 6)) == "<n@h.4.5>"
