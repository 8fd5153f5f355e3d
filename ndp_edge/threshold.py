"""A threshold with a promise: split-conformal, from good images alone.

Given n scores of good images that the net never saw, the k-th smallest of them with
k = ceil((n + 1)(1 - alpha)) is exceeded by the score of a new, exchangeable good image with
probability at most alpha (Vovk et al. 2005, Algorithmic Learning in a Random World;
Papadopoulos et al. 2002). No assumption about the distribution of scores is made. The promise
is an average over draws of the n images and the new one, not a bound for one fixed line.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ndp_edge.errors import InputError

METHOD = "split-conformal"
DEFAULT_RATE = 0.01
"""The false-reject rate aimed at when the user names none and the images can carry it."""

QUANTILES = 101
"""How many quantiles of the good scores a bundle carries: one a percent, both ends included."""


@dataclass(frozen=True)
class Threshold:
    """A frozen decision rule: reject if and only if score > value.

    Attributes:
        value: in units of the score (0 to 1).
        target: the false-reject rate promised, in (0, 1).
        n: good images behind it.
        method: how it was found.
        achievable: the smallest rate that n images could have carried, 1 / (n + 1).
    """

    value: float
    target: float
    n: int
    method: str = METHOD
    achievable: float = 0.0

    @property
    def rank(self) -> int:
        """k: `value` is the k-th smallest of the n scores."""
        return _rank(self.target, self.n)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def smallest_rate(n: int) -> float:
    """The smallest false-reject rate that n >= 1 good images can promise: 1 / (n + 1).

    Raises:
        InputError: there are no images.
    """
    if n < 1:
        raise InputError("no good images are left for the threshold; add photographs to train/good")
    return 1.0 / (n + 1)


def choose_rate(asked: float | None, n: int) -> float:
    """The rate to aim at with n good images: `asked`, or by default 0.01 where n carries it.

    Raises:
        InputError: `asked` is not a rate, or n images cannot carry it.
    """
    smallest = smallest_rate(n)
    if asked is None:
        return max(DEFAULT_RATE, smallest)
    if not 0.0 < asked < 1.0:
        raise InputError(f"a false-reject rate of {asked} makes no sense; give one between 0 and 1")
    if _rank(asked, n) > n:
        # Rounded up, so that the figure printed works when it is typed in.
        carried = math.ceil(smallest * 1e4) / 1e4
        wanted = math.ceil(1 / _exact(asked)) - 1
        raise InputError(
            f"{n} good images cannot carry a false-reject rate of {asked:g}: the smallest is "
            f"{carried:g} (--target-false-reject {carried:g}); {asked:g} needs {wanted} "
            "threshold images, a quarter of train/good"
        )
    return asked


def conformal_threshold(scores: ArrayLike, false_reject: float) -> Threshold:
    """The k-th smallest of the good scores [n], k = ceil((n + 1)(1 - false_reject)).

    Raises:
        InputError: no scores, scores that are not finite, a rate outside (0, 1), or one that
            n images cannot carry (k > n).
    """
    values = np.sort(np.asarray(scores, dtype=np.float64).ravel())
    if not np.isfinite(values).all():
        raise InputError("scores of good images are not finite; the net or its engine is broken")
    n = len(values)
    rate = choose_rate(false_reject, n)
    value = float(values[_rank(rate, n) - 1])
    return Threshold(value, rate, n, METHOD, smallest_rate(n))


def far_out(scores: ArrayLike) -> list[int]:
    """Indices of good scores [n] far above the rest, highest first.

    Tukey's outer fence: beyond the third quartile by three times the interquartile range.
    A threshold that rests on one of these was set by a picture unlike the others.
    """
    values = np.asarray(scores, dtype=np.float64).ravel()
    low, high = np.quantile(values, [0.25, 0.75])
    order = [int(i) for i in np.argsort(-values, kind="stable")]
    return [i for i in order if values[i] > high + 3 * (high - low)]


def score_quantiles(scores: ArrayLike) -> list[float]:
    """Quantiles of good scores [n] at 0, 1, ... 100 %: what drift is measured against."""
    levels = np.linspace(0, 1, QUANTILES)
    return [float(q) for q in np.quantile(np.asarray(scores, np.float64).ravel(), levels)]


def _exact(rate: float) -> Fraction:
    # 0.01 as a float is a little more than 1/100 and 1/(n+1) may be a little less than it
    # should: either would move the rank by one. The nearest simple fraction is what was meant.
    return Fraction(rate).limit_denominator(10**9)


def _rank(rate: float, n: int) -> int:
    """k = ceil((n + 1)(1 - rate)); n + 1 when n scores cannot carry the rate."""
    return math.ceil((n + 1) * (1 - _exact(rate)))
