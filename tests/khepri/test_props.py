from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given

from bridge.errors import ProtocolError
from bridge.etf import Atom, ErlangMap
from bridge.khepri import NodeProps
from bridge.khepri.props import data_of, many_data, many_props, props_from_term, told_in_parts
from tests.support.terms import terms


def test_properties_are_those_that_were_told() -> None:
    term = {
        Atom("data"): 3,
        Atom("payload_version"): 2,
        Atom("child_list_version"): 5,
        Atom("child_list_length"): 1,
        Atom("child_names"): [Atom("oak")],
        Atom("has_data"): True,
        Atom("delete_reason"): Atom("keep_while"),
    }
    assert props_from_term(term) == NodeProps(
        data=3,
        payload_version=2,
        child_list_version=5,
        child_list_length=1,
        child_names=(Atom("oak"),),
        has_data=True,
        delete_reason="keep_while",
    )


def test_a_procedure_is_told_by_its_number_of_arguments() -> None:
    assert props_from_term({Atom("sproc"): 2, Atom("is_sproc"): True}) == NodeProps(sproc=2, is_sproc=True)


def test_what_was_not_told_is_none() -> None:
    assert props_from_term({}) == NodeProps()
    assert NodeProps().data is None


def test_many_nodes_are_told_by_path() -> None:
    term = ErlangMap([([Atom("a")], {Atom("data"): 1}), ([Atom("a"), b"b"], {}), ([], {})])
    assert many_props(term) == {
        (Atom("a"),): NodeProps(data=1),
        (Atom("a"), b"b"): NodeProps(),
        (): NodeProps(),
    }
    assert many_data(term) == {(Atom("a"),): 1, (Atom("a"), b"b"): None, (): None}


def test_many_nodes_are_told_in_parts() -> None:
    numbers = range(9_000)
    term = ErlangMap.of_distinct([[b"%d" % n] for n in numbers], [{Atom("data"): n} for n in numbers])
    told: dict[Any, Any] = {}
    stops = 0

    def tell() -> Generator[None, None, None]:
        told.update((yield from told_in_parts(term, data_of)))

    for _ in tell():
        stops += 1
    assert told == many_data(term)
    assert stops >= 4
    for wrong in ([7], ErlangMap([([7], {})])):
        with pytest.raises(ProtocolError):
            next(told_in_parts(wrong, props_from_term))
    with pytest.raises(StopIteration):
        next(told_in_parts({}, data_of))


@pytest.mark.parametrize("term", [7, [], {Atom("weight"): 3}, {Atom("child_names"): 7}, {7: 7}])
def test_another_shape_breaks_the_protocol(term: Any) -> None:
    with pytest.raises(ProtocolError):
        props_from_term(term)


@pytest.mark.parametrize("term", [7, [1], {7: {}}, ErlangMap([([7], {})])])
def test_another_shape_of_many_breaks_the_protocol(term: Any) -> None:
    for read in (many_props, many_data):
        with pytest.raises(ProtocolError):
            read(term)


@given(terms)
def test_any_term_is_properties_or_breaks_the_protocol(term: object) -> None:
    for read in (props_from_term, many_props, many_data, data_of):
        with contextlib.suppress(ProtocolError):
            read(term)
