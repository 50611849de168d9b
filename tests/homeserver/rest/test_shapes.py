from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from bridge.homeserver.rest.shapes import Entity, Epoch, Name
from bridge.registry import Awaiting, EntityRecord, Rule

NAMES: TypeAdapter[str] = TypeAdapter(Name)
EPOCHS: TypeAdapter[str] = TypeAdapter(Epoch)


@pytest.mark.parametrize("name", ["a", "Zoë", "n" * 255, "é" * 127, "a b", "%2F"])
def test_names_are_texts_of_up_to_255_bytes(name: str) -> None:
    assert NAMES.validate_python(name) == name


@pytest.mark.parametrize("name", ["", "n" * 256, "é" * 128, "a/b", "a\n", "\0", "\ud800", ".", "..", 1, None])
def test_what_no_path_can_hold_is_no_name(name: object) -> None:
    with pytest.raises(ValidationError):
        NAMES.validate_python(name)


def test_an_epoch_has_64_bits() -> None:
    assert EPOCHS.validate_python(str(2**64 - 1)) == str(2**64 - 1)
    for text in (str(2**64), "9" * 20, "-1", "1.0", "", "0" * 21):
        with pytest.raises(ValidationError):
            EPOCHS.validate_python(text)


@given(st.integers(0, 2**64 - 1))
def test_an_entity_keeps_all_bits_of_its_epochs(epoch: int) -> None:
    record = EntityRecord(
        entity="ball",
        owner="a",
        master="b",
        rule=Rule.ASK,
        session=bytes(16),
        server="sim1",
        epoch=epoch,
        awaiting=Awaiting(session=bytes(16), server="sim2", epoch=epoch),
        home="emerald",
        version=3,
    )
    entity = Entity.model_validate_json(Entity.of(record).model_dump_json())
    assert (int(entity.epoch), entity.awaiting and int(entity.awaiting.epoch)) == (epoch, epoch)
    assert (entity.server, entity.rule) == ("sim1", Rule.ASK)
