"""Equations 3-8 and 11 of the paper in float64 NumPy: the judge of every fast path.

Written from the printed equations, patch by patch, and independent of the torch code; never
fast. Every function takes one image's arrays (no batch axis), computes in float64, and refuses
what it cannot judge (wrong shapes, NaN, infinity) with InputError.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.errors import InputError

Array = NDArray[np.float64]

NORM_EPS = 1e-12
"""A patch of smaller norm is divided by this instead, so that a black patch has cosine 0."""

WINDOW = 5
"""Side in pixels of the mean and of the median filter (paper III-D)."""


def rbfrm(
    features: NDArray[Any],
    reference: NDArray[Any],
    patch_size: int,
    softmax_scale: float = 1.0,
) -> Array:
    """Repair a feature map with the patches of a defect-free reference map (eq. 3-5).

    Args:
        features: F_d, [C, H, W], H and W divisible by `patch_size`.
        reference: F_ref, [C, H', W'], H' and W' divisible by `patch_size`.
        patch_size: the paper's K, at least 1.
        softmax_scale: positive factor on the cosine; 1.0 is the printed eq. 4.

    Returns:
        F_rep, float64 [C, H, W].

    Raises:
        InputError: shapes or numbers that the equations do not cover.
    """
    f = _checked(features, 3, "features")
    ref = _checked(reference, 3, "reference")
    if patch_size < 1 or not 0 < softmax_scale < np.inf:
        raise InputError(
            f"patch_size {patch_size} must be at least 1 and softmax_scale {softmax_scale} positive"
        )
    if f.shape[0] != ref.shape[0]:
        raise InputError(f"features have {f.shape[0]} channels, the reference {ref.shape[0]}")
    for name, x in (("features", f), ("reference", ref)):
        if x.shape[1] % patch_size or x.shape[2] % patch_size:
            raise InputError(
                f"{name} of {x.shape[1]}x{x.shape[2]} do not divide into patches of {patch_size}"
            )
    b = _cut(ref, patch_size)
    b_unit = np.stack([_unit(patch) for patch in b])
    repaired = []
    for p in _cut(f, patch_size):
        similarity = b_unit @ _unit(p)  # eq. 3: S_ij for this i and every j
        weights = _softmax(softmax_scale * similarity)  # eq. 4
        repaired.append(weights @ b)  # eq. 5: the reference patches themselves, not normalised
    return _paste(repaired, patch_size, f.shape)


def ffm_select(
    logits: NDArray[Any], rep4: NDArray[Any], rep2: NDArray[Any], features: NDArray[Any]
) -> Array:
    """Select between the three branches element by element (eq. 7 and 8).

    Args:
        logits: [3, C, H, W], the attention maps A_rep4, A_rep2, A_ad in this order.
        rep4, rep2, features: F_rep4, F_rep2 and F_ad, each [C, H, W].

    Returns:
        F_o, float64 [C, H, W].

    Raises:
        InputError: shapes that do not belong together, NaN or infinity.
    """
    a = _checked(logits, 4, "logits")
    branches = [
        _checked(x, 3, name) for name, x in (("rep4", rep4), ("rep2", rep2), ("features", features))
    ]
    for branch in branches:
        if a.shape != (3, *branch.shape):
            raise InputError(
                f"logits of shape {a.shape} do not fit a branch of shape {branch.shape}; "
                "wanted [3, C, H, W] and three times [C, H, W]"
            )
    # Subtracting the largest of the three changes no quotient of eq. 7 and keeps exp finite.
    powers = np.exp(a - a.max(axis=0))
    total = powers[0] + powers[1] + powers[2]
    out = np.zeros_like(branches[0])
    for power, branch in zip(powers, branches, strict=True):
        out += power / total * branch
    return out


def anomaly_map(
    am1: NDArray[Any],
    am2: NDArray[Any],
    am3: NDArray[Any],
    weights: Sequence[float] = (0.2, 0.2, 0.6),
) -> Array:
    """The weighted sum of the three scales' maps at full size (eq. 11).

    Args:
        am1, am2, am3: maps [H, W], [H/2, W/2] and [H/4, W/4], as after the sigmoid.
        weights: lambda 1, 2, 3.

    Returns:
        float64 [H, W], not yet smoothed.

    Raises:
        InputError: sizes that are not whole, half and quarter; NaN or infinity.
    """
    maps = [_checked(x, 2, f"am{i}") for i, x in enumerate((am1, am2, am3), 1)]
    height, width = maps[0].shape
    for i, small in enumerate(maps):
        if (small.shape[0] << i, small.shape[1] << i) != (height, width):
            raise InputError(
                f"am{i + 1} of shape {small.shape} is not 1/{1 << i} of am1's {(height, width)}"
            )
    if len(weights) != 3 or not np.all(np.isfinite(weights)):
        raise InputError(f"weights {tuple(weights)} must be three finite numbers")
    total = np.zeros((height, width))
    for weight, small in zip(weights, maps, strict=True):
        total += weight * upsample(small, height, width)
    return total


def upsample(small: NDArray[Any], height: int, width: int) -> Array:
    """Bilinear resize of [h, w] to [height, width], half-pixel centres, border replicated."""
    x = _checked(small, 2, "map")
    if height < 1 or width < 1:
        raise InputError(f"cannot resize to {height}x{width}")
    resized: Array = _bilinear(x.shape[0], height) @ x @ _bilinear(x.shape[1], width).T
    return resized


def smooth(anomaly: NDArray[Any]) -> Array:
    """The 5x5 mean and then the 5x5 median of a map [H, W]; see the two filters for borders."""
    return median_filter(mean_filter(anomaly))


def mean_filter(anomaly: NDArray[Any]) -> Array:
    """The 5x5 mean of a map [H, W], at the border over the pixels that exist."""
    x = _checked(anomaly, 2, "map")
    height, width = x.shape
    reach = WINDOW // 2
    out = np.empty_like(x)
    for i in range(height):
        rows = x[max(0, i - reach) : i + reach + 1]
        for j in range(width):
            out[i, j] = rows[:, max(0, j - reach) : j + reach + 1].mean()
    return out


def median_filter(anomaly: NDArray[Any]) -> Array:
    """The 5x5 median of a map [H, W], the border replicated outwards."""
    x = _checked(anomaly, 2, "map")
    height, width = x.shape
    padded = np.pad(x, WINDOW // 2, mode="edge")
    shifted = [
        padded[dy : dy + height, dx : dx + width] for dy in range(WINDOW) for dx in range(WINDOW)
    ]
    middle: Array = np.sort(np.stack(shifted), axis=0)[WINDOW * WINDOW // 2]
    return middle


def _checked(x: NDArray[Any], ndim: int, name: str) -> Array:
    """`x` as float64, refused unless it has `ndim` axes, is not empty and is finite."""
    array = np.asarray(x)
    if array.ndim != ndim or array.size == 0:
        raise InputError(f"{name} of shape {array.shape}: wanted {ndim} axes, none empty")
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} of type {array.dtype}: wanted real numbers")
    array = array.astype(np.float64)
    if not np.all(np.isfinite(array)):
        raise InputError(f"{name} holds NaN or infinity")
    return array


def _cut(x: Array, k: int) -> Array:
    """[C, H, W] to its non-overlapping patches in row order, flat: [(H/k)(W/k), C*k*k]."""
    _, height, width = x.shape
    return np.stack(
        [
            x[:, i : i + k, j : j + k].reshape(-1)
            for i in range(0, height, k)
            for j in range(0, width, k)
        ]
    )


def _paste(patches: Sequence[Array], k: int, shape: tuple[int, ...]) -> Array:
    """The inverse of `_cut`: "directly composing all the repaired local feature patches"."""
    channels, height, width = shape
    out = np.empty((channels, height, width))
    corners = [(i, j) for i in range(0, height, k) for j in range(0, width, k)]
    for (i, j), patch in zip(corners, patches, strict=True):
        out[:, i : i + k, j : j + k] = patch.reshape(channels, k, k)
    return out


def _unit(patch: Array) -> Array:
    """A flat patch divided by its norm."""
    norm = float(np.sqrt(np.sum(patch * patch)))
    return patch / max(norm, NORM_EPS)


def _softmax(x: Array) -> Array:
    powers = np.exp(x - x.max())
    weights: Array = powers / powers.sum()
    return weights


def _bilinear(size: int, wanted: int) -> Array:
    """[wanted, size]: row i holds the weights of the source pixels in target pixel i."""
    weights = np.zeros((wanted, size))
    for i in range(wanted):
        # The centre of target pixel i in source pixels, kept between the outermost centres.
        centre = min(max((i + 0.5) * size / wanted - 0.5, 0.0), size - 1.0)
        low = int(centre)
        high = min(low + 1, size - 1)
        weights[i, low] += 1.0 - (centre - low)
        weights[i, high] += centre - low
    return weights
