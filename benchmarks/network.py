"""The option that sends a benchmark's datagrams through a bad network."""

from __future__ import annotations

import argparse

from bridge.errors import ConfigurationError
from bridge.udp import NetworkConditions


def add_network_option(parser: argparse.ArgumentParser, default: str = "") -> None:
    """Add ``--network SPEC``, whose value is the conditions; without a default, a perfect network."""
    parser.add_argument(
        "--network",
        metavar="SPEC",
        type=_conditions,
        default=default,
        help="what each side sends through, such as loss=5%%,burst=4,delay=25ms,jitter=10ms,seed=7 "
        "(docs/testing.md, Bad networks)",
    )


def _conditions(text: str) -> NetworkConditions:
    try:
        return NetworkConditions.parse(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
