"""Intervals of times: they hold what they should, as often as they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndp_edge.bench.figures import change, spread, trimmed_mean
from ndp_edge.metrics import latency

ROUNDS = st.lists(st.floats(0.1, 100), min_size=1, max_size=20)


def test_percentiles_are_numpys() -> None:
    ms = [float(v) for v in range(1, 101)]
    found = latency(ms)
    assert found == {"p50": 50.5, "p95": 95.05, "p99": 99.01, "mean": 50.5, "n": 100}


def test_the_trimmed_mean_forgets_the_ends() -> None:
    values = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1000.0])
    assert float(trimmed_mean(values)) == 1.0
    assert float(trimmed_mean(np.array([1.0, 3.0]))) == 2.0


@given(ROUNDS)
def test_a_figure_lies_in_its_interval(rounds: list[float]) -> None:
    found = spread(rounds)
    assert 0 < found.low <= found.point <= found.high < np.inf
    assert min(rounds) * 0.999 <= found.point <= max(rounds) * 1.001


@given(ROUNDS, ROUNDS, st.floats(0.1, 10))
def test_a_factor_follows_its_unit(before: list[float], now: list[float], unit: float) -> None:
    """Twice the baseline is half the factor, bounds and all."""
    found = change(before, now)
    scaled = change([unit * v for v in before], now)
    assert 0 < found.low <= found.point <= found.high < np.inf
    for key in ("point", "low", "high"):
        assert getattr(scaled, key) * unit == pytest.approx(getattr(found, key), rel=1e-6)


def test_a_run_is_as_fast_as_itself() -> None:
    rounds = [1.0, 1.1, 0.9, 1.05, 0.95]
    assert change(rounds, rounds).point == pytest.approx(1)
    assert change([1.0], [1.25]).point == pytest.approx(1.25)


def test_one_sided_bounds_keep_their_promise() -> None:
    """Simulated runs of ten rounds whose true factor is 1: each 95 % bound errs in about 5 %."""
    rng = np.random.default_rng(0)
    trials = 400
    runs = rng.lognormal(0, 0.1, (trials, 2, 10))
    found = [change(list(a), list(b)) for a, b in runs]
    above = sum(one.low > 1 for one in found) / trials
    below = sum(one.high < 1 for one in found) / trials
    assert 0.02 <= above <= 0.09
    assert 0.02 <= below <= 0.09
