"""How many calibration pictures chance rejects: against counting and drawing."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndp_edge.calib.pictures import FALSE_ALARM, chance, most_by_chance


def counted(x: int, n: int, m: int, k: int) -> float:
    """All ways to lay m threshold scores among n + m places, one by one."""
    ways = list(combinations(range(n + m), m))
    return sum(n + m - 1 - way[k - 1] - (m - k) >= x for way in ways) / len(ways)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 4), (5, 2), (4, 6)])
def test_the_law_is_what_counting_every_order_gives(n: int, m: int) -> None:
    for k in range(1, m + 1):
        for x in range(n + 2):
            assert chance(x, n, m, k) == pytest.approx(counted(x, n, m, k), abs=1e-12)


def test_good_pictures_are_called_wrong_as_seldom_as_promised() -> None:
    rng = np.random.default_rng(0)
    n, m, k, level, draws = 24, 100, 100, 0.05, 4000
    most = most_by_chance(n, m, k, level)
    scores = rng.standard_normal((draws, n + m))
    above = (scores[:, :n] > np.sort(scores[:, n:])[:, k - 1 : k]).sum(1)
    false = float((above > most).mean())
    # Three standard errors of 4000 draws.
    assert false <= level + 3 * (level * (1 - level) / draws) ** 0.5
    assert float((above > most - 1).mean()) >= level * 0.8


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 80), m=st.integers(1, 200), data=st.data())
def test_bounds(n: int, m: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, m))
    values = [chance(x, n, m, k) for x in range(n + 2)]
    assert values[0] == pytest.approx(1)
    assert values[-1] == 0
    assert all(a >= b for a, b in pairwise(values))
    most = most_by_chance(n, m, k)
    assert 0 <= most <= n
    assert values[most] >= FALSE_ALARM
    assert values[most + 1] < FALSE_ALARM
