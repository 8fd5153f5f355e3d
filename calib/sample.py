"""Which good pictures calibrate: those that spread over the surface's range of looks.

Farthest-point sampling (Gonzalez 1985) on cheap statistics of each picture: the first is the one
farthest from the mean of all, each next the one farthest from those chosen. Brightest, darkest,
smoothest and coarsest come early, so that a small choice sees the extremes that ranges rest on.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ndp_edge.errors import InputError

MOST = 64
"""Pictures that calibrate where the user names no number."""

QUANTILES = (0.02, 0.25, 0.5, 0.75, 0.98)
_LUMA = np.array([0.299, 0.587, 0.114])


def statistics(images: Iterable[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """[N, 8] of N pictures, uint8 [H, W, 3]; everything in gray levels of the luma.

    Mean, standard deviation, root of the gradient energy (mean squared difference of
    neighbours, both ways), and QUANTILES.
    """
    return np.array([_describe(image) for image in images]).reshape(-1, 3 + len(QUANTILES))


def _describe(image: NDArray[np.uint8]) -> list[float]:
    luma = image @ _LUMA
    energy = sum(float(np.mean(np.diff(luma, axis=axis) ** 2)) for axis in (0, 1))
    levels = np.quantile(luma, QUANTILES)
    return [float(luma.mean()), float(luma.std()), energy**0.5, *(float(q) for q in levels)]


def farthest_points(features: NDArray[np.float64], count: int, seed: int = 0) -> list[int]:
    """`count` rows of features [N, F] that lie far from each other; all where N is less.

    Columns are standardised; one that is the same everywhere (to rounding) counts nothing.
    Equals are taken in an order drawn by the seed. A longer choice begins with the shorter one.

    Returns:
        Indices in the order of choice, none twice.

    Raises:
        InputError: no features, features that are not finite, or a count below 1.
    """
    if features.ndim != 2 or len(features) == 0 or not np.isfinite(features).all():
        raise InputError(f"statistics of shape {features.shape} are empty or not finite")
    if count < 1:
        raise InputError(f"{count} pictures cannot calibrate; at least 1 is needed")
    order = np.random.default_rng(seed).permutation(len(features))
    spread = features.std(axis=0)
    flat = spread <= 1e-9 * np.maximum(1.0, np.abs(features).max(axis=0))
    points = np.where(flat, 0.0, (features - features.mean(axis=0)) / np.where(flat, 1.0, spread))
    points = points[order]
    distance = np.linalg.norm(points, axis=1)
    chosen: list[int] = []
    while len(chosen) < min(count, len(points)):
        chosen.append(int(np.argmax(distance)))
        away = np.linalg.norm(points - points[chosen[-1]], axis=1)
        distance = away if len(chosen) == 1 else np.minimum(distance, away)
        distance[chosen] = -1.0  # below every distance: never taken twice
    return [int(order[i]) for i in chosen]
