import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import BoxError, BridgeError
from bridge.jose import Jwk
from bridge.replication import World, WorldState, encode_state
from bridge.sim.dataplane.releases import opened_release, sealed_release

UNIX_MS = 1_800_000_000_000
GIVER, TAKER = Jwk.generate("P-256"), Jwk.generate("P-256")


def last_state(tick: int = 7) -> WorldState:
    world = World(bytearray(World.size(1)), 1)
    world.write(0, tick=tick, position=[1.5, -2, 0], velocity=[0.25, 0, 0])
    return world.read(0)


def sealed(*, recipient: Jwk = TAKER, tick: int = 7) -> str:
    return sealed_release(
        "ball", 5, last_state(tick), sender=GIVER, recipient=recipient, session=b"s" * 16, now_ms=UNIX_MS
    )


def opened(
    box: str, *, recipient: Jwk = TAKER, giver: Jwk = GIVER, entity: str = "ball", epoch: int = 5
) -> WorldState:
    return opened_release(
        box, recipient=recipient, giver=giver, entity=entity, epoch=epoch, now_ms=UNIX_MS + 60_000
    )


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_the_taker_gets_the_last_state_however_late(tick: int) -> None:
    """R0-27: a release has no lifetime; a recall may be obeyed after any time."""
    assert encode_state(opened(sealed(tick=tick))) == encode_state(last_state(tick))


@pytest.mark.parametrize("other", [{"entity": "cup"}, {"epoch": 4}, {"giver": TAKER}, {"recipient": GIVER}])
def test_it_opens_for_its_taker_its_giver_its_entity_and_its_epoch_alone(other: dict[str, object]) -> None:
    """R0-20, R0-21."""
    box = sealed()
    with pytest.raises(BridgeError):
        opened(box, **other)  # type: ignore[arg-type]


def test_a_key_of_another_curve_is_refused_before_anything_is_signed() -> None:
    with pytest.raises(BoxError, match="P-256"):
        sealed(recipient=Jwk.generate("P-384").public())
