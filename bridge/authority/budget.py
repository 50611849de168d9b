"""What a transfer may cost, by formula: hops, majorities, and a budget of milliseconds spread over hops.

Held against what was measured by ``khepri-bridge trace`` and ``scripts/bench passes``. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from bridge.errors import ConfigurationError

TARGETS_MS: Final = (600.0, 100.0)
"""milliseconds within which a whole exchange is to be done"""
EXCHANGES: Final = {"establishment": 6, "switching": 4, "real-time": 2}
"""hops of each kind of exchange"""
_SEED: Final = 42
_DRAWS: Final = 100_000
_EXPONENT: Final = 2.0


def majority(members: int) -> int:
    """Members that a commit needs, the leader among them: ceil((N + 1) / 2) (R0-36).

    Raises:
        ConfigurationError: fewer than one member.
    """
    if members < 1:
        raise ConfigurationError(f"a cluster has at least one member, not {members}")
    return members // 2 + 1


def worst_case(hops: float, members: int) -> float:
    """The bound on a transfer's hops: H(S) + ceil((N + 1) / 2) + H(S) (R0-38).

    Args:
        hops: H(S), the average hops between simulation servers.
        members: homeservers of the instance.
    """
    return hops + majority(members) + hops


def mean_hops(between: Mapping[tuple[str, str], float], servers: int) -> tuple[float, float]:
    """H(S) of measured hops (R0-37).

    Args:
        between: hops from one server to another, by ordered pair.
        servers: S.

    Returns:
        Mean over pairs of different servers; and over two players who are each at any server with the same
        chance, who need no hop where that is the same one. Both 0.0 for one server.

    Raises:
        ConfigurationError: other than S (S - 1) pairs.
    """
    if len(between) != servers * (servers - 1):
        raise ConfigurationError(
            f"{servers} servers have {servers * (servers - 1)} pairs, not {len(between)}"
        )
    if not between:
        return 0.0, 0.0
    total = sum(between.values())
    return total / len(between), total / servers**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A target spread over the hops of an exchange, and how the model fares with it (R0-39).

    Attributes:
        per_hop_ms: what each hop may take.
        p50_ms: of the model: the sum of as many latencies, each Zipf(2.0) + 1 milliseconds.
        p99_ms: likewise.
        within: share of exchanges of the model that keep the target.
    """

    exchange: str
    hops: int
    target_ms: float
    per_hop_ms: float
    p50_ms: float
    p99_ms: float
    within: float


def budgets() -> list[Budget]:
    """The table, always the same: seed 42, 100,000 draws of each exchange."""
    rows = []
    for exchange, hops in EXCHANGES.items():
        draws = np.random.default_rng(_SEED).zipf(_EXPONENT, size=(_DRAWS, hops)) + 1
        # As floats: a draw may be near the largest integer, the tail being as heavy as it is.
        sums = draws.astype(np.float64).sum(axis=1)
        p50, p99 = np.percentile(sums, [50, 99])
        rows += [
            Budget(
                exchange=exchange,
                hops=hops,
                target_ms=target,
                per_hop_ms=target / hops,
                p50_ms=float(p50),
                p99_ms=float(p99),
                within=float((sums <= target).mean()),
            )
            for target in TARGETS_MS
        ]
    return rows
