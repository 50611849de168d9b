"""What a read may be asked, and its form on the wire (``docs/protocol.md`` §1, ``Read``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, TypedDict, get_args

from bridge.errors import ConfigurationError
from bridge.etf import Atom

MAX_TIMEOUT: Final = 60.0
"""seconds that a homeserver spends on one request at the most"""

_TIMEOUT: Final = Atom("timeout")

Favor = Literal["low_latency", "consistency"]
Prop = Literal[
    "payload",
    "payload_version",
    "child_list_version",
    "child_list_length",
    "child_names",
    "has_payload",
    "delete_reason",
]
"""A property of a node that can be asked for; ``payload`` brings ``data`` or ``sproc``, and ``has_payload``
brings ``has_data`` or ``is_sproc``."""


class ReadOptions(TypedDict, total=False):
    """Keyword arguments of everything that reads.

    Attributes:
        favor: ``low_latency`` (default) reads the connected member as it is; ``consistency`` asks the leader
            first how far the log goes, and waits until this member has applied that.
        timeout: seconds, up to 60 of them at the homeserver; by default the client's.
        expect_specific_node: refuse a pattern that may match several nodes.
        include_root_props: for patterns that match it, tell of the root too.
    """

    favor: Favor
    timeout: float | None
    expect_specific_node: bool
    include_root_props: bool


def read_options(
    options: Mapping[str, Any], seconds: float, props: Iterable[Prop] | None = None
) -> dict[Atom, Any]:
    """The map to send.

    Raises:
        ConfigurationError: an option or a property that there is not, or of another type.
    """
    wire: dict[Atom, Any] = {_TIMEOUT: milliseconds(seconds)}
    if not options and props is None:
        return wire
    for name, value in options.items():
        match name:
            case "timeout":
                continue
            case "favor" if value in get_args(Favor):
                wire[Atom(name)] = Atom(value)
            case "expect_specific_node" | "include_root_props" if type(value) is bool:
                wire[Atom(name)] = value
            case _:
                raise ConfigurationError(
                    f"{name}={value!r:.100} is no option of a read: use favor (low_latency, consistency), "
                    "timeout, expect_specific_node, include_root_props"
                )
    if props is not None:
        chosen = tuple(props)
        unknown = [prop for prop in chosen if prop not in get_args(Prop)]
        if unknown:
            raise ConfigurationError(
                f"no properties of a node: {unknown!r:.100}; choose from {get_args(Prop)}"
            )
        wire[Atom("props_to_return")] = [Atom(prop) for prop in chosen]
    return wire


def milliseconds(seconds: float) -> int:
    """A time-out as a homeserver takes it, 1 to 60,000 ms.

    Raises:
        ConfigurationError: not above zero.
    """
    if not seconds > 0:
        raise ConfigurationError(f"a time-out is above zero seconds, not {seconds!r}")
    return max(1, int(min(seconds, MAX_TIMEOUT) * 1000))
