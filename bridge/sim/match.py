"""A match as a sequence of touches: who passes to whom, where, and when.

Source of real matches: the event files of Metrica Sports' sample data (one row an event, coordinates from 0
to 1 over the pitch, times in seconds).
"""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge.errors import ConfigurationError

PITCH_METRES: Final = (105.0, 68.0)
"""length and width of the pitch that coordinates 0 … 1 stand for"""

_COLUMNS: Final = (
    "Type",
    "From",
    "To",
    "Start Time [s]",
    "End Time [s]",
    "Start X",
    "Start Y",
    "End X",
    "End Y",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One pass.

    Attributes:
        number: from 1, in the order of play.
        start: seconds into the match when the ball leaves the passer.
        flight: seconds until it arrives, more than 0.
        origin: metres from the corner, (x, y).
        target: metres from the corner, (x, y).
        intercepted: the passer is not the player who got the ball last: somebody took it in between.
    """

    number: int
    passer: str
    receiver: str
    start: float
    flight: float
    origin: tuple[float, float]
    target: tuple[float, float]
    intercepted: bool

    @property
    def velocity(self) -> tuple[float, float, float]:
        """Metres per second on the straight line, at most 60."""
        dx, dy = self.target[0] - self.origin[0], self.target[1] - self.origin[1]
        speed = math.hypot(dx, dy) / self.flight
        scale = min(1.0, 60.0 / speed) / self.flight if speed else 0.0
        return (dx * scale, dy * scale, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Passes in order of play.

    Attributes:
        generated: whether no real match stands behind it.
        seconds: length.
    """

    passes: tuple[Pass, ...]
    generated: bool
    source: str

    @property
    def seconds(self) -> float:
        """Time of the last event, from the start of play."""
        return max((p.start + p.flight for p in self.passes), default=0.0)

    @property
    def players(self) -> tuple[str, ...]:
        """Names, sorted as text."""
        return tuple(sorted({name for p in self.passes for name in (p.passer, p.receiver)}))

    @property
    def interceptions(self) -> int:
        """How often somebody else than the last receiver plays the next pass."""
        return sum(p.intercepted for p in self.passes)


def spread(players: Iterable[str], servers: tuple[str, ...]) -> dict[str, str]:
    """Server of each player: in the order of their names as text, by turns."""
    return {player: servers[i % len(servers)] for i, player in enumerate(sorted(players))}


def crossings(match: Match, home: dict[str, str]) -> int:
    """Passes whose two players are on different servers."""
    return sum(home[p.passer] != home[p.receiver] for p in match.passes)


def load_match(path: Path) -> Match:
    """Read an event file.

    Raises:
        ConfigurationError: no such file, a missing column, or a row that does not parse; names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ConfigurationError(f"{path} is no event file: it has no column {missing[0]!r}")
            rows = [(reader.line_num, row) for row in reader if row["Type"] == "PASS"]
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is no event file: {error}") from error
    passes: list[Pass] = []
    last: str | None = None
    for line, row in rows:
        try:
            one = _parse(row, len(passes) + 1, last)
        except (KeyError, ValueError, TypeError) as error:
            raise ConfigurationError(f"{path}, line {line}: {error}") from error
        passes.append(one)
        last = one.receiver
    if not passes:
        raise ConfigurationError(f"{path} holds no pass")
    return Match(passes=tuple(passes), generated=False, source=path.name)


def _parse(row: dict[str, str], number: int, last: str | None) -> Pass:
    passer, receiver = row["From"], row["To"]
    if not passer or not receiver:
        raise ValueError("a pass without passer or receiver")
    start, end = float(row["Start Time [s]"]), float(row["End Time [s]"])
    if not (math.isfinite(start) and math.isfinite(end)) or start < 0:
        raise ValueError("a pass without times")
    return Pass(
        number=number,
        passer=passer,
        receiver=receiver,
        start=start,
        flight=max(end - start, 0.04),
        origin=_metres(row["Start X"], row["Start Y"]),
        target=_metres(row["End X"], row["End Y"]),
        intercepted=last is not None and last != passer,
    )


def _metres(x: str, y: str) -> tuple[float, float]:
    return float(x) * PITCH_METRES[0], float(y) * PITCH_METRES[1]


def generate_match(*, passes: int, seconds: float, seed: int) -> Match:
    """A made-up match of 28 players; the same seed gives the same match.

    The gaps are exponential, an eighth of the passes follow an interception: rates as in real play, no
    tactics. Nothing measured on it says anything about football.
    """
    rng = random.Random(seed)  # noqa: S311 - a reproducible match, no secret
    players = [f"Player{n}" for n in range(1, 29)]
    where = {name: (rng.uniform(5, 100), rng.uniform(5, 63)) for name in players}
    gaps = [rng.expovariate(1.0) + 0.2 for _ in range(passes)]
    scale = seconds / sum(gaps)
    now, holder = 0.0, rng.choice(players)
    made = []
    for number, gap in enumerate(gaps, start=1):
        intercepted = number > 1 and rng.random() < 0.125
        passer = rng.choice([p for p in players if p != holder]) if intercepted else holder
        receiver = rng.choice([p for p in players if p != passer])
        made.append(
            Pass(
                number=number,
                passer=passer,
                receiver=receiver,
                start=now,
                flight=max(0.04, 0.6 * gap * scale),
                origin=where[passer],
                target=where[receiver],
                intercepted=intercepted,
            )
        )
        now, holder = now + gap * scale, receiver
    return Match(passes=tuple(made), generated=True, source=f"generated, seed {seed}")
