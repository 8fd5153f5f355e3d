"""The drift alarm: how often it errs, what it finds, and that it says when it knows nothing."""

from __future__ import annotations

import math
from types import SimpleNamespace as Kit
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndp_edge.errors import InputError
from ndp_edge.runtime.baseline import ALARM_RATE, Baseline, Drift, compare, smirnov
from ndp_edge.threshold import conformal_threshold, score_quantiles

LEVEL_FIVE, LEVEL_ONE = 1.3580986, 1.6276236
"""Where Kolmogorov's distribution leaves 5 % and 1 % (Smirnov's table of 1948)."""


def test_the_tail_is_kolmogorovs() -> None:
    assert smirnov(LEVEL_FIVE) == pytest.approx(0.05, abs=1e-6)
    assert smirnov(LEVEL_ONE) == pytest.approx(0.01, abs=1e-6)
    assert smirnov(0) == smirnov(0.19) == 1
    assert smirnov(0.2) == pytest.approx(1, abs=1e-11)
    assert 0 < smirnov(4) < 1e-13


@pytest.mark.parametrize(("n", "window"), [(60, 200), (150, 200), (1000, 200)])
def test_false_alarms_are_as_rare_as_promised(n: int, window: int) -> None:
    """New baselines and new windows from one skew distribution, cut off at the threshold."""
    rng = np.random.default_rng(n)
    chances = []
    for _ in range(1000):
        quiet = rng.beta(2, 9, n)
        threshold = conformal_threshold(quiet, 0.05).value
        scores = rng.beta(2, 9, 2 * window)
        scores = scores[scores <= threshold][:window]
        found = compare(scores, Baseline(np.array(score_quantiles(quiet)), n), threshold)
        assert found is not None
        chances.append(found.probability)
    for rate in (0.05, 0.01):
        share = float(np.mean(np.array(chances) < rate))
        assert share <= rate + 3 * math.sqrt(rate * (1 - rate) / len(chances)), (rate, share)
    assert np.mean(np.array(chances) < 0.2) > 0.02, "a test that never alarms finds nothing"
    assert min(chances) > ALARM_RATE


def drift_of(kit: Kit, scores: Any, *, threshold: float = 0.5, **options: Any) -> Drift:
    told: list[str] = []
    drift = Drift(options.pop("baseline", kit.baseline()), tell=told.append, **options)
    for index, score in enumerate(scores):
        drift.verdict(kit.seen(f"{index}.png", float(score), threshold))
    drift.told = told  # type: ignore[attr-defined]
    return drift


@pytest.mark.parametrize("mean", [0.15, 0.25])
def test_a_shift_by_one_deviation_alarms_once_and_ends(kit: Kit, mean: float) -> None:
    moved, usual = kit.good_scores(400, 1, mean), kit.good_scores(200, 2)
    drift = drift_of(kit, [*kit.good_scores(200, 3), *moved])
    report = drift.report()
    assert (report["windows"], report["alarms"], report["alarm"]) == (3, 2, "shift")
    assert report["median"] == pytest.approx(mean, abs=0.02)
    assert report["expected"] == pytest.approx(0.2, abs=0.02)
    assert len(drift.told) == 1  # type: ignore[attr-defined]
    assert "lamp" in drift.told[0]  # type: ignore[attr-defined]
    for score in usual:
        drift.verdict(kit.seen(score=float(score)))
    assert drift.report()["alarm"] is None
    assert drift.report()["alarms"] == 2


def test_when_everything_is_rejected_it_alarms_too(kit: Kit) -> None:
    """Nothing fills the window then."""
    drift = drift_of(kit, [*kit.good_scores(50), *[0.9] * 9])
    drift.verdict(kit.seen(score=None))
    assert not drift.report()["alarm"]
    for index in range(60):  # one now and then is ok: it is still the same alarm
        drift.verdict(kit.seen(score=0.2 if index % 20 == 19 else 0.9))
    report = drift.report()
    assert (report["alarm"], report["alarms"], report["filled"]) == ("row", 1, 3)
    assert ["10 rejects" in told for told in drift.told] == [True]  # type: ignore[attr-defined]
    for score in kit.good_scores(197, 5):
        drift.verdict(kit.seen(score=float(score)))
    assert (drift.report()["alarm"], drift.report()["windows"]) == (None, 1)


def test_rejects_and_frames_not_judged_do_not_count(kit: Kit) -> None:
    scores = list(kit.good_scores(199))
    drift = drift_of(kit, [score for good in scores for score in (good, 0.9)])
    drift.verdict(kit.seen(score=None))
    assert drift.report()["filled"] == 199
    drift.verdict(kit.seen(score=0.2))
    assert drift.report()["windows"] == 1
    assert not drift.report()["alarm"]


def test_a_threshold_that_is_turned_begins_a_new_window(kit: Kit) -> None:
    """Below a lower threshold good product scores lower: that alone is no drift."""
    scores = kit.good_scores(2000, 4)
    drift = drift_of(kit, scores[:150])
    for score in scores:
        drift.verdict(kit.seen(score=float(score), threshold=0.2))
    report = drift.report()
    assert report["windows"] >= 4
    assert report["alarms"] == 0
    assert report["expected"] < 0.2


def test_of_a_tiled_frame_one_tile_counts_each_time_another(kit: Kit) -> None:
    drift = Drift(kit.baseline(), window=4, tell=lambda _: None)
    tiles = [{"box": [0, 0, 8, 8], "score": s, "verdict": "ok"} for s in (0.1, 0.2, 0.3, 0.4)]
    for index in range(4):
        drift.verdict(kit.seen(f"{index}.png", 0.4, tiles=tiles))
    assert drift.report()["windows"] == 1
    assert drift.report()["median"] == pytest.approx(0.25)


def test_without_a_baseline_there_is_no_alarm_and_it_says_so(kit: Kit) -> None:
    assert Baseline.of({"threshold": {"value": 0.5, "n": 20}}) is None
    report = drift_of(kit, [0.45] * 500, baseline=None).report()
    assert (report["baseline"], report["alarm"], report["windows"]) == (None, None, 0)
    assert report["distance"] is None


def test_a_handful_of_pictures_is_no_baseline(kit: Kit) -> None:
    few = Baseline(np.array(score_quantiles(kit.good_scores(12))), 12)
    assert compare([0.45] * 200, few, 0.5) is None
    assert drift_of(kit, [0.45] * 500, baseline=few).report()["windows"] == 0


@pytest.mark.parametrize(
    "quantiles",
    [[], [0.1], [0.2, 0.1], [0.1, math.nan], [0.1, "0.2"], [1, 2], "0.1", {"0": 0.1}, [True, 1.0]],
)
def test_malformed_quantiles_are_refused(quantiles: Any) -> None:
    with pytest.raises(InputError, match="malformed"):
        Baseline.of({"threshold": {"value": 0.5, "n": 150, "score_quantiles": quantiles}})


@pytest.mark.parametrize("n", [0, -1, None, 1.5, True])
def test_malformed_counts_are_refused(n: Any) -> None:
    with pytest.raises(InputError, match="malformed"):
        Baseline.of({"threshold": {"value": 0.5, "n": n, "score_quantiles": [0.1, 0.2]}})


def test_compare_takes_scores_of_good_frames(kit: Kit) -> None:
    for scores in ([], [0.6], [math.nan]):
        with pytest.raises(InputError, match="judged ok"):
            compare(scores, kit.baseline(), 0.5)


steps = st.lists(st.integers(0, 20), min_size=20, max_size=60)


@settings(max_examples=60)
@given(steps, steps)
def test_the_distance_is_the_largest_gap(quiet: list[int], window: list[int]) -> None:
    """Against looking beside every place where either side may step; ties are everywhere."""
    values, scores = np.sort(np.array(quiet) / 20), np.array(window) / 20
    found = compare(scores, Baseline(values, len(quiet)), 1.0)
    assert found is not None
    levels = np.linspace(0, 1, len(quiet))
    # A step is spread over a width that no place looked at falls into.
    spread = values + 1e-9 * (levels - 0.5)
    places = np.add.outer(np.arange(21) / 20, [-1e-6, 1e-6]).ravel()
    expected = np.interp(places, spread, levels, left=0, right=1)
    reached = (scores[:, np.newaxis] <= places).mean(axis=0)
    assert found.distance == pytest.approx(np.abs(reached - expected).max(), abs=1e-4)
    assert 0 <= found.distance <= 1
    assert 0 <= found.probability <= 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=300))
def test_quantiles_of_a_bundle(scores: list[float]) -> None:
    quantiles = score_quantiles(scores)
    assert len(quantiles) == 101
    assert quantiles == sorted(quantiles)
    assert (quantiles[0], quantiles[-1]) == (min(scores), max(scores))
    base = Baseline(np.array(quantiles), len(scores))
    assert float(base.share(max(scores))) == 1
    assert float(base.share(min(scores), before=True)) == 0
    assert base.rejected(1.0) == 0
