"""What RBFRM's kernels need of the reference map, computed once in float64. No torch here.

The kernels read the reference map itself for both of RBFRM's products; what else depends on
it alone (means, inverse norms) is folded into one float32 vector, whose layout stands in
`kernels/src/ndp_kernels.h` beside `ndp_rbfrm_prepared_floats`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.errors import InputError
from ndp_edge.model.config import PATCH_SIZES

NORM_EPS = 1e-12
"""Patches of smaller norm count as having this norm (as in model/rbam.py, which needs torch)."""

KEY_LIMIT = 1e30
"""Keys stay finite in float32; a patch that would have a larger one has only zero products."""


def prepare_reference(reference: NDArray[Any]) -> NDArray[np.float32]:
    """The vector that `ndp_rbfrm` takes as `prepared`.

    Args:
        reference: F_ref, [C, h, w], float16 or float32 (the type the kernels will read), h and
            w divisible by 4.

    Returns:
        float32 [20 C + 6 R], R = (h/4)(w/4): mean2 [2, 2, C], mean4 [4, 4, C], key2 [R, 4],
        key4 [R], shift [R]. Keys are inverse norms of the patches times `shift`, a power of two
        per 4x4 patch that keeps float32 sums of squares in range (float16 cannot leave it: 1).

    Raises:
        InputError: another shape or type, NaN or infinity.
    """
    _check(reference)
    x = reference.astype(np.float64)
    channels = x.shape[0]
    means = [_patches(x, k).mean(axis=0).transpose(1, 2, 0).reshape(-1) for k in PATCH_SIZES]
    large = _patches(x, 4)
    shift = _shift(large, reference.dtype)
    # The four 2x2 patches of each 4x4 patch, in raster order.
    small = large.reshape(-1, channels, 2, 2, 2, 2).transpose(0, 2, 4, 1, 3, 5)
    norm2 = np.sqrt(np.square(small).sum(axis=(3, 4, 5))).reshape(-1, 4) * shift[:, None]
    norm4 = np.sqrt(np.square(large).sum(axis=(1, 2, 3))) * shift
    key2 = np.minimum(1.0 / np.maximum(norm2, (NORM_EPS * shift)[:, None]), KEY_LIMIT)
    key4 = np.minimum(1.0 / np.maximum(norm4, NORM_EPS * shift), KEY_LIMIT)
    parts = [*means, key2.reshape(-1), key4, shift]
    return np.concatenate(parts).astype(np.float32)


def _check(reference: NDArray[Any]) -> None:
    if reference.ndim != 3 or reference.size == 0 or any(s % 4 for s in reference.shape[1:]):
        raise InputError(
            f"reference map of shape {reference.shape}: wanted [C, h, w], sides divisible by 4"
        )
    if reference.dtype not in (np.float16, np.float32):
        raise InputError(f"reference map of type {reference.dtype}: wanted float16 or float32")
    if not np.all(np.isfinite(reference)):
        raise InputError("the reference map holds NaN or infinity")


def _patches(x: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """[C, h, w] to its KxK patches in raster order, [(h/K)(w/K), C, K, K]."""
    c, h, w = x.shape
    cut = x.reshape(c, h // k, k, w // k, k).transpose(1, 3, 0, 2, 4)
    patches: NDArray[np.float64] = cut.reshape(-1, c, k, k)
    return patches


def _shift(patches: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """Per 4x4 patch the power of two that brings its largest magnitude into [1, 2).

    Exponents stay within float32's normal range; the kernels do the same with the features.
    """
    ones = np.ones(len(patches))
    if dtype == np.float16:
        return ones
    top = np.abs(patches).max(axis=(1, 2, 3))
    _, exponent = np.frexp(np.where(top > 0, top, 1.0))
    shift: NDArray[np.float64] = np.ldexp(ones, np.clip(1 - exponent, -126, 126))
    return shift
