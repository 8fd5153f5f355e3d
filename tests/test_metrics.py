"""Metrics against naive versions that follow the definitions word by word, and their laws."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndp_edge import metrics
from ndp_edge.errors import InputError

Metric = Callable[[np.ndarray, np.ndarray], float]
Regions = Callable[[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]
deterministic = settings(derandomize=True, deadline=None, max_examples=80)


# --- the definitions, slow ----------------------------------------------------------------


def naive_auroc(values: np.ndarray, positive: np.ndarray) -> float:
    pairs = list(itertools.product(values[positive].tolist(), values[~positive].tolist()))
    return math.fsum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


def naive_aupro(maps: np.ndarray, masks: np.ndarray, limit: float, regions_of: Regions) -> float:
    """One curve point per distinct threshold, each counted afresh, as MVTec AD's code does."""
    regions = []
    for values, mask in zip(maps, masks, strict=True):
        regions += [values[region] for region in regions_of(mask)]
    good = maps[~masks]
    points = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        overlap = math.fsum(float((r >= threshold).mean()) for r in regions) / len(regions)
        points.append((float((good >= threshold).mean()), overlap))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x1 <= limit:
            area += 0.5 * (y0 + y1) * (x1 - x0)
        elif x0 < limit:
            y = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            area += 0.5 * (y0 + y) * (limit - x0)
    return area / limit


@st.composite
def categories(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """A few small maps with few or many distinct values, and masks with both kinds of pixel."""
    n, h, w = (draw(st.integers(1, 4)), draw(st.integers(2, 9)), draw(st.integers(2, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    masks = rng.random((n, h, w)) < draw(st.sampled_from([0.05, 0.3, 0.6]))
    masks.flat[0], masks.flat[-1] = True, False
    levels = draw(st.sampled_from([1, 2, 5, 1000, 65535]))
    maps = np.round(levels * rng.random((n, h, w)) + draw(st.integers(0, 2)) * masks)
    dtype = draw(st.sampled_from([np.uint16, np.float32, np.float64]))
    return np.minimum(maps, 65535).astype(dtype), masks


@deterministic
@given(categories())
def test_pixel_auroc_is_mann_whitney(category: tuple[np.ndarray, np.ndarray]) -> None:
    maps, masks = category
    got = metrics.pixel_auroc(maps, masks)
    assert got == pytest.approx(naive_auroc(maps.ravel(), masks.ravel()), abs=1e-14)


@deterministic
@given(categories(), st.sampled_from([0.05, 0.3, 0.5, 1.0]))
def test_aupro_is_the_official_curve(
    regions_of: Regions, category: tuple[np.ndarray, np.ndarray], limit: float
) -> None:
    maps, masks = category
    got = metrics.aupro(maps, masks, limit)
    assert got == pytest.approx(naive_aupro(maps, masks, limit, regions_of), abs=1e-12)
    assert 0.0 <= got <= 1.0


@deterministic
@given(categories())
def test_only_the_order_of_the_scores_counts(category: tuple[np.ndarray, np.ndarray]) -> None:
    maps, masks = category
    x = maps.astype(np.float64)
    moved = x**3 / 1e6 - 17.0  # strictly rising, exact enough to keep ties tied and others apart
    for metric in (metrics.pixel_auroc, metrics.aupro):
        assert metric(moved, masks) == metric(maps, masks)
    assert metrics.pixel_auroc(-x, masks) == pytest.approx(
        1.0 - metrics.pixel_auroc(x, masks), abs=1e-14
    )


@deterministic
@given(categories())
def test_a_perfect_and_an_inverted_map(category: tuple[np.ndarray, np.ndarray]) -> None:
    _, masks = category
    assert metrics.pixel_auroc(masks, masks) == 1.0
    assert metrics.aupro(masks, masks) == 1.0
    assert metrics.pixel_auroc(~masks, masks) == 0.0
    # Inverted, every good pixel is reached before any defective one.
    assert metrics.aupro(~masks, masks) == 0.0


def test_image_auroc_by_hand() -> None:
    labels = np.array([0, 0, 1, 1])
    assert metrics.image_auroc(np.array([0.1, 0.4, 0.35, 0.8]), labels) == 0.75
    assert metrics.image_auroc(np.array([0.5, 0.5, 0.5, 0.5]), labels) == 0.5
    assert metrics.image_auroc(np.array([0.1, 0.5, 0.5, 0.8]), labels) == 0.875
    assert metrics.image_auroc(np.array([1, 2, 3, 4]), labels.astype(bool)) == 1.0


def test_float64_scores_are_not_rounded_into_ties() -> None:
    scores = np.array([1.0, 1.0 + 1e-12])
    assert metrics.image_auroc(scores, np.array([0, 1])) == 1.0
    assert metrics.image_auroc(scores, np.array([1, 0])) == 0.0


def test_aupro_weighs_regions_not_pixels() -> None:
    # A region of one pixel missed and one of 30 pixels found count the same.
    masks = np.zeros((1, 20, 20), bool)
    masks[0, 0, 0] = True
    masks[0, 5:11, 5:10] = True
    maps = np.where(masks, 1.0, 0.5)
    maps[0, 0, 0] = 0.0
    assert metrics.aupro(maps, masks) == pytest.approx(0.5, abs=1e-15)
    assert metrics.pixel_auroc(maps, masks) == pytest.approx(30 / 31, abs=1e-15)


def test_diagonal_neighbours_are_one_region_and_images_are_apart() -> None:
    masks = np.zeros((2, 6, 6), bool)
    masks[0, 1, 1] = masks[0, 2, 2] = masks[0, 3, 3] = True  # one region of three pixels
    masks[1, 1, 1] = True  # another of one
    maps = np.full(masks.shape, 0.5)
    maps[1, 1, 1] = 1.0
    maps[0][masks[0]] = [1.0, 0.0, 0.0]
    assert metrics.aupro(maps, masks) == pytest.approx((1 / 3 + 1) / 2, abs=1e-15)


def test_aupro_interpolates_at_the_limit() -> None:
    # One threshold takes half of the good pixels and the whole region: a slope from (0, 0)
    # to (0.5, 1), which at 0.3 has height 0.6.
    masks = np.array([[[1, 0, 0]]], bool)
    maps = np.array([[[1.0, 1.0, 0.0]]])
    assert metrics.aupro(maps, masks, 0.3) == pytest.approx(0.3, abs=1e-15)
    assert metrics.aupro(maps, masks, 0.5) == pytest.approx(0.5, abs=1e-15)
    assert metrics.aupro(maps, masks, 1.0) == pytest.approx(0.75, abs=1e-15)


# --- refusals -----------------------------------------------------------------------------

GOOD_MAPS = np.arange(18.0).reshape(2, 3, 3)
GOOD_MASKS = np.arange(18).reshape(2, 3, 3) > 12


def spoiled(value: float) -> np.ndarray:
    maps = GOOD_MAPS.copy()
    maps[1, 2, 0] = value
    return maps


@pytest.mark.parametrize("metric", [metrics.pixel_auroc, metrics.aupro])
@pytest.mark.parametrize(
    ("maps", "masks"),
    [
        (spoiled(np.nan), GOOD_MASKS),
        (spoiled(np.inf), GOOD_MASKS),
        (GOOD_MAPS[:0], GOOD_MASKS[:0]),
        (GOOD_MAPS[0], GOOD_MASKS[0]),
        (GOOD_MAPS, GOOD_MASKS[:1]),
        (GOOD_MAPS, np.zeros_like(GOOD_MASKS)),
        (GOOD_MAPS, np.ones_like(GOOD_MASKS)),
        (GOOD_MAPS, GOOD_MASKS * 255),
        (GOOD_MAPS.astype(complex), GOOD_MASKS),
        (GOOD_MAPS.astype(str), GOOD_MASKS),
    ],
)
def test_pixel_metrics_refuse(metric: Metric, maps: np.ndarray, masks: np.ndarray) -> None:
    with pytest.raises(InputError):
        metric(maps, masks)


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        ([0.1, np.nan], [0, 1]),
        ([0.1, 0.2], [0, 0]),
        ([0.1, 0.2], [1, 1]),
        ([0.1, 0.2], [0, 2]),
        ([0.1, 0.2], [0, 1, 1]),
        ([], []),
        ([[0.1, 0.2]], [[0, 1]]),
        ([0.1, 0.2], ["good", "bad"]),
    ],
)
def test_image_auroc_refuses(scores: list, labels: list) -> None:
    with pytest.raises(InputError):
        metrics.image_auroc(np.array(scores), np.array(labels))


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.1, math.nan])
def test_aupro_refuses_a_limit_outside_the_unit_interval(limit: float) -> None:
    with pytest.raises(InputError):
        metrics.aupro(GOOD_MAPS, GOOD_MASKS, limit)


# --- the report's keys --------------------------------------------------------------------


def category_of(labels: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    marks = np.array(labels, bool)
    masks = np.zeros((len(labels), 4, 4), bool)
    masks[marks, 1:3, 1:3] = True
    return marks, masks.astype(np.float32), masks


def test_summary() -> None:
    labels, maps, masks = category_of([0, 0, 0, 0, 1, 1])
    scores = np.array([0.1, 0.2, 0.3, 0.9, 0.3, 0.8], np.float32)
    report = metrics.summary(scores, labels, maps, masks, 0.5)
    assert report == {
        "image_auroc": metrics.image_auroc(scores, labels),
        "pixel_auroc": 1.0,
        "aupro": 1.0,
        "false_reject_rate": 0.25,
        "miss_rate": 0.5,
        "threshold": 0.5,
    }
    assert json.loads(json.dumps(report)) == report


def test_an_image_at_the_threshold_passes() -> None:
    labels, maps, masks = category_of([0, 1])
    report = metrics.summary(np.array([0.5, 0.5]), labels, maps, masks, 0.5)
    assert (report["false_reject_rate"], report["miss_rate"]) == (0.0, 1.0)


def test_summary_leaves_undefined_figures_out() -> None:
    labels, maps, masks = category_of([0, 0])
    report = metrics.summary(np.array([0.1, 0.9]), labels, maps, masks, 0.5)
    assert report["false_reject_rate"] == 0.5
    for key in ("image_auroc", "pixel_auroc", "aupro", "miss_rate"):
        assert report[key] is None
    labels, maps, masks = category_of([1, 1])
    report = metrics.summary(np.array([0.1, 0.9]), labels, maps, masks, None)
    assert report["pixel_auroc"] == 1.0
    for key in ("image_auroc", "false_reject_rate", "miss_rate", "threshold"):
        assert report[key] is None


def test_summary_refuses_what_contradicts_itself() -> None:
    labels, maps, masks = category_of([0, 1])
    scores = np.array([0.1, 0.9])
    with pytest.raises(InputError, match="labelled good"):
        metrics.summary(scores, ~labels, maps, masks, 0.5)
    with pytest.raises(InputError, match="maps"):
        metrics.summary(np.array([0.1]), labels[:1], maps, masks, 0.5)
    for threshold in (math.nan, math.inf):
        with pytest.raises(InputError, match="threshold"):
            metrics.summary(scores, labels, maps, masks, threshold)


# --- speed --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", [np.float32, np.uint16])
def test_400_maps_of_256_in_half_a_minute(kind: type, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    masks = np.zeros((400, 256, 256), bool)
    for mask in masks[:200]:
        for y, x in rng.integers(0, 200, (4, 2)):
            mask[y : y + 45, x : x + 30] = True
    maps = (rng.random(masks.shape, np.float32) + 0.2 * masks) * 50000
    started = time.perf_counter()
    overlap = metrics.aupro(maps.astype(kind), masks)
    seconds = time.perf_counter() - started
    with capsys.disabled():
        print(f"\naupro, 400 maps of 256x256, {kind.__name__}: {seconds:.2f} s")
    assert 0.0 < overlap < 1.0
    assert seconds < 30
