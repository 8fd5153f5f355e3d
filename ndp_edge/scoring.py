"""Images through engines: scores, smoothed maps and times at batch 1, all from one pass."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.console import progress
from ndp_edge.metrics import latency
from ndp_edge.postprocess import smooth_max

if TYPE_CHECKING:
    from ndp_edge.engines.base import Engine

BLOCK = 8
"""Images that one engine takes in a row before the next engine has its turn: long enough for
its weights to stay in the cache as they do in production, short enough that a noisy neighbour
on the machine slows all engines alike."""

WARM_UP = 3


@dataclass(frozen=True)
class Answers:
    """What one engine said about N images.

    Attributes:
        smoothed: float32 [N, H, W], the map after the 5x5 median.
        scores: float32 [N], the maximum of each smoothed map.
        ms: milliseconds of each `infer` call at batch 1, in order.
    """

    smoothed: NDArray[np.float32]
    scores: NDArray[np.float32]
    ms: list[float]

    @property
    def latency(self) -> dict[str, float]:
        """p50, p95, p99, mean in milliseconds and n, the number of calls."""
        return latency(self.ms)


def answer(
    engines: Mapping[str, Engine], images: NDArray[np.uint8], label: str
) -> dict[str, Answers]:
    """Every image once through every engine, one image per call, engines taking turns.

    Batch 1 is what a line runs, and on a CPU larger batches gain little; so the pass that
    gives the scores is also the one that gives the latencies.

    Args:
        engines: name -> engine; at least one.
        images: uint8 [N, H, W, 3], N >= 1.
        label: of the progress bar.
    """
    count, height, width = images.shape[:3]
    maps = {name: np.empty((count, height, width), np.float32) for name in engines}
    ms: dict[str, list[float]] = {name: [] for name in engines}
    for engine in engines.values():
        for _ in range(WARM_UP):
            engine.infer(images[:1])
    turns = [(name, start) for start in range(0, count, BLOCK) for name in _order(engines, start)]
    for name, start in progress(turns, total=len(turns), label=label):
        for i in range(start, min(start + BLOCK, count)):
            began = time.perf_counter()
            result = engines[name].infer(images[i : i + 1])
            ms[name].append(1e3 * (time.perf_counter() - began))
            maps[name][i] = result[0]
    return {name: _smooth(maps[name], ms[name]) for name in engines}


def rates(scores: NDArray[Any], labels: NDArray[Any], threshold: float) -> dict[str, float | None]:
    """Report keys false_reject_rate, miss_rate and threshold for scores [N], labels [N]."""
    rejected = np.asarray(scores, np.float64) > threshold
    bad = np.asarray(labels, np.bool_)
    good_share = float(rejected[~bad].mean()) if (~bad).any() else None
    miss_share = float((~rejected[bad]).mean()) if bad.any() else None
    return {"false_reject_rate": good_share, "miss_rate": miss_share, "threshold": threshold}


def _order(engines: Mapping[str, Engine], start: int) -> list[str]:
    names = list(engines)
    return names if (start // BLOCK) % 2 == 0 else names[::-1]


def _smooth(maps: NDArray[np.float32], ms: list[float]) -> Answers:
    smoothed, scores = smooth_max(maps)
    return Answers(smoothed, scores, ms)
