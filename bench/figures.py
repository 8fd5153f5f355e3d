"""Statistics of times: percentiles, and intervals that come from rounds, not from calls.

Calls within a second or two suffer the same neighbours, so they are no independent draws;
rounds spread over the whole run nearly are. Every interval here resamples rounds (Efron's
bootstrap of the mean; trimmed where one round can be ruined by a neighbour).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 4000
"""Bootstrap resamples: the end of a 95 % interval then stands to a few thousandths."""

TRIM = 0.2
"""Share of the rounds left out at either end before the mean."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate and where it may lie; all three in one unit."""

    point: float
    low: float
    high: float

    def rounded(self) -> dict[str, float]:
        """Four digits each, for JSON."""
        return {k: float(f"{getattr(self, k):.4g}") for k in ("point", "low", "high")}


def trimmed_mean(values: Floats) -> Floats:
    """Mean along the last axis without the TRIM lowest and highest (at least two stay)."""
    count = values.shape[-1]
    cut = min(int(TRIM * count), (count - 2) // 2) if count > 2 else 0
    ordered = np.sort(values, axis=-1)
    return np.asarray(ordered[..., cut : count - cut].mean(axis=-1))


def resampled(values: Sequence[float], seed: int) -> Floats:
    """DRAWS trimmed means of rounds drawn with replacement, float64 [DRAWS]."""
    data = np.asarray(values, np.float64)
    rng = np.random.default_rng(seed)
    # Rounds are few: a bootstrap's spread is (n - 1) / n of the true one, which this mends.
    stretch = np.sqrt(len(data) / max(len(data) - 1, 1))
    draws = trimmed_mean(data[rng.integers(0, len(data), (DRAWS, len(data)))])
    middle = float(trimmed_mean(data))
    return np.asarray(middle + stretch * (draws - middle))


def spread(rounds: Sequence[float], confidence: float = 0.95) -> Interval:
    """A figure's mean over rounds and its two-sided interval.

    Args:
        rounds: one positive figure a round, at least one.
        confidence: of the interval, above 0 and below 1.
    """
    logs = np.log(np.asarray(rounds, np.float64))
    tails = (50 * (1 - confidence), 50 * (1 + confidence))
    low, high = (float(np.exp(v)) for v in np.percentile(resampled(list(logs), 0), tails))
    point = float(np.exp(trimmed_mean(logs)))
    return Interval(point, min(low, point), max(high, point))


def change(before: Sequence[float], now: Sequence[float], confidence: float = 0.95) -> Interval:
    """How many times larger `now` is than `before`: two runs' rounds, resampled apart.

    `low` and `high` are one-sided bounds: the true factor lies below `low` in 1 - confidence
    of all cases, and above `high` likewise.

    Args:
        before, now: one positive figure a round, at least one each.
        confidence: of each bound, above 0.5 and below 1.
    """
    a, b = np.log(np.asarray(before, np.float64)), np.log(np.asarray(now, np.float64))
    differences = resampled(list(b), 1) - resampled(list(a), 2)
    tails = (100 * (1 - confidence), 100 * confidence)
    low, high = (float(np.exp(v)) for v in np.percentile(differences, tails))
    point = float(np.exp(trimmed_mean(b) - trimmed_mean(a)))
    return Interval(point, min(low, point), max(high, point))
