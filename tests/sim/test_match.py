import os
from pathlib import Path

import pytest

from bridge.errors import ConfigurationError
from bridge.sim.match import Match, crossings, generate_match, load_match, spread

SHARED = Path(os.environ.get("BRIDGE_SHARED", Path(__file__).parents[3] / "shared"))
MATCH = SHARED / "data" / "passes_game1.csv"

HEADER = (
    "Team,Type,Subtype,Period,Start Frame,Start Time [s],End Frame,End Time [s],From,To,"
    "Start X,Start Y,End X,End Y\n"
)


def pass_row(start: str = "1.0", end: str = "2.0", to: str = "Player2") -> str:
    return f"Home,PASS,,1,1,{start},2,{end},Player1,{to},0.5,0.5,0.6,0.5\n"


@pytest.fixture
def real() -> Match:
    if not MATCH.is_file():
        pytest.skip(f"no match at {MATCH}: set BRIDGE_SHARED to the folder of shared data")
    return load_match(MATCH)


def test_the_real_match_has_799_passes_of_28_players_and_413_cross(real: Match) -> None:
    home = spread(real.players, ("sim1", "sim2"))
    assert (len(real.passes), len(real.players), crossings(real, home)) == (799, 28, 413)
    assert not real.generated
    assert real.seconds == pytest.approx(5745, abs=20)


def test_passes_are_in_order_of_play_with_a_flight_and_a_bounded_speed(real: Match) -> None:
    starts = [one.start for one in real.passes]
    assert starts == sorted(starts)
    assert all(one.flight > 0 for one in real.passes)
    assert max(abs(component) for one in real.passes for component in one.velocity) <= 60.0


def test_a_generated_match_says_so_and_is_the_same_for_the_same_seed() -> None:
    one = generate_match(passes=50, seconds=10.0, seed=7)
    assert one.generated
    assert one == generate_match(passes=50, seconds=10.0, seed=7)
    assert one != generate_match(passes=50, seconds=10.0, seed=8)
    assert len(one.passes) == 50
    assert one.seconds == pytest.approx(10.0, rel=0.2)


def test_an_interception_is_a_pass_by_somebody_else_than_the_last_receiver() -> None:
    match = generate_match(passes=200, seconds=10.0, seed=3)
    for before, now in zip(match.passes, match.passes[1:], strict=False):
        assert now.intercepted == (now.passer != before.receiver)
    assert match.interceptions == sum(one.intercepted for one in match.passes) > 0


def test_players_are_spread_by_turns_in_the_order_of_their_names() -> None:
    assert spread(["b", "a", "c"], ("sim1", "sim2")) == {"a": "sim1", "b": "sim2", "c": "sim1"}


def test_a_file_that_is_not_there_or_no_event_file_is_said_clearly(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        load_match(tmp_path / "none.csv")
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(ConfigurationError, match="has no column 'Type'"):
        load_match(other)
    other.write_text(HEADER)
    with pytest.raises(ConfigurationError, match="holds no pass"):
        load_match(other)


@pytest.mark.parametrize("row", [pass_row(start="x"), pass_row(end="nan"), pass_row(to=""), "Home,PASS\n"])
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, row: str) -> None:
    file = tmp_path / "match.csv"
    file.write_text(HEADER + pass_row() + row)
    with pytest.raises(ConfigurationError, match="line 3"):
        load_match(file)


def test_a_pass_without_duration_gets_the_length_of_a_frame(tmp_path: Path) -> None:
    file = tmp_path / "match.csv"
    file.write_text(HEADER + pass_row(start="2.0", end="2.0"))
    (one,) = load_match(file).passes
    assert one.flight == 0.04
    assert one.velocity == pytest.approx((60.0, 0.0, 0.0))
