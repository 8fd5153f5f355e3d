"""Median, score and defects: against plain versions, and score and defects agree."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndp_edge import reference
from ndp_edge.errors import InputError
from ndp_edge.postprocess import find_defects, smooth_into, smooth_max
from ndp_edge.types import Defect

Regions = Callable[[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]
deterministic = settings(derandomize=True, deadline=None, max_examples=60)


def random_maps(n: int, h: int, w: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((n, h, w), np.float32)


@deterministic
@given(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_smooth_max_is_the_reference_median(n: int, h: int, w: int, seed: int) -> None:
    maps = random_maps(n, h, w, seed)
    before = maps.copy()
    smoothed, scores = smooth_max(maps)
    assert smoothed.dtype == scores.dtype == np.float32
    assert smoothed.shape == maps.shape
    for got, score, source in zip(smoothed, scores, maps, strict=True):
        assert np.array_equal(got, reference.median_filter(source))
        assert score == got.max()
    assert np.array_equal(maps, before)


@deterministic
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_smoothing_into_memory_at_hand_is_the_same(h: int, w: int, seed: int) -> None:
    maps = random_maps(1, h, w, seed)
    out = np.full((h, w), np.nan, np.float32)
    smoothed, scores = smooth_max(maps)
    assert smooth_into(maps[0], out) == scores[0]
    assert np.array_equal(out, smoothed[0])
    for wrong in (np.empty((h, w + 1), np.float32), np.empty((h, w)), np.empty((w, 2 * h)).T[::2]):
        with pytest.raises(InputError):
            smooth_into(maps[0], wrong)


def test_smooth_max_takes_a_strided_view() -> None:
    maps = random_maps(2, 16, 24, 0)
    view = maps.transpose(0, 2, 1)[:, ::2]
    smoothed, scores = smooth_max(view)
    same, same_scores = smooth_max(np.ascontiguousarray(view))
    assert np.array_equal(smoothed, same)
    assert np.array_equal(scores, same_scores)


def test_a_lone_bright_pixel_is_noise_and_a_spot_is_not() -> None:
    maps = np.zeros((2, 32, 32), np.float32)
    maps[0, 16, 16] = 1.0
    maps[1, 12:20, 12:20] = 1.0
    assert smooth_max(maps)[1].tolist() == [0.0, 1.0]


def test_defects_by_hand() -> None:
    smoothed = np.zeros((20, 30), np.float32)
    smoothed[2:5, 3:9] = 0.6
    smoothed[3, 4] = 0.75
    smoothed[10, 20] = smoothed[11, 21] = 0.9  # touch only at a corner: one defect
    smoothed[19, 29] = 0.5  # at the threshold: not above it
    defects = find_defects(smoothed, 0.5)
    assert defects == [
        Defect(box=(20, 10, 2, 2), area=2, peak=float(np.float32(0.9))),
        Defect(box=(3, 2, 6, 3), area=18, peak=0.75),
    ]
    assert all(type(v) is int for d in defects for v in (*d.box, d.area))
    assert find_defects(smoothed, 0.95) == []


@deterministic
@given(
    st.integers(1, 25),
    st.integers(1, 25),
    st.integers(0, 2**32 - 1),
    st.floats(-0.1, 1.1, allow_nan=False),
)
def test_defects_are_the_flooded_regions(
    regions_of: Regions, h: int, w: int, seed: int, threshold: float
) -> None:
    smoothed = random_maps(1, h, w, seed)[0]
    expected = []
    for rows, cols in regions_of(smoothed.astype(np.float64) > threshold):
        x, y = int(cols.min()), int(rows.min())
        box = (x, y, int(cols.max()) - x + 1, int(rows.max()) - y + 1)
        expected.append(Defect(box, len(rows), float(smoothed[rows, cols].max())))
    got = find_defects(smoothed, threshold)
    assert len(got) == len(expected)
    assert sorted(got, key=lambda d: d.box) == sorted(expected, key=lambda d: d.box)
    assert [d.peak for d in got] == sorted((d.peak for d in got), reverse=True)


@deterministic
@given(st.integers(0, 2**32 - 1), st.integers(-2, 2))
def test_there_is_a_defect_exactly_when_the_score_is_above(seed: int, steps: int) -> None:
    # Thresholds a fraction of a float32 step from the score: rounding one would disagree.
    smoothed, scores = smooth_max(random_maps(1, 8, 8, seed))
    score = float(scores[0])
    threshold = score + steps * 0.25 * float(np.spacing(scores[0]))
    assert bool(find_defects(smoothed[0], threshold)) == (score > threshold)


def test_a_map_all_above_is_one_defect() -> None:
    (defect,) = find_defects(np.ones((64, 48), np.float32), 0.5)
    assert defect == Defect(box=(0, 0, 48, 64), area=64 * 48, peak=1.0)


@pytest.mark.parametrize(
    "maps",
    [
        np.zeros((8, 8), np.float32),
        np.zeros((1, 8, 8), np.float64),
        np.zeros((1, 8, 8), np.uint8),
        np.zeros((0, 8, 8), np.float32),
        np.zeros((1, 0, 8), np.float32),
        np.full((1, 8, 8), np.nan, np.float32),
        np.full((1, 8, 8), -np.inf, np.float32),
    ],
)
def test_smooth_max_refuses(maps: np.ndarray) -> None:
    with pytest.raises(InputError):
        smooth_max(maps)


def test_one_nan_among_thousands_is_refused() -> None:
    maps = np.zeros((1, 64, 64), np.float32)
    maps[0, 63, 63] = np.nan
    with pytest.raises(InputError, match="NaN"):
        smooth_max(maps)
    with pytest.raises(InputError, match="NaN"):
        find_defects(maps[0], 0.5)


def test_find_defects_refuses() -> None:
    smoothed = np.zeros((8, 8), np.float32)
    for threshold in (math.nan, math.inf):
        with pytest.raises(InputError, match="threshold"):
            find_defects(smoothed, threshold)
    with pytest.raises(InputError):
        find_defects(smoothed[None], 0.5)
    with pytest.raises(InputError):
        find_defects(smoothed.astype(np.float64), 0.5)
