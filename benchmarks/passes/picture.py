"""The results as a picture: latency over the round trip for each case, a panel for each loss. SVG by hand.

A plotting library would be one more dependency for a hundred lines that change never.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final
from xml.sax.saxutils import escape

NAMES: Final = {
    "establish": "establishment",
    "case1": "Case 1: other instance",
    "case2": "Case 2: push",
    "case2_pull": "Case 2: pull",
    "case2_switch": "switch",
    "case3": "Case 3: direct update",
    "client_server": "client–server, transfer",
    "client_server_update": "client–server, input",
}
"""by key of the results, in the order of the tables"""
_COLOURS: Final = dict(
    zip(
        NAMES,
        ("#e69f00", "#d55e00", "#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#000000", "#999999"),
        strict=True,
    )
)
_WIDTH: Final = 290
_HEIGHT: Final = 300
_LEFT: Final = 46
_TOP: Final = 34
_GAP: Final = 14
_LOWEST: Final = 0.5
_HIGHEST: Final = 3_000.0
_TICKS: Final = (1, 3, 10, 30, 100, 300, 1_000, 3_000)
_FONT: Final = 'font-family="sans-serif"'


def losses(results: Mapping[str, Any]) -> list[str]:
    """Suffixes of the keys of series, by loss: empty for none."""
    found = {key.partition("_loss_")[2] for key in results if key.partition("_loss_")[0] in NAMES}
    return [f"_loss_{loss}" if loss else "" for loss in sorted(found, key=lambda text: float(text or 0))]


def svg(results: Mapping[str, Any]) -> str:
    """The whole picture.

    Args:
        results: as the benchmark writes them.
    """
    suffixes = losses(results)
    width = _LEFT + len(suffixes) * (_WIDTH + _GAP)
    height = _TOP + _HEIGHT + 40 + 18 * math.ceil(len(NAMES) / 3) + 22
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, suffix in enumerate(suffixes):
        left = _LEFT + number * (_WIDTH + _GAP)
        loss = suffix.removeprefix("_loss_")
        parts += _panel(results, suffix, left, f"{loss or 0} % loss", labels=number == 0)
    parts += _legend(results, _TOP + _HEIGHT + 48)
    return "\n".join([*parts, "</svg>", ""])


def _panel(results: Mapping[str, Any], suffix: str, left: int, title: str, *, labels: bool) -> list[str]:
    parts = [
        _text(left + _WIDTH / 2, _TOP - 10, title, anchor="middle", size=13),
        f'<rect x="{left}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#888"/>',
    ]
    for tick in _TICKS:
        y = _y(tick)
        parts.append(f'<line x1="{left}" x2="{left + _WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        if labels:
            parts.append(_text(left - 5, y + 4, f"{tick:,}", anchor="end"))
    if labels:
        parts.append(_text(6, _TOP - 10, "ms"))
    rtts = sorted({float(rtt) for name in NAMES for rtt in results.get(name + suffix, {})})
    place = {rtt: left + _WIDTH * (i + 0.5) / len(rtts) for i, rtt in enumerate(rtts)}
    for rtt, x in place.items():
        parts.append(_text(x, _TOP + _HEIGHT + 16, f"{rtt:g}", anchor="middle"))
    parts.append(_text(left + _WIDTH / 2, _TOP + _HEIGHT + 32, "round trip, ms", anchor="middle"))
    for name, colour in _COLOURS.items():
        rows = {float(rtt): row for rtt, row in results.get(name + suffix, {}).items() if "p50_ms" in row}
        if rows:
            p50, p99 = (
                [(place[rtt], _y(rows[rtt][key])) for rtt in sorted(rows)] for key in ("p50_ms", "p99_ms")
            )
            parts += [_line(p50, colour, 2.0), _line(p99, colour, 1.0, dashes="2 3")]
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in p50]
    return parts


def _legend(results: Mapping[str, Any], top: int) -> list[str]:
    parts = []
    shown = [name for name in NAMES if name in results]
    for number, name in enumerate(shown):
        x, y = _LEFT + (number % 3) * 240, top + 18 * (number // 3)
        parts.append(_line([(x, y), (x + 24, y)], _COLOURS[name], 2.0))
        parts.append(_text(x + 30, y + 4, NAMES[name]))
    y = top + 18 * math.ceil(len(shown) / 3)
    parts.append(_text(_LEFT, y + 6, "line with dots: median; dotted: 99th percentile. Jitter is 10 %."))
    return parts


def _y(milliseconds: float) -> float:
    share = math.log(min(max(milliseconds, _LOWEST), _HIGHEST) / _LOWEST) / math.log(_HIGHEST / _LOWEST)
    return _TOP + _HEIGHT * (1 - share)


def _line(points: Sequence[tuple[float, float]], colour: str, width: float, *, dashes: str = "") -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dashed}/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 11) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" {_FONT} font-size="{size}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
