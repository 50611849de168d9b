import msgspec
import pytest

from bridge.sim.events import (
    Asked,
    AuthorityGained,
    EntityDeleted,
    EntityUpdated,
    FellSilent,
    PeerSessionChanged,
    Problem,
    ServerEvent,
    SessionLost,
    SessionOpened,
    StateAccepted,
)

EVENTS: list[tuple[ServerEvent, bytes]] = [
    (
        AuthorityGained(entity="ball", epoch=7, at_ns=1),
        b'{"type":"authority_gained","entity":"ball","epoch":7,"at_ns":1}',
    ),
    (
        StateAccepted(entity="ball", epoch=7, sender="sim2", at_ns=1),
        b'{"type":"state_accepted","entity":"ball","epoch":7,"sender":"sim2","at_ns":1}',
    ),
    (
        PeerSessionChanged(server="sim2", up=False, reason="idle"),
        b'{"type":"peer","server":"sim2","up":false,"reason":"idle"}',
    ),
    (
        Asked(entity="gun", player="P", master="M", expires_ms=7),
        b'{"type":"asked","entity":"gun","player":"P","master":"M","expires_ms":7}',
    ),
    (
        EntityUpdated(entity="ball", by="P", owner="Q", at_ns=1),
        b'{"type":"updated","entity":"ball","by":"P","owner":"Q","at_ns":1}',
    ),
    (EntityDeleted(entity="ball", at_ns=1), b'{"type":"deleted","entity":"ball","at_ns":1}'),
    (SessionOpened(lease_ms=3000), b'{"type":"session_opened","lease_ms":3000}'),
    (SessionLost(entities=("ball",), at_ns=1), b'{"type":"session_lost","entities":["ball"],"at_ns":1}'),
    (FellSilent(entities=2, at_ns=1), b'{"type":"fell_silent","entities":2,"at_ns":1}'),
    (Problem(text="no", fatal=True), b'{"type":"problem","text":"no","fatal":true}'),
]


@pytest.mark.parametrize(("event", "line"), EVENTS, ids=lambda value: type(value).__name__)
def test_an_event_is_one_json_object_that_names_its_kind(event: ServerEvent, line: bytes) -> None:
    """Drivers in other languages read these names."""
    assert msgspec.json.encode(event) == line
    assert msgspec.json.decode(line, type=ServerEvent) == event


def test_the_examples_are_all_there_is() -> None:
    assert {type(event) for event, _ in EVENTS} == set(ServerEvent.__args__)
