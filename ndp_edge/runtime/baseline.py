"""Whether good product still scores as it did when the threshold was set.

The bundle carries 101 quantiles of the scores behind its threshold. The scores of frames judged
ok are gathered in windows that do not overlap, and each full window is held against those
quantiles by the two-sample Kolmogorov-Smirnov distance: the largest gap between the two shares
of scores below x, over all x. Both sides are cut off at the threshold, since a window of ok
verdicts has nothing above it. With n pictures behind the baseline and m in the window,

    P(D > d) <= 2 sum_k (-1)^(k-1) exp(-2 k^2 d^2 n m / (n + m))    as n, m grow

(Smirnov 1939; for small n and m the true rate is lower). An alarm is a window whose
probability falls below `ALARM_RATE`: while the line's good frames are independent draws from
what made the baseline, at most that share of windows alarms, averaged over baselines.

A change so large that everything is rejected leaves no good scores to compare. So `ROW` rejects
one after another alarm, too: where each frame is rejected with a chance of at most p,
independently, a run of them begins at a given frame with a chance of at most p^ROW, which is
6e-6 for p = 0.3 and 1e-20 for a line that rejects one frame in a hundred.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ndp_edge.console import info
from ndp_edge.errors import InputError
from ndp_edge.runtime.observing import Observer, Seen

WINDOW = 200
"""Good scores per window."""

ALARM_RATE = 1e-5
"""Share of windows that may alarm though nothing has changed."""

ROW = 10
"""Rejects one after another that alarm."""

FEWEST = 20
"""Baseline pictures below the threshold that a comparison needs."""


@dataclass(frozen=True)
class Baseline:
    """Scores of good pictures that the net did not see in training.

    Attributes:
        quantiles: float64 [q], not falling, at evenly spaced levels from 0 to 1.
        n: pictures behind them.
    """

    quantiles: NDArray[np.float64]
    n: int

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Baseline | None:
        """The baseline in a bundle's manifest; None where an older build left none.

        Raises:
            InputError: there is one, and it makes no sense.
        """
        told = manifest["threshold"]
        quantiles = told.get("score_quantiles")
        if quantiles is None:
            return None
        n = told.get("n")
        numbers = isinstance(quantiles, list) and all(type(q) is float for q in quantiles)
        if not numbers or len(quantiles) < 2 or type(n) is not int or n < 1:
            raise InputError("the bundle's score quantiles are malformed; build the bundle again")
        values = np.array(quantiles, np.float64)
        if not np.isfinite(values).all() or (np.diff(values) < 0).any():
            raise InputError("the bundle's score quantiles are malformed; build the bundle again")
        return cls(values, n)

    def share(self, scores: ArrayLike, *, before: bool = False) -> NDArray[np.float64]:
        """The share of baseline scores <= each of `scores`; with `before`, < each."""
        x = np.asarray(scores, np.float64)
        levels = np.linspace(0, 1, len(self.quantiles))
        # Where quantiles are equal, interp takes the last one's level: the share at or below.
        # Mirrored, it gives the share at or above.
        if not before:
            found = np.interp(x, self.quantiles, levels, left=0.0, right=1.0)
        else:
            found = 1 - np.interp(-x, -self.quantiles[::-1], 1 - levels[::-1], left=0.0, right=1.0)
        return np.asarray(found, np.float64)

    def at(self, levels: ArrayLike) -> NDArray[np.float64]:
        """The scores below which these shares of the baseline lie; levels in [0, 1]."""
        evenly = np.linspace(0, 1, len(self.quantiles))
        return np.asarray(
            np.interp(np.asarray(levels, np.float64), evenly, self.quantiles), np.float64
        )

    def rejected(self, threshold: float) -> float:
        """The share of baseline scores above a threshold, as the quantiles tell it."""
        return 1.0 - float(self.share(threshold))


@dataclass(frozen=True)
class Comparison:
    """One window against the baseline.

    Attributes:
        distance: the Kolmogorov-Smirnov distance, in [0, 1].
        probability: of such a distance or a larger one where nothing has changed.
        median: of the window's scores.
        expected: the baseline's median below the threshold.
    """

    distance: float
    probability: float
    median: float
    expected: float


def compare(scores: ArrayLike, baseline: Baseline, threshold: float) -> Comparison | None:
    """Scores [m] of frames judged ok against the baseline below the threshold.

    Returns:
        None where fewer than `FEWEST` baseline scores lie below the threshold.

    Raises:
        InputError: no scores, or one that is above the threshold.
    """
    values = np.sort(np.asarray(scores, np.float64).ravel())
    if not len(values) or not values[-1] <= threshold:
        raise InputError("compare takes scores of frames that were judged ok")
    below = float(baseline.share(threshold))
    n, m = baseline.n * below, len(values)
    if n < FEWEST:
        return None
    points, first, counts = np.unique(values, return_index=True, return_counts=True)
    at = np.minimum(baseline.share(points) / below, 1.0)
    ahead = np.minimum(baseline.share(points, before=True) / below, 1.0)
    gaps = np.abs((first + counts) / m - at), np.abs(first / m - ahead)
    distance = float(max(gap.max() for gap in gaps))
    expected = float(baseline.at(below / 2))
    chance = smirnov(distance * math.sqrt(n * m / (n + m)))
    return Comparison(distance, chance, float(np.median(values)), expected)


def smirnov(scaled: float) -> float:
    """P(K > scaled) of the Kolmogorov distribution: 2 sum_k (-1)^(k-1) exp(-2 k^2 scaled^2)."""
    if scaled < 0.2:  # the sum converges slowly here, and is 1 to twelve digits
        return 1.0
    total = sum(
        (1 if k % 2 else -1) * math.exp(-2 * k * k * scaled * scaled) for k in range(1, 101)
    )
    return min(max(2 * total, 0.0), 1.0)


class Drift(Observer):
    """An observer: compares every window of good scores with the baseline, and alarms; so do
    `ROW` rejects one after another. Frames that could not be judged say nothing.

    A frame of several tiles counts with one of its tiles, another one each frame: the baseline
    is of single pictures, and the tiles of one frame are not independent of each other.

    Args:
        baseline: the bundle's; None never alarms.
        window: good scores per comparison.
        alarm_rate: share of windows that may alarm though nothing has changed.
        tell: takes a line for the log when an alarm begins.
    """

    pictures = False

    def __init__(
        self,
        baseline: Baseline | None,
        *,
        window: int = WINDOW,
        alarm_rate: float = ALARM_RATE,
        tell: Callable[[str], None] = info,
    ) -> None:
        self.baseline = baseline
        self._window = window
        self._rate = alarm_rate
        self._tell = tell
        self._lock = threading.Lock()
        self._scores: list[float] = []
        self._threshold = math.nan
        self._frames = 0
        self._windows = 0
        self._alarms = 0
        self._alarm: str | None = None
        self._row = 0
        self._last: Comparison | None = None

    def verdict(self, seen: Seen) -> None:
        """Count a frame's score."""
        if self.baseline is None:
            return
        score, threshold = one_score(seen.line, self._frames), seen.line["threshold"]
        self._frames += 1
        with self._lock:
            if threshold != self._threshold:  # what is ok has changed: begin anew
                self._threshold = threshold
                self._scores.clear()
            if score is None:
                return
            if score > threshold:
                self._reject()
                return
            self._row = 0
            self._scores.append(score)
            if len(self._scores) >= self._window:
                self._judge(self.baseline)
                self._scores.clear()

    def report(self) -> dict[str, Any]:
        """baseline (pictures, or None), window, filled, windows, alarms, alarm ("shift" of the last
        window, "row" of rejects, or None; it lasts until a window is as it should be), row
        (rejects since the last ok), alarm_rate; and of the last full window distance,
        probability, median, expected (None before)."""
        with self._lock:
            last = self._last
            return {
                "baseline": None if self.baseline is None else self.baseline.n,
                "window": self._window,
                "filled": len(self._scores),
                "windows": self._windows,
                "alarms": self._alarms,
                "alarm": self._alarm,
                "row": self._row,
                "alarm_rate": self._rate,
                "distance": last and last.distance,
                "probability": last and last.probability,
                "median": last and last.median,
                "expected": last and last.expected,
            }

    def _judge(self, baseline: Baseline) -> None:
        found = compare(self._scores, baseline, self._threshold)
        if found is None:
            self._alarm = None
            return
        self._windows, self._last = self._windows + 1, found
        if found.probability >= self._rate:
            self._alarm = None
            return
        self._begin(
            "shift",
            f"good product scores otherwise than at the build: median {found.median:.4g} over "
            f"{self._window} frames, {found.expected:.4g} then",
        )

    def _reject(self) -> None:
        self._row += 1
        if self._row == ROW and self._alarm is None:
            self._begin("row", f"{ROW} rejects one after another")
            self._scores.clear()  # what came before says nothing about whether it is over

    def _begin(self, alarm: str, why: str) -> None:
        self._alarms += 1
        if self._alarm is None:
            self._tell(f"warning: {why}; look at lamp, lens and product")
        self._alarm = alarm


def one_score(line: Mapping[str, Any], number: int) -> float | None:
    """The score in a results line that can be held against the baseline.

    Args:
        line: as in results.jsonl.
        number: the frame's; picks the tile where there are several.

    Returns:
        None where the frame could not be judged.
    """
    tiles = line.get("tiles")
    score = tiles[number % len(tiles)]["score"] if tiles else line["score"]
    return None if score is None else float(score)
