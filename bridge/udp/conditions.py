"""What a bad network does, and the text that says it: ``loss=5%,burst=4,delay=25ms,jitter=10ms``.

A text is a list of ``condition=value`` with commas between; what is not named does not happen, so that the
empty text is a perfect network. ``str`` of conditions is the shortest text that parses to them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any, Final, NamedTuple, Self

from bridge.errors import ConfigurationError

MAX_SECONDS: Final = 86_400.0
"""seconds; the longest delay, and the latest beginning or end of a partition"""
DEFAULT_QUEUE_BYTES: Final = 128 << 10
"""bytes; about 100 ms at 10 Mbit/s, what a home router holds"""
MIN_QUEUE_BYTES: Final = 1500

_TIMES: Final = ("delay", "jitter", "reorder_by")
_FRACTIONS: Final = ("loss", "duplicate", "reorder")
_TIME_UNITS: Final = {"us": Decimal("1e-6"), "ms": Decimal("1e-3"), "s": Decimal(1)}
_RATE_UNITS: Final = {"bit": 1, "kbit": 1_000, "mbit": 1_000_000, "gbit": 1_000_000_000}
_SIZE_UNITS: Final = {"B": 1, "kB": 1000, "KiB": 1 << 10, "MB": 1_000_000, "MiB": 1 << 20}
_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(%|[A-Za-z]*)", re.ASCII)


class Partition(NamedTuple):
    """A time in which nothing passes. Seconds, from the first datagram that was sent."""

    start: float
    length: float

    def __str__(self) -> str:
        return f"{_format_time(self.start)}+{_format_time(self.length)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConditions:
    """What happens to each datagram on the way to each destination, in one direction.

    Times are seconds. ``loss``, ``duplicate`` and ``reorder`` are fractions, 0 to 1.

    Raises:
        ConfigurationError: conditions that no network can have; the text says which and why.
    """

    loss: float = 0.0
    """Fraction that is lost, in the long run."""

    burst: float | None = None
    """Mean number of datagrams lost in a row (Gilbert's two-state model, all lost in the bad state, none in
    the good one). ``None``: each datagram is lost or not by itself."""

    delay: float = 0.0
    """One way."""

    jitter: float = 0.0
    """Added to the delay of each datagram: uniform from zero to this. Above the spacing of datagrams it
    reorders them."""

    duplicate: float = 0.0
    """Fraction that arrives twice; the copy has a jitter of its own."""

    reorder: float = 0.0
    """Fraction that is held back by ``reorder_by``, so that what follows overtakes it."""

    reorder_by: float = 0.01
    """How long what is reordered is held back."""

    rate: float | None = None
    """Bytes of UDP payload a second (as text: bits, ``10mbit``). ``None``: no limit."""

    queue: int = DEFAULT_QUEUE_BYTES
    """Bytes that wait for the rate at most; what comes while they are there is dropped."""

    partition: tuple[Partition, ...] = ()
    """Times in which what is sent is lost; what is on its way then arrives."""

    seed: int = 0
    """Of everything that is left to chance: the same seed and the same datagrams give the same run."""

    def __post_init__(self) -> None:
        for name in _FRACTIONS:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"{name} is 0 to 100 %, not {getattr(self, name):%}")
        for name in _TIMES:
            if not 0 <= getattr(self, name) <= MAX_SECONDS:
                raise ConfigurationError(f"{name} is 0 s to {MAX_SECONDS:.0f} s, not {getattr(self, name)} s")
        if self.burst is not None:
            self._check_burst(self.burst)
        if self.rate is not None and not 1 <= self.rate < math.inf:
            raise ConfigurationError(f"rate is at least 8 bit a second, not {self.rate * 8:g}")
        if self.queue < MIN_QUEUE_BYTES:
            raise ConfigurationError(
                f"queue is at least {MIN_QUEUE_BYTES} bytes, one datagram, not {self.queue}"
            )
        for start, length in self.partition:
            if not (start >= 0 and length > 0 and start + length <= MAX_SECONDS):
                raise ConfigurationError(
                    f"a partition lies between 0 s and {MAX_SECONDS:.0f} s, and takes time"
                )
        if self.seed < 0:
            raise ConfigurationError("seed is not negative")

    def _check_burst(self, burst: float) -> None:
        if not 1 <= burst < math.inf:
            raise ConfigurationError(f"burst is a number of datagrams from 1, not {burst}")
        # Between two bursts lies at least one datagram that passes.
        if self.loss < 1 and burst < (least := self.loss / (1 - self.loss)):
            raise ConfigurationError(f"a loss of {self.loss:.4g} needs a burst of at least {least:.4g}")

    def __str__(self) -> str:
        words = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            each = value if field.name == "partition" else (value,)
            words += [f"{field.name}={_FORMATS[field.name][1](one)}" for one in each]
        return ",".join(words)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Conditions as a text says them.

        Args:
            text: such as ``loss=5%,burst=4,delay=25ms,jitter=10ms,duplicate=1%,reorder=2%,reorder_by=10ms,
                rate=10mbit,queue=64KiB,partition=10s+5s,seed=7``. ``partition`` may be there more than once.

        Raises:
            ConfigurationError: the text says none; the error says where and what to write.
        """
        values: dict[str, Any] = {}
        for word in text.split(",") if text.strip() else ():
            name, equals, value = (part.strip() for part in word.partition("="))
            if name not in _FORMATS or not equals:
                known = ", ".join(_FORMATS)
                raise ConfigurationError(
                    f"network: {word.strip()!r} is no condition=value; conditions: {known}"
                )
            parsed = _FORMATS[name][0](name, value)
            if name == "partition":
                values[name] = (*values.get(name, ()), parsed)
            elif name in values:
                raise ConfigurationError(f"network: {name} is there twice")
            else:
                values[name] = parsed
        return cls(**values)


def _quantity(name: str, text: str, units: Mapping[str, Decimal | int], example: str) -> Decimal:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in units:
        raise ConfigurationError(f"network: {name}={text}: write {example} (units: {', '.join(units)})")
    return Decimal(match[1]) * units[match[2]]


def _parse_fraction(name: str, text: str) -> float:
    return float(_quantity(name, text, {"%": Decimal("0.01")}, f"{name}=5%"))


def _parse_time(name: str, text: str) -> float:
    return float(_quantity(name, text, _TIME_UNITS, f"{name}=25ms"))


def _parse_rate(name: str, text: str) -> float:
    return float(_quantity(name, text, _RATE_UNITS, f"{name}=10mbit") / 8)


def _parse_size(name: str, text: str) -> int:
    return int(_quantity(name, text, _SIZE_UNITS, f"{name}=64KiB"))


def _parse_count(name: str, text: str) -> float:
    return float(_quantity(name, text, {"": 1}, f"{name}=4"))


def _parse_seed(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,100}", text, re.ASCII):
        raise ConfigurationError(f"network: {name}={text}: write a whole number, {name}=7")
    return int(text)


def _parse_partition(name: str, text: str) -> Partition:
    start, plus, length = text.partition("+")
    if not plus:
        raise ConfigurationError(f"network: {name}={text}: write its start and its length, {name}=10s+5s")
    return Partition(_parse_time(name, start), _parse_time(name, length))


def _plain(value: Decimal) -> str:
    digits = format(value, "f")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _format_fraction(value: float) -> str:
    return f"{_plain(Decimal(repr(value)) * 100)}%"


def _format_time(value: float) -> str:
    exact = Decimal(repr(value))
    return f"{_plain(exact)}s" if not value or value >= 1 else f"{_plain(exact * 1000)}ms"


def _format_rate(value: float) -> str:
    bits = Decimal(repr(value)) * 8
    unit = next(unit for unit in ("gbit", "mbit", "kbit", "bit") if bits >= _RATE_UNITS[unit])
    return f"{_plain(bits / _RATE_UNITS[unit])}{unit}"


def _format_size(value: int) -> str:
    unit = next(unit for unit in ("MiB", "KiB", "B") if value % _SIZE_UNITS[unit] == 0)
    return f"{value // _SIZE_UNITS[unit]}{unit}"


def _format_count(value: float) -> str:
    return _plain(Decimal(repr(value)))


_FORMATS: Final[dict[str, tuple[Callable[[str, str], Any], Callable[[Any], str]]]] = {
    "loss": (_parse_fraction, _format_fraction),
    "burst": (_parse_count, _format_count),
    "delay": (_parse_time, _format_time),
    "jitter": (_parse_time, _format_time),
    "duplicate": (_parse_fraction, _format_fraction),
    "reorder": (_parse_fraction, _format_fraction),
    "reorder_by": (_parse_time, _format_time),
    "rate": (_parse_rate, _format_rate),
    "queue": (_parse_size, _format_size),
    "partition": (_parse_partition, str),
    "seed": (_parse_seed, str),
}
