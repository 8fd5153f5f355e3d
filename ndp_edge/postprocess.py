"""From the graph's map to a score and to defects: the 5x5 median, the maximum, components."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ndp_edge.errors import InputError
from ndp_edge.types import Defect

MEDIAN_WINDOW = 5
"""Side in pixels of the median filter (paper III-D)."""


def smooth_max(
    maps: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The 5x5 median of each map and its maximum, the image's score.

    Args:
        maps: float32 [N, H, W], as an engine gives them (after eq. 11 and the 5x5 mean).

    Returns:
        The smoothed maps, float32 [N, H, W], and the scores, float32 [N]. The border is
        replicated outwards. The input stays as it is.

    Raises:
        InputError: another shape or type, an empty map, NaN or infinity.
    """
    import cv2

    _check(maps, 3)
    smoothed = np.empty_like(maps, order="C")
    for source, target in zip(maps, smoothed, strict=True):
        target[:] = cv2.medianBlur(np.ascontiguousarray(source), MEDIAN_WINDOW)
    return smoothed, smoothed.max(axis=(1, 2))


def smooth_into(whole: NDArray[np.float32], out: NDArray[np.float32]) -> float:
    """The 5x5 median of one map, as `smooth_max`, into memory at hand; returns its maximum.

    Args:
        whole: float32 [H, W].
        out: float32 [H, W], contiguous, not `whole` itself.

    Raises:
        InputError: another shape or type, an empty map, NaN or infinity.
    """
    import cv2

    _check(whole, 2)
    if out.shape != whole.shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise InputError(  # OpenCV would silently write elsewhere
            f"memory of shape {out.shape} and type {out.dtype} for a map of {whole.shape}"
        )
    cv2.medianBlur(np.ascontiguousarray(whole), MEDIAN_WINDOW, out)
    return float(out.max())


def find_defects(smoothed: NDArray[np.float32], threshold: float) -> list[Defect]:
    """The 8-connected regions of a smoothed map that lie above the threshold.

    There is at least one exactly when the map's maximum, its score, is above the threshold:
    both are compared in float64.

    Args:
        smoothed: float32 [H, W].
        threshold: finite.

    Returns:
        One Defect per region, highest peak first: box (x, y, width, height) and area in
        pixels of the map, peak the region's highest value.

    Raises:
        InputError: another shape or type, an empty map, NaN or infinity.
    """
    import cv2

    _check(smoothed, 2)
    if not np.isfinite(threshold):
        raise InputError(f"threshold {threshold} is not a finite number")
    # NumPy would round a Python float to the map's float32 first.
    above = smoothed.astype(np.float64) > threshold
    if not above.any():
        return []
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        above.astype(np.uint8), connectivity=8
    )
    regions: NDArray[np.intp] = labels[above].astype(np.intp)
    peaks = np.full(count, -np.inf)
    np.maximum.at(peaks, regions, smoothed[above])
    order = 1 + np.argsort(-peaks[1:], kind="stable")  # region 0 is the background
    return [_defect(stats[i], float(peaks[i])) for i in order]


def _defect(stats: NDArray[np.int32], peak: float) -> Defect:
    """From OpenCV's row of x, y, width, height, area."""
    x, y, width, height, area = (int(v) for v in stats)
    return Defect(box=(x, y, width, height), area=area, peak=peak)


def _check(x: NDArray[np.float32], ndim: int) -> None:
    if x.ndim != ndim or x.size == 0 or x.dtype != np.float32:
        raise InputError(
            f"map of shape {x.shape} and type {x.dtype}: wanted float32 of {ndim} axes, none empty"
        )
    if not np.isfinite(x).all():
        raise InputError("the map holds NaN or infinity; no score can be read from it")
