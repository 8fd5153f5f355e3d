"""The paired bootstrap: against one that copies images about, and on data whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndp_edge import metrics
from ndp_edge.calib.bootstrap import Interval, Side, intervals
from ndp_edge.calib.gate import AREAS, RATES, judge, worse

SIDE = 12
THRESHOLD = 0.5
ALL = (*AREAS, *RATES)
DRAWS = 120


def images(seed: int, good: int = 10, bad: int = 10) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Labels, and masks of one or two blobs per defective image."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [good, bad]).astype(np.int64)
    masks = np.zeros((good + bad, SIDE, SIDE), np.bool_)
    for mask in masks[good:]:
        for _ in range(rng.integers(1, 3)):
            y, x = rng.integers(0, SIDE - 4, 2)
            mask[y : y + rng.integers(1, 4), x : x + rng.integers(1, 4)] = True
    return labels, masks


def engine(
    masks: NDArray[np.bool_], seed: int, contrast: float | NDArray[np.float64] = 0.25
) -> Side:
    """Maps of noise in [0, 1), brighter by `contrast` (per image or for all) on defects."""
    rng = np.random.default_rng(seed)
    lift = np.broadcast_to(np.asarray(contrast), (len(masks),))[:, None, None]
    maps = (0.45 * rng.random(masks.shape) ** 2 + lift * masks).astype(np.float32)
    return Side(maps.max(axis=(1, 2)), maps)


def figures(side: Side, labels: NDArray[np.int64], masks: NDArray[np.bool_]) -> dict[str, float]:
    told = metrics.summary(side.scores, labels, side.maps, masks, THRESHOLD)
    return {key: value for key, value in told.items() if value is not None and key in ALL}


def found(
    fp32: Side, int8: Side, labels: NDArray[np.int64], masks: NDArray[np.bool_], seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Interval]:  # fmt: skip
    lost = worse(figures(fp32, labels, masks), figures(int8, labels, masks))
    return intervals(
        fp32, int8, labels, masks, THRESHOLD, worse=lost, seed=seed, resamples=resamples
    )


def copies(
    fp32: Side, int8: Side, labels: NDArray[np.int64], masks: NDArray[np.bool_], count: int
) -> Iterator[dict[str, float]]:
    """The definition: draw images of each kind with replacement, and measure them afresh."""
    rng = np.random.default_rng(99)
    kinds = [np.flatnonzero(labels == label) for label in (0, 1)]
    for _ in range(count):
        drawn = np.concatenate([rng.choice(kind, len(kind)) for kind in kinds])
        parts = (Side(s.scores[drawn], s.maps[drawn]) for s in (fp32, int8))
        yield worse(*(figures(part, labels[drawn], masks[drawn]) for part in parts))


@pytest.mark.parametrize("seed", [1, 2])
def test_it_agrees_with_images_drawn_and_measured_afresh(seed: int) -> None:
    labels, masks = images(seed)
    fp32, int8 = engine(masks, seed), engine(masks, seed + 50, 0.18)
    told = found(fp32, int8, labels, masks)
    afresh = list(copies(fp32, int8, labels, masks, 600))
    for key in AREAS:
        assert told[key].high - told[key].low > 0.02, key
        low, high = np.quantile([one[key] for one in afresh], [0.05, 0.95])
        near = 0.12 * (high - low) + 0.004
        assert told[key].low == pytest.approx(low, abs=near), key
        assert told[key].high == pytest.approx(high, abs=near), key


def test_identical_engines_lose_nothing_and_too_few_images_show_nothing() -> None:
    labels, masks = images(3)
    side = engine(masks, 3)
    told = found(side, side, labels, masks)
    verdict = judge(
        figures(side, labels, masks), figures(side, labels, masks), 0.005,
        n_good=10, n_defective=10, intervals=told,
    )  # fmt: skip
    assert verdict.passed
    assert all(told[key].low == 0 for key in AREAS)
    # The rule of three: ten images that agree leave room for one kind in four.
    assert told["aupro"].high == pytest.approx(1 - 0.05 ** (1 / 10))
    assert "too few images to show that nothing was lost" in verdict.reason


@given(st.integers(0, 10_000))
@settings(max_examples=8, deadline=None, derandomize=True)
def test_what_one_loses_the_other_gains(seed: int) -> None:
    labels, masks = images(seed, 6, 6)
    a, b = engine(masks, seed), engine(masks, seed + 1)
    there, back = (found(*pair, labels, masks, resamples=200) for pair in ((a, b), (b, a)))
    assert there.keys() == back.keys() == set(ALL)
    for key, (low, high) in there.items():
        assert math.isfinite(low)
        assert low <= high
        same = low == back[key].low == 0  # no resample differs: the rule of three, both ways
        assert same or (low, high) == pytest.approx((-back[key].high, -back[key].low), abs=1e-9)


def test_a_planted_loss_is_found() -> None:
    """Every third defect has faded: no noise explains that."""
    labels, masks = images(5, 40, 40)
    faded = np.where(np.arange(80) % 3 == 0, 0.0, 0.25)
    told = found(engine(masks, 5), engine(masks, 5, faded), labels, masks)
    for key in (*AREAS, "miss_rate"):
        assert told[key].low > 0, key
    assert told["false_reject_rate"].low <= 0


def truth(rng: np.random.Generator, fade: float, n: int) -> tuple[Side, Side, NDArray[np.int64]]:
    """n good and n defective scores; INT8 adds noise and takes `fade` from the defective."""
    labels = np.repeat([0, 1], n).astype(np.int64)
    scores = rng.normal(1.5 * labels, 1.0)
    moved = scores + rng.normal(0, 0.3, 2 * n) - fade * labels
    maps = np.zeros((2 * n, 1, 1), np.float32)
    return Side(scores.astype(np.float32), maps), Side(moved.astype(np.float32), maps), labels


def drawn(rng: np.random.Generator, fade: float, n: int, threshold: float) -> tuple[
    dict[str, float], dict[str, Interval]
]:  # fmt: skip
    fp32, int8, labels = truth(rng, fade, n)
    lost = {
        "image_auroc": metrics.image_auroc(fp32.scores, labels)
        - metrics.image_auroc(int8.scores, labels),
        "miss_rate": float(
            np.mean(int8.scores[labels == 1] <= threshold)
            - np.mean(fp32.scores[labels == 1] <= threshold)
        ),
    }
    masks = np.zeros((2 * n, 1, 1), np.bool_)
    return lost, intervals(fp32, int8, labels, masks, threshold, worse=lost, resamples=200)


@pytest.mark.parametrize("fade", [0.0, 0.3])
def test_each_end_holds_as_often_as_it_says(fade: float) -> None:
    """Draws of 60 + 60 images from a population whose loss is known from 200 000."""
    rng = np.random.default_rng(7)
    threshold = 1.0
    exact, _ = drawn_large(rng, fade, threshold)
    held = {key: np.zeros(2) for key in exact}
    for _ in range(DRAWS):
        _, told = drawn(rng, fade, 60, threshold)
        for key, interval in told.items():
            held[key] += [interval.low <= exact[key], exact[key] <= interval.high]
    for key, ends in held.items():
        assert (ends / DRAWS >= 0.90).all(), (key, ends)
        assert (ends / DRAWS <= 0.995).all(), (key, ends)  # no wider than it need be


def drawn_large(
    rng: np.random.Generator, fade: float, threshold: float
) -> tuple[dict[str, float], None]:
    fp32, int8, labels = truth(rng, fade, 200_000)
    bad = labels == 1
    area = metrics.image_auroc(fp32.scores, labels) - metrics.image_auroc(int8.scores, labels)
    missed = np.mean(int8.scores[bad] <= threshold) - np.mean(fp32.scores[bad] <= threshold)
    return {"image_auroc": area, "miss_rate": float(missed)}, None


def test_noise_alone_is_seldom_called_a_loss() -> None:
    """No drop allowed at all: only the interval stands between noise and a failed gate."""
    rng = np.random.default_rng(11)
    failed = 0
    for _ in range(DRAWS):
        lost, told = drawn_even(rng)
        before = {"image_auroc": 0.9}
        after = {"image_auroc": 0.9 - lost["image_auroc"]}
        failed += not judge(before, after, 0.0, intervals=told).passed
    assert failed <= 13  # 5 % are promised: of 120 more than 13 once in 200 times


def drawn_even(rng: np.random.Generator) -> tuple[dict[str, float], dict[str, Interval]]:
    """Both engines are the same scores with noise of their own: neither is worse."""
    labels = np.repeat([0, 1], 60).astype(np.int64)
    scores = rng.normal(1.5 * labels, 1.0)
    maps = np.zeros((120, 1, 1), np.float32)
    sides = [Side((scores + rng.normal(0, 0.3, 120)).astype(np.float32), maps) for _ in range(2)]
    areas = [metrics.image_auroc(side.scores, labels) for side in sides]
    lost = {"image_auroc": areas[0] - areas[1]}
    masks = np.zeros((120, 1, 1), np.bool_)
    return lost, intervals(*sides, labels, masks, 0.5, worse=lost, resamples=200)


def test_the_seed_decides() -> None:
    labels, masks = images(8)
    a, b = engine(masks, 8), engine(masks, 9)
    assert found(a, b, labels, masks) == found(a, b, labels, masks)
    assert found(a, b, labels, masks) != found(a, b, labels, masks, seed=1)


def test_only_what_exists_is_answered() -> None:
    labels, masks = images(4, 12, 0)
    a, b = engine(masks, 4), engine(masks, 5)
    assert found(a, b, labels, masks).keys() == {"false_reject_rate"}
