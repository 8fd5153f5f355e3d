"""The conformal threshold keeps its promise, and refuses what it cannot promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndp_edge.errors import InputError
from ndp_edge.threshold import choose_rate, conformal_threshold, far_out, smallest_rate

scores = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=80)
rates = st.integers(1, 999).map(lambda i: i / 1000)


@given(scores, rates)
def test_leave_one_out_rejects_at_most_the_target(values: list[float], rate: float) -> None:
    # Exchangeability made finite: each of n + 1 scores plays the new image once. The share of
    # those above the threshold from the other n is the promise's probability, exactly.
    if len(values) < 2 or rate < smallest_rate(len(values) - 1):
        return
    rejected = 0
    for i, new in enumerate(values):
        rest = values[:i] + values[i + 1 :]
        rejected += new > conformal_threshold(rest, rate).value
    assert rejected <= rate * len(values) + 1e-9


@given(scores, rates, rates)
def test_a_smaller_rate_never_lowers_the_threshold(
    values: list[float], first: float, second: float
) -> None:
    low, high = sorted((first, second))
    if low < smallest_rate(len(values)):
        return
    assert conformal_threshold(values, low).value >= conformal_threshold(values, high).value


@given(scores)
def test_the_smallest_rate_is_carried_and_gives_the_largest_score(values: list[float]) -> None:
    threshold = conformal_threshold(values, smallest_rate(len(values)))
    assert threshold.value == max(values)
    assert threshold.n == len(values)


@given(st.integers(1, 3000))
@settings(max_examples=300)
def test_rounding_never_moves_the_smallest_rate(n: int) -> None:
    assert choose_rate(1 / (n + 1), n) == 1 / (n + 1)
    with pytest.raises(InputError, match=f"^{n} good images cannot carry"):
        choose_rate(0.999 / (n + 1), n)


def test_ninety_nine_images_carry_one_in_a_hundred_and_ninety_eight_do_not() -> None:
    assert conformal_threshold(np.arange(99.0), 0.01).value == 98.0
    with pytest.raises(InputError, match=r"smallest is 0\.0102 \(--target-false-reject 0\.0102\)"):
        conformal_threshold(np.arange(98.0), 0.01)
    assert conformal_threshold(np.arange(98.0), 0.0102).value == 97.0


def test_the_rank_is_the_ceiling_of_the_formula() -> None:
    for n, rate in [(199, 0.01), (200, 0.01), (50, 0.1), (7, 0.5), (19, 0.05)]:
        k = math.ceil(round((n + 1) * (1 - rate), 9))
        assert conformal_threshold(np.arange(1.0, n + 1), rate).value == k


def test_ties_at_the_threshold_pass() -> None:
    threshold = conformal_threshold([0.25] * 50, 0.05)
    assert threshold.value == 0.25
    assert sum(v > threshold.value for v in [0.25] * 50) == 0


def test_the_default_is_one_in_a_hundred_or_what_the_images_carry() -> None:
    assert choose_rate(None, 100) == 0.01
    assert choose_rate(None, 49) == 0.02


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 7.0, math.nan])
def test_senseless_rates_are_refused(rate: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        conformal_threshold([0.1, 0.2], rate)


def test_no_scores_and_broken_scores_are_refused() -> None:
    with pytest.raises(InputError, match="no good images"):
        conformal_threshold([], 0.1)
    with pytest.raises(InputError, match="not finite"):
        conformal_threshold([0.1] * 20 + [math.nan], 0.1)


def test_the_value_is_exactly_a_float32_score() -> None:
    values = np.random.default_rng(0).random(99, dtype=np.float32)
    threshold = conformal_threshold(values, 0.01)
    assert np.float32(threshold.value) == values.max()
    assert not float(values.max()) > threshold.value


def test_a_picture_unlike_the_rest_is_named_and_ordinary_spread_is_not() -> None:
    ordinary = np.linspace(0.3, 0.5, 150)
    assert far_out(ordinary) == []
    assert far_out([*ordinary, 0.92, 0.95]) == [151, 150]
    assert far_out([0.4]) == []
    assert far_out(np.full(20, 0.4)) == []


@given(scores)
def test_what_is_far_out_does_not_depend_on_the_unit(values: list[float]) -> None:
    """Up to rounding at the fence itself: whole steps keep the arithmetic exact."""
    steps = np.rint(np.array(values) * 64)
    assert far_out(steps) == far_out(4 * steps + 8)
