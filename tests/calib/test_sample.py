"""Which pictures calibrate: far apart, whatever their names, order and number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndp_edge.calib.sample import QUANTILES, farthest_points, statistics
from ndp_edge.errors import InputError


def cloud(seed: int, count: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(count, 8)) * [1, 10, 0.1, 1, 1, 1, 1, 100]


def spread(points: NDArray[np.float64], chosen: list[int]) -> float:
    """Farthest that any point lies from the nearest chosen one; what the choice makes small."""
    away = np.linalg.norm(points[:, None] - points[chosen][None], axis=2)
    return float(away.min(axis=1).max())


@given(seed=st.integers(0, 10_000), count=st.integers(1, 40), wanted=st.integers(1, 50))
def test_none_is_taken_twice_and_a_longer_choice_begins_with_the_shorter(
    seed: int, count: int, wanted: int
) -> None:
    features = cloud(seed, count)
    chosen = farthest_points(features, wanted)
    assert len(set(chosen)) == len(chosen) == min(wanted, count)
    assert set(chosen) <= set(range(count))
    assert farthest_points(features, wanted + 3)[: len(chosen)] == chosen


@given(seed=st.integers(0, 10_000), count=st.integers(3, 40))
def test_units_and_a_constant_column_change_nothing(seed: int, count: int) -> None:
    features = cloud(seed, count)
    other = np.hstack([features * 1000.0 + 3.0, np.full((count, 1), 7.3)])
    assert farthest_points(features, 5) == farthest_points(other, 5)


@given(seed=st.integers(0, 10_000))
def test_the_order_of_the_pictures_does_not_matter(seed: int) -> None:
    features = cloud(seed, 20)
    order = np.random.default_rng(seed + 1).permutation(20)
    chosen = farthest_points(features, 6)
    again = [int(order[i]) for i in farthest_points(features[order], 6)]
    assert again == chosen


@given(seed=st.integers(0, 10_000))
def test_it_covers_within_twice_the_best_cover(seed: int) -> None:
    # Gonzalez: the greedy choice's radius is at most twice that of any other choice as large.
    features = cloud(seed, 24)
    points = (features - features.mean(axis=0)) / features.std(axis=0)
    mine = spread(points, farthest_points(features, 4))
    rng = np.random.default_rng(seed)
    others = [spread(points, list(rng.choice(24, 4, replace=False))) for _ in range(50)]
    assert mine <= 2 * min(others)


def test_the_extremes_of_a_surface_are_among_the_first() -> None:
    rng = np.random.default_rng(0)
    usual = rng.normal(120, 10, (40, 32, 32, 3))
    dark, bright = np.full((32, 32, 3), 20.0), np.full((32, 32, 3), 230.0)
    coarse = np.kron(rng.integers(0, 2, (4, 4, 1)) * 200.0, np.ones((8, 8, 3))) + 20
    images = np.concatenate([usual, [dark, bright, coarse]]).clip(0, 255).astype(np.uint8)
    assert set(farthest_points(statistics(images), 4)) >= {40, 41, 42}


def test_statistics_are_what_they_say() -> None:
    stripes = np.zeros((4, 4, 3), np.uint8)
    stripes[:, ::2] = 100
    (found,) = statistics([stripes])
    assert found[:3] == pytest.approx([50, 50, 100])
    assert found[3:] == pytest.approx([0, 0, 50, 100, 100])
    assert statistics([]).shape == (0, 3 + len(QUANTILES))


def test_nothing_to_choose_from_is_refused() -> None:
    with pytest.raises(InputError, match="at least 1"):
        farthest_points(cloud(0, 3), 0)
    for features in (np.zeros((0, 8)), np.full((3, 8), np.nan), np.zeros(3)):
        with pytest.raises(InputError, match="empty or not finite"):
            farthest_points(features, 1)
