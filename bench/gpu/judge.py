"""Data, the plain computation, and the rule: at most twice the plain computation's error.

The judge is `reference.py` in float64 on the same rounded inputs. Plain is the printed equation
in float32 NumPy; for FP16 it reads FP16, computes in float32 and rounds its result to FP16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge import reference
from ndp_edge.bench.gpu.rig import need

Array = NDArray[Any]

FACTOR = 2.0
"""How many times the plain error a kernel's may be."""

EPS = 1e-12


def maps(seed: int, shape: Sequence[int], dtype: Any, amplitude: float = 1.0) -> Array:
    """Normal noise after a ReLU, as the encoder's maps are."""
    values = np.random.default_rng(seed).standard_normal(tuple(shape))
    rectified: Array = (amplitude * np.maximum(values, 0.0)).astype(dtype)
    return rectified


def _patches(x: Array, k: int) -> Array:
    """[C, H, W] to [(H/k)(W/k), C k k]."""
    c, h, w = x.shape
    cut: Array = x.reshape(c, h // k, k, w // k, k).transpose(1, 3, 0, 2, 4)
    patches: Array = cut.reshape(-1, c * k * k)
    return patches


def plain_rbfrm(features: Array, ref: Array, k: int, scale: float) -> Array:
    """Equations 3-5 in float32 for one image [C, H, W]; the result float32."""
    c, h, w = features.shape
    p, b = (_patches(x.astype(np.float32), k) for x in (features, ref))
    unit_p, unit_b = (
        x / np.maximum(np.sqrt((x * x).sum(axis=1, keepdims=True)), np.float32(EPS)) for x in (p, b)
    )
    cosine = np.float32(scale) * (unit_p @ unit_b.T)
    powers = np.exp(cosine - cosine.max(axis=1, keepdims=True))
    out = (powers / powers.sum(axis=1, keepdims=True)) @ b
    grid = out.reshape(h // k, w // k, c, k, k).transpose(2, 0, 3, 1, 4)
    return np.ascontiguousarray(grid).reshape(c, h, w)


def rbfrm_plain(features: Array, ref: Array, scale: float) -> tuple[Array, ...]:
    """R2, R4 and U of one image by the plain computation, in the features' type."""
    rep2, rep4 = (plain_rbfrm(features, ref, k, scale) for k in (2, 4))
    three = rep2, rep4, features.astype(np.float32) + rep2 + rep4
    return tuple(_clipped(x, features.dtype).astype(features.dtype) for x in three)


def rbfrm_judge(features: Array, ref: Array, scale: float) -> tuple[Array, ...]:
    """R2, R4 and U of one image by the judge, float64."""
    rep2, rep4 = (reference.rbfrm(features, ref, k, scale) for k in (2, 4))
    three = rep2, rep4, features.astype(np.float64) + rep2 + rep4
    return tuple(_clipped(x, features.dtype) for x in three)


def _clipped(x: Array, dtype: Any) -> Array:
    """FP16 outputs stop at its largest number: an infinity would be NaN one layer later."""
    most = float(np.finfo(np.float16).max)
    return np.clip(x, -most, most) if dtype == np.float16 else x


def ffm_plain(logits: Array, rep4: Array, rep2: Array, features: Array) -> Array:
    """Equations 7 and 8 in float32 for logits [3, C, H, W], in the features' type."""
    wide = logits.astype(np.float32)
    powers = np.exp(wide - wide.max(axis=0))
    weights = powers / powers.sum(axis=0)
    branches = np.stack([x.astype(np.float32) for x in (rep4, rep2, features)])
    total: Array = (weights * branches).sum(axis=0).astype(features.dtype)
    return total


def errors(got: Array, judge: Array) -> tuple[float, float]:
    """Largest and root-mean-square error against the judge; both finite, or WrongError."""
    need(got.shape == judge.shape, f"shape {got.shape}, wanted {judge.shape}")
    missing = int((~np.isfinite(got)).sum())
    need(missing == 0, f"{missing} of {got.size} elements are not finite or were not written")
    apart = np.abs(got.astype(np.float64) - judge)
    return float(apart.max()), float(np.sqrt(np.square(apart).mean()))


def compare(
    name: str, got: Array, plain: Array, judge: Array, strict: bool = False
) -> dict[str, float]:
    """The rule itself, for the largest and for the root-mean-square error.

    The largest error among a few numbers is a matter of luck: unless `strict`, it may be twice
    as much again, and two roundings of the largest number are never a fault.

    Returns:
        The errors, and how many times the plain error each is.

    Raises:
        WrongError: over FACTOR, or not finite.
    """
    ours, theirs = errors(got, judge), errors(plain, judge)
    floor = 0.0 if strict else float(np.spacing(np.abs(judge).max().astype(got.dtype)))
    factors = (FACTOR if strict else 2 * FACTOR, FACTOR)
    report = {}
    for kind, factor, a, b in zip(("largest", "rms"), factors, ours, theirs, strict=True):
        need(
            a <= max(factor * b, floor),
            f"{name}: {kind} error {a:.3g}, over {factor:g} times the plain {b:.3g}",
        )
        report[f"{name}_{kind}_error"] = a
        report[f"{name}_{kind}_over_plain"] = a / b if b else 0.0
    return report


def within(name: str, got: Array, judge: Array, tolerance: float) -> None:
    """For data where plain float32 itself over- or underflows: relative to the judge's largest."""
    largest = errors(got, judge)[0]
    scale = float(np.abs(judge).max())
    need(
        largest <= tolerance * scale,
        f"{name}: error {largest:.3g} of {scale:.3g}, allowed {tolerance:.3g} of it",
    )
