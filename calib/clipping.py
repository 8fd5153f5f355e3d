"""Where to clip a tensor whose magnitudes are known as a histogram: one rule per method.

Each rule takes counts, int64 [BINS], of magnitudes in equal bins over [0, largest], and gives
how many bins to keep, LEVELS to BINS.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

BINS = 2048
"""Histogram bins over [0, largest magnitude]; what TensorRT's calibrator used."""

LEVELS = 128
"""Magnitudes of symmetric int8."""

STEP = LEVELS // 8
"""Bins from one candidate to the next."""

PERCENTILE = 99.99
"""Share in percent of the values that `percentile` leaves unclipped."""

POINTS = 4
"""Values that stand for those of one bin, evenly spread, where `mse_bin` computes their error."""


def percentile_bin(counts: NDArray[np.int64]) -> int:
    """Bins to keep so that PERCENTILE percent of the values lie in them."""
    total = int(counts.sum())
    if total == 0:
        return BINS
    reached = np.searchsorted(np.cumsum(counts), PERCENTILE / 100 * total)
    return max(LEVELS, int(reached) + 1)


def entropy_bin(counts: NDArray[np.int64]) -> int:
    """Bins to keep so that LEVELS levels over them tell the distribution best.

    For each candidate: P is the histogram with the tail added to its last bin, Q the kept
    bins merged into LEVELS and spread evenly over those that were not empty; the candidate
    of least KL(P || Q) wins, the widest of equals.
    """
    # ReLU's zeros are exact at every scale; left in, they would outweigh everything else.
    kept = counts.astype(np.float64)
    kept[0] = 0.0
    total = kept.sum()
    if total == 0:
        return BINS
    best, best_loss = BINS, np.inf
    for width in range(BINS, LEVELS - 1, -STEP):
        p = kept[:width].copy()
        p[-1] += total - p.sum()
        starts = np.arange(LEVELS) * width // LEVELS
        filled = kept[:width] > 0
        members = np.add.reduceat(filled.astype(np.float64), starts)
        sums = np.add.reduceat(kept[:width], starts)
        level = np.divide(sums, members, out=np.zeros(LEVELS), where=members > 0)
        q = np.where(filled, np.repeat(level, np.diff([*starts, width])), 0.0)
        loss = _divergence(p / total, q / max(q.sum(), 1.0))
        if loss < best_loss:
            best, best_loss = width, loss
    return best


def mse_bin(counts: NDArray[np.int64]) -> int:
    """Bins to keep so that the mean squared error of quantisation is least.

    The error of a value x at limit L, with step L / (LEVELS - 1), is x - step * round(x / step)
    inside and x - L beyond: a narrow L rounds finer and clips more. The widest of equals wins.
    """
    kept = counts.astype(np.float64)
    kept[0] = 0.0  # ReLU's zeros are exact at every scale, and the rest of that bin nearly so
    if kept.sum() == 0:
        return BINS
    there = np.flatnonzero(kept)
    values = there[:, None] + (np.arange(POINTS) + 0.5) / POINTS  # in units of a bin
    weights = kept[there]
    best, best_loss = BINS, np.inf
    for width in range(BINS, LEVELS - 1, -STEP):
        step = width / (LEVELS - 1)
        error = values - step * np.minimum(np.rint(values / step), LEVELS - 1)
        loss = float(weights @ (error**2).sum(axis=1))
        if loss < best_loss:
            best, best_loss = width, loss
    return best


def _divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """KL(P || Q); a bin that Q leaves empty counts with a tiny probability."""
    there = p > 0
    return float((p[there] * np.log(p[there] / np.maximum(q[there], 1e-9))).sum())


CLIPS: dict[str, Callable[[NDArray[np.int64]], int]] = {
    "percentile": percentile_bin,
    "entropy": entropy_bin,
    "mse": mse_bin,
}
"""Method -> its rule; minmax clips nothing and has none."""
