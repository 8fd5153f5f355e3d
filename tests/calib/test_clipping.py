"""Where histograms are clipped: bounds for all, and what each rule promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndp_edge.calib.clipping import BINS, CLIPS, LEVELS, PERCENTILE, STEP, mse_bin, percentile_bin

Counts = NDArray[np.int64]


def histogram(seed: int, tail: float) -> Counts:
    """Magnitudes of a heavy-tailed sample, as `ranges` counts them."""
    values = np.abs(np.random.default_rng(seed).standard_t(tail, 20_000))
    return np.bincount(
        np.minimum(values / values.max() * BINS, BINS - 1).astype(int), minlength=BINS
    ).astype(np.int64)


def squared_error(counts: Counts, width: int) -> float:
    """Of quantising each bin's middle to LEVELS - 1 steps over `width` bins, by brute force."""
    middles = np.arange(BINS) + 0.5
    step = width / (LEVELS - 1)
    told = np.minimum(np.rint(middles / step), LEVELS - 1) * step
    return float((counts * (middles - told) ** 2)[1:].sum())


@pytest.mark.parametrize("rule", CLIPS.values(), ids=CLIPS)
@given(seed=st.integers(0, 1000), tail=st.floats(1.5, 20))
@settings(max_examples=10)
def test_every_rule_keeps_at_least_a_bin_per_level(rule: object, seed: int, tail: float) -> None:
    assert callable(rule)
    assert LEVELS <= rule(histogram(seed, tail)) <= BINS


@pytest.mark.parametrize("rule", CLIPS.values(), ids=CLIPS)
def test_nothing_counted_clips_nothing(rule: object) -> None:
    assert callable(rule)
    assert rule(np.zeros(BINS, np.int64)) == BINS


@given(seed=st.integers(0, 1000), tail=st.floats(1.5, 20))
@settings(max_examples=25)
def test_percentile_is_the_narrowest_that_holds_its_share(seed: int, tail: float) -> None:
    counts = histogram(seed, tail)
    kept, wanted = percentile_bin(counts), PERCENTILE / 100 * counts.sum()
    assert counts[:kept].sum() >= wanted
    assert kept == LEVELS or counts[: kept - 1].sum() < wanted


@given(seed=st.integers(0, 1000), tail=st.floats(1.5, 20))
@settings(max_examples=10)
def test_mse_is_the_best_of_all_widths_by_brute_force(seed: int, tail: float) -> None:
    # The rule puts POINTS values into a bin, this its middle: a few percent is the difference.
    counts = histogram(seed, tail)
    best = min(squared_error(counts, width) for width in range(LEVELS, BINS + 1, STEP))
    assert squared_error(counts, mse_bin(counts)) <= 1.05 * best


@given(many=st.integers(100, 2000))
def test_mse_clips_one_outlier_as_far_as_it_pays(many: int) -> None:
    # n values rounded to steps of width / 127 cost n * step ** 2 / 12, the outlier at the end
    # (BINS - width) ** 2: least at width = BINS / (1 + n / (12 * 127 ** 2)).
    counts = np.zeros(BINS, np.int64)
    counts[1:200], counts[-1] = many, 1
    best = BINS / (1 + 199 * many / (12 * (LEVELS - 1) ** 2))
    assert abs(mse_bin(counts) - best) <= 0.1 * best + STEP


def test_mse_keeps_a_flat_histogram() -> None:
    assert mse_bin(np.full(BINS, 1000, np.int64)) > 0.95 * BINS
