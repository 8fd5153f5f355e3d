"""Intervals for what INT8 costs: a paired bootstrap over the images of the gate.

Each resample draws good and defective images with replacement, as many of each as there are
(stratified), and puts both engines to the same draw (paired): what is common to both, hard and
easy images, cancels, and only their difference remains (B. Efron, R. Tibshirani, An Introduction
to the Bootstrap, 1993, chapters 8 and 13). Percentile intervals.

False rejects and misses are counts of the few images on which the engines disagree: a bootstrap of
two or three of them is too sure of itself (simulated: an end meant to hold with 95 % held with 86).
They get the closed interval of D. Bonett, R. Price, Adjusted Wald confidence interval for a
difference of binomial proportions based on paired data, J. Educ. Behav. Stat. 37 (2012).

No resample touches a pixel: each image is reduced once to three histograms over its map's
values (defect-free pixels, defective pixels, shares of regions), and a resample weighs those. On
them an area is right to about 1e-4, and only the differences between resamples come from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ndp_edge.metrics import FPR_LIMIT, region_weights

Array = NDArray[np.float64]

RESAMPLES = 2000
CONFIDENCE = 0.90
"""Of the two-sided interval, so that each end alone holds with 95 %: what a test of
non-inferiority asks for."""

Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)

BINS = 768
"""Of a map's histogram, laid so that each holds about the same share of good and of defective
pixels; 120 images of 256 x 256 take a second."""

CODE_SHIFT = 13
"""A float32's bits without the last 13 rank maps to 1 part in 1024: the bins are cut from these."""

RULE_OF_THREE = 0.05
"""Chance that n images show nothing though a share p of all would: (1 - p)^n, p about 3 / n."""


class Interval(NamedTuple):
    """How much worse INT8 is than FP32, from and to; negative is better."""

    low: float
    high: float


@dataclass(frozen=True)
class Side:
    """What one engine answered: scores float [N], smoothed maps float32 [N, H, W] in [0, 1]."""

    scores: NDArray[np.float32]
    maps: NDArray[np.float32]


def intervals(
    fp32: Side,
    int8: Side,
    labels: NDArray[np.int64],
    masks: NDArray[np.bool_],
    threshold: float,
    *,
    worse: dict[str, float],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Interval]:
    """How much worse INT8 is, metric by metric, as an interval of CONFIDENCE.

    Rates need no resample: theirs is `_paired_rates`.

    Args:
        fp32, int8: of the same N images.
        labels: [N], 1 for defective.
        masks: [N, H, W].
        threshold: frozen; above it an image is rejected.
        worse: metric -> how much worse INT8 is on these very images, for the metrics that
            exist (keys as in `metrics.summary`); no others are answered.
        seed: of the draws.
        resamples: how many.

    Returns:
        metric -> Interval. Where all resamples of an area agree (every image keeps its place in
        both engines) a bootstrap sees nothing; the upper end is then what the rule of three
        leaves open: a kind of image that is 3 / n of all may be missing among n.
    """
    draws = _draws(labels, seed, resamples)
    bad = labels.astype(np.bool_)
    found: dict[str, Array] = {}
    if "image_auroc" in worse:
        found["image_auroc"] = _image_auroc(fp32, draws, bad) - _image_auroc(int8, draws, bad)
    if "pixel_auroc" in worse or "aupro" in worse:
        before, after = (_areas(_counts(side.maps, masks), draws) for side in (fp32, int8))
        found |= {key: before[key] - after[key] for key in before if key in worse}
    smallest = min(n for n in (int(np.sum(~bad)), int(np.sum(bad))) if n)
    told = {key: _interval(value, worse[key], smallest) for key, value in found.items()}
    flips = (int8.scores > threshold).astype(np.int64) - (fp32.scores > threshold)
    if "false_reject_rate" in worse:
        told["false_reject_rate"] = _paired_rates(flips[~bad])
    if "miss_rate" in worse:
        told["miss_rate"] = _paired_rates(-flips[bad])
    return told


def _interval(draws: Array, worse: float, n: int) -> Interval:
    """Percentiles of draws [1 + R], moved so that the first, the images as they are, is `worse`."""
    moved = draws[1:] + (worse - draws[0])
    low, high = np.quantile(moved, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    if np.ptp(moved) < 1e-12:
        high = worse + 1 - RULE_OF_THREE ** (1 / n)
    return Interval(float(low), float(high))


def _paired_rates(flips: NDArray[np.int64]) -> Interval:
    """Of a rate's rise, from n images' flips: 1 where INT8 alone errs, -1 where FP32 alone does.

    With one image more on each side: p = (count + 1) / (n + 2), p_up - p_down +- z times the root
    of (p_up + p_down - (p_up - p_down)^2) / (n + 2).
    """
    n = len(flips) + 2
    up, down = (float(np.sum(flips == way) + 1) / n for way in (1, -1))
    reach = Z * ((up + down - (up - down) ** 2) / n) ** 0.5
    return Interval(max(-1.0, up - down - reach), min(1.0, up - down + reach))


def _draws(labels: NDArray[np.int64], seed: int, resamples: int) -> Array:
    """How often each resample holds each image, [1 + R, N]; row 0 is the images as they are."""
    rng = np.random.default_rng(seed)
    draws = np.ones((1 + resamples, len(labels)))
    for label in (0, 1):
        members = np.flatnonzero(labels == label)
        if len(members):
            even = np.full(len(members), 1 / len(members))
            draws[1:, members] = rng.multinomial(len(members), even, size=resamples)
    return draws


def _image_auroc(side: Side, draws: Array, bad: NDArray[np.bool_]) -> Array:
    """AUROC over images per draw: pairs won, ties half, each as often as both were drawn."""
    high, low = side.scores[bad][:, None], side.scores[~bad][None, :]
    won = (high > low) + 0.5 * (high == low)
    pairs = np.einsum("rg,rg->r", draws[:, bad] @ won, draws[:, ~bad])
    return np.asarray(pairs / (won.shape[0] * won.shape[1]), np.float64)


class _Counts(NamedTuple):
    """Per image and bin, bins falling: float64 [N, B] each."""

    good: Array
    defective: Array
    overlap: Array


def _counts(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> _Counts:
    """The histograms of each image; `overlap` adds 1 / (size of its region) per pixel."""
    # Adding 0 turns -0.0, whose bits would rank it highest, into 0.0.
    codes = (np.maximum(maps, 0) + np.float32(0)).view(np.uint32) >> CODE_SHIFT
    size = int(codes.max()) + 1
    good = np.bincount(codes[~masks], minlength=size) / max(1, int(np.sum(~masks)))
    defective = np.bincount(codes[masks], minlength=size) / max(1, int(np.sum(masks)))
    both = good + defective
    above = np.cumsum(both[::-1])[::-1] - both
    # Even shares of both kinds: where only one kind lies, the other has no ties to lose.
    bin_of = np.clip(BINS * above / 2, 0, BINS - 1).astype(np.int64)
    out = _Counts(*(np.zeros((len(maps), BINS)) for _ in range(3)))
    for i, (code, mask) in enumerate(zip(codes, masks, strict=True)):
        inside = bin_of[code[mask]]
        everything = np.bincount(bin_of[code.ravel()], minlength=BINS)
        out.defective[i] = np.bincount(inside, minlength=BINS)
        out.good[i] = everything - out.defective[i]
        if len(inside):
            out.overlap[i] = np.bincount(inside, region_weights(mask[None]), minlength=BINS)
    return out


def _areas(counts: _Counts, draws: Array) -> dict[str, Array]:
    """Pixel AUROC and AUPRO per draw, [R], from curves with one point a bin."""
    x, found, overlap = (_curve(draws @ part) for part in counts)
    return {
        "pixel_auroc": _area(x, found, 1.0),
        "aupro": _area(x, overlap, FPR_LIMIT) / FPR_LIMIT,
    }


def _curve(weighed: Array) -> Array:
    """Share at or above each bin, [R, 1 + B] from 0 to 1."""
    risen = np.cumsum(weighed, axis=1)
    total = np.maximum(risen[:, -1:], 1e-12)
    return np.concatenate([np.zeros((len(risen), 1)), risen / total], axis=1)


def _area(x: Array, y: Array, limit: float) -> Array:
    """Area under each polyline up to `limit`, interpolated there."""
    width = np.diff(x, axis=1)
    kept = np.clip(limit - x[:, :-1], 0.0, width)
    rise = np.divide(np.diff(y, axis=1), width, out=np.zeros_like(width), where=width > 0)
    return np.asarray(np.sum(kept * (y[:, :-1] + 0.5 * rise * kept), axis=1), np.float64)
