"""How good a detector is: AUROC per image and per pixel, AUPRO, rates at a threshold.

All areas are exact: every distinct score is a threshold, and equal scores count as one. The
trick that keeps them fast is to sort the pixels once and then to look only at the values that
defective pixels have: between two of them the curve is a horizontal line.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ndp_edge.errors import InputError

Array = NDArray[np.float64]

FPR_LIMIT = 0.3
"""MVTec AD integrates the overlap up to this false-positive rate."""


def image_auroc(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    """The chance that a defective image outscores a good one, ties counting half (Mann-Whitney).

    Args:
        scores: [N] finite real numbers, higher is more defective.
        labels: [N], 0 or False for good, 1 or True for defective.

    Returns:
        0 to 1.

    Raises:
        InputError: shapes or numbers that are wrong, or only one kind of image.
    """
    values = _numbers(scores, 1, "scores")
    return _auroc(values, _flags(labels, values.shape, "labels"), "images")


def pixel_auroc(maps: NDArray[Any], masks: NDArray[Any]) -> float:
    """`image_auroc` over the pixels of all images together.

    Args:
        maps: [N, H, W] finite real numbers.
        masks: [N, H, W], 0 or False for good pixels, 1 or True for defective ones.

    Raises:
        InputError: as `image_auroc`.
    """
    values = _numbers(maps, 3, "maps")
    return _auroc(values, _flags(masks, values.shape, "masks"), "pixels")


def aupro(maps: NDArray[Any], masks: NDArray[Any], fpr_limit: float = FPR_LIMIT) -> float:
    """Area under the per-region-overlap curve, by MVTec AD's official definition.

    The overlap at a threshold is the share of a region's pixels at or above it, averaged over
    all 8-connected ground-truth regions of the whole category, large or small. The
    false-positive rate is taken over all defect-free pixels of all images. The area is
    trapezoidal, with linear interpolation at `fpr_limit`, and divided by `fpr_limit`.
    (P. Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 2021, and its evaluation code.)

    Args:
        maps: [N, H, W] finite real numbers.
        masks: [N, H, W], 0 or False for good pixels, 1 or True for defective ones.
        fpr_limit: above 0, at most 1.

    Returns:
        0 to 1.

    Raises:
        InputError: shapes or numbers that are wrong, no region, or no defect-free pixel.
    """
    if not 0 < fpr_limit <= 1:
        raise InputError(f"fpr_limit {fpr_limit} must lie above 0 and be at most 1")
    values = _numbers(maps, 3, "maps")
    defective = _flags(masks, values.shape, "masks")
    good = np.sort(values[~defective])
    if good.size in (0, values.size):
        raise InputError("AUPRO needs defect-free pixels and at least one defective region")
    thresholds, gained = _overlap_gains(values[defective], region_weights(defective))
    overlap = np.cumsum(gained)
    overlap /= overlap[-1]  # the sum is 1 but for rounding
    # Good pixels above a threshold, and at or above it, as rates.
    above = (good.size - np.searchsorted(good, thresholds, side="right")) / good.size
    reached = (good.size - np.searchsorted(good, thresholds, side="left")) / good.size
    # Per threshold a horizontal run up to `above` and a slope to `reached`, then a last run.
    x = np.concatenate([[0.0], np.stack([above, reached], axis=1).ravel(), [1.0]])
    y = np.concatenate([[0.0, 0.0], np.repeat(overlap, 2)])
    return _area(x, y, fpr_limit) / fpr_limit


def summary(
    scores: NDArray[Any],
    labels: NDArray[Any],
    maps: NDArray[Any],
    masks: NDArray[Any],
    threshold: float | None,
) -> dict[str, float | None]:
    """The accuracy keys of every report, plain floats, None where a figure is undefined.

    Args:
        scores: [N] scores of the images.
        labels: [N], 0 good and 1 defective.
        maps: [N, H, W] anomaly maps.
        masks: [N, H, W], all 0 for a good image.
        threshold: an image is rejected when its score is above it; None when there is none.

    Returns:
        image_auroc, pixel_auroc, aupro, false_reject_rate (rejected among the good),
        miss_rate (passed among the defective), threshold.

    Raises:
        InputError: shapes or numbers that are wrong, or a mask on an image labelled good.
    """
    values = _numbers(scores, 1, "scores")
    defective = _flags(labels, values.shape, "labels")
    pixels = _numbers(maps, 3, "maps")
    marked = _flags(masks, pixels.shape, "masks")
    if len(pixels) != len(values):
        raise InputError(f"{len(values)} scores but {len(pixels)} maps")
    if marked[~defective].any():
        raise InputError("an image labelled good has defective pixels in its mask")
    if threshold is not None and not np.isfinite(threshold):
        raise InputError(f"threshold {threshold} is not a finite number")
    both_kinds = bool(defective.any() and not defective.all())
    both_pixels = bool(marked.any() and not marked.all())
    rejected = None if threshold is None else values.astype(np.float64) > threshold
    return {
        "image_auroc": image_auroc(values, defective) if both_kinds else None,
        "pixel_auroc": pixel_auroc(pixels, marked) if both_pixels else None,
        "aupro": aupro(pixels, marked) if both_pixels else None,
        "false_reject_rate": None if rejected is None else _share(rejected[~defective]),
        "miss_rate": None if rejected is None else _share(~rejected[defective]),
        "threshold": None if threshold is None else float(threshold),
    }


def _auroc(values: NDArray[Any], positive: NDArray[np.bool_], what: str) -> float:
    """Pairs won plus half the pairs tied, over all pairs; counted in integers."""
    high = values[positive]
    low = np.sort(values[~positive])
    if high.size == 0 or low.size == 0:
        raise InputError(f"AUROC needs both good and defective {what}")
    high.sort()  # sorted needles keep searchsorted in cache
    won = int(np.searchsorted(low, high, side="left").sum(dtype=np.int64))
    won_or_tied = int(np.searchsorted(low, high, side="right").sum(dtype=np.int64))
    return (won + won_or_tied) / (2 * high.size * low.size)


def rms(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Root of the mean squared difference of two arrays of one shape, summed in float64."""
    return float(np.sqrt(np.mean((a.astype(np.float64) - b) ** 2)))


def region_weights(masks: NDArray[np.bool_]) -> Array:
    """For each defective pixel of masks [N, H, W], in the order of masks[masks], 1 / (pixels of
    its 8-connected region); at least one pixel must be defective."""
    import cv2

    weights = []
    for mask in masks:
        if mask.any():
            _, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
            inside = regions[mask]
            weights.append(1.0 / np.bincount(inside)[inside])
    return np.concatenate(weights)


def _overlap_gains(values: NDArray[Any], weights: Array) -> tuple[NDArray[Any], Array]:
    """Distinct values, falling, and the summed weight of the pixels that have each."""
    order = np.argsort(values)[::-1]
    ordered = values[order]
    starts = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])
    return ordered[starts], np.add.reduceat(weights[order], starts)


def _area(x: Array, y: Array, limit: float) -> float:
    """Area under the polyline (x, y), x rising from 0, up to `limit`, interpolated there."""
    width = np.diff(x)
    kept = np.clip(limit - x[:-1], 0.0, width)
    slope = np.divide(np.diff(y), width, out=np.zeros_like(width), where=width > 0)
    return float(np.sum(kept * (y[:-1] + 0.5 * slope * kept)))


def _share(flags: NDArray[np.bool_]) -> float | None:
    return float(flags.mean()) if flags.size else None


def _numbers(x: NDArray[Any], ndim: int, name: str) -> NDArray[Any]:
    """`x` in float32 or float64, whichever loses nothing; refused when empty or not finite."""
    array = np.asarray(x)
    if array.ndim != ndim or array.size == 0:
        raise InputError(f"{name} of shape {array.shape}: wanted {ndim} axes, none empty")
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise InputError(f"{name} of type {array.dtype}: wanted real numbers of at most 64 bits")
    exact = np.float32 if np.can_cast(array.dtype, np.float32) else np.float64
    array = array.astype(exact, copy=False)
    if not np.isfinite(array).all():
        raise InputError(f"{name} hold NaN or infinity")
    return array


def _flags(x: NDArray[Any], shape: tuple[int, ...], name: str) -> NDArray[np.bool_]:
    """`x` as booleans of the given shape; only 0 and 1 are taken, so 255 is never guessed at."""
    array = np.asarray(x)
    if array.shape != shape:
        raise InputError(f"{name} of shape {array.shape} do not fit values of shape {shape}")
    if array.dtype.kind not in "fiub" or not np.all((array == 0) | (array == 1)):
        raise InputError(f"{name} must be 0 or 1")
    return array.astype(np.bool_)


def latency(ms: ArrayLike) -> dict[str, float]:
    """p50, p95, p99 and mean in ms, and n: the report keys of DESIGN section 8.

    Args:
        ms: times in milliseconds, at least one.
    """
    values = np.asarray(ms, np.float64)
    p50, p95, p99 = (float(v) for v in np.percentile(values, (50, 95, 99)))
    return {"p50": p50, "p95": p95, "p99": p99, "mean": float(values.mean()), "n": len(values)}
