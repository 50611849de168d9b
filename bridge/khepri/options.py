"""What a read may be asked, and its form on the wire (``docs/protocol.md`` §1, ``Read``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, TypedDict, get_args

from bridge.errors import ConfigurationError
from bridge.etf import Atom

MAX_TIMEOUT: Final = 60.0
"""seconds that a homeserver spends on one request at the most"""

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

DEFAULT_PROPS: Final[tuple[Prop, ...]] = ("payload", "payload_version")
"""what Khepri tells of a node that is read, unless told otherwise"""

_TIMEOUT: Final = Atom("timeout")
_PROPS_TO_RETURN: Final = Atom("props_to_return")
_PROPS: Final[Mapping[str, Atom]] = {name: Atom(name) for name in get_args(Prop)}
_BOOLEAN: Final[Mapping[Any, Any]] = {True: True, False: False}
_VALUES: Final[Mapping[str, Mapping[Any, Any]]] = {
    "favor": {name: Atom(name) for name in get_args(Favor)},
    "expect_specific_node": _BOOLEAN,
    "include_root_props": _BOOLEAN,
}
_NAMES: Final = {name: Atom(name) for name in _VALUES}


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
    for name, value in options.items():
        if name == "timeout":
            continue
        allowed = _VALUES.get(name)
        if allowed is None or type(value) not in (str, bool) or value not in allowed:
            raise ConfigurationError(
                f"{name}={value!r:.100} is no option of a read: use favor (low_latency, consistency), "
                "timeout, expect_specific_node, include_root_props"
            )
        wire[_NAMES[name]] = allowed[value]
    if props is not None:
        chosen = tuple(props)
        unknown = [prop for prop in chosen if prop not in _PROPS]
        if unknown:
            raise ConfigurationError(f"no properties of a node: {unknown!r:.100}; there are {tuple(_PROPS)}")
        wire[_PROPS_TO_RETURN] = [_PROPS[prop] for prop in chosen]
    return wire


def milliseconds(seconds: float) -> int:
    """A time-out as a homeserver takes it, 1 to 60,000 ms.

    Raises:
        ConfigurationError: not above zero.
    """
    if not seconds > 0:
        raise ConfigurationError(f"a time-out is above zero seconds, not {seconds!r}")
    return max(1, int(min(seconds, MAX_TIMEOUT) * 1000))
