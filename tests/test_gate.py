"""The gate: what passes, what does not, and what it says."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndp_edge.calib.gate import judge
from ndp_edge.errors import InputError

FULL: dict[str, Any] = {
    "image_auroc": 0.97,
    "pixel_auroc": 0.95,
    "aupro": 0.90,
    "false_reject_rate": 0.02,
    "miss_rate": 0.10,
    "threshold": 0.5,
}


def test_equal_metrics_pass() -> None:
    verdict = judge(FULL, FULL, 0.0)
    assert verdict.passed
    assert [row["passed"] for row in verdict.rows] == [True] * 5


@pytest.mark.parametrize("key", ["image_auroc", "pixel_auroc", "aupro"])
def test_a_drop_at_the_limit_passes_and_one_above_it_fails(key: str) -> None:
    assert judge(FULL, FULL | {key: FULL[key] - 0.005}, 0.005).passed
    verdict = judge(FULL, FULL | {key: FULL[key] - 0.0051}, 0.005)
    assert not verdict.passed
    assert key in verdict.reason
    assert [row["metric"] for row in verdict.rows if not row["passed"]] == [key]


@pytest.mark.parametrize("key", ["false_reject_rate", "miss_rate"])
def test_a_rate_may_rise_by_one_image_but_not_by_two(key: str) -> None:
    counts = {"n_good": 50, "n_defective": 50}
    assert judge(FULL, FULL | {key: FULL[key] + 1 / 50}, 0.005, **counts).passed
    assert not judge(FULL, FULL | {key: FULL[key] + 2 / 50}, 0.005, **counts).passed


def test_with_many_images_the_drop_is_the_limit_of_the_rates() -> None:
    counts = {"n_good": 1000, "n_defective": 1000}
    assert judge(FULL, FULL | {"miss_rate": 0.105}, 0.005, **counts).passed
    assert not judge(FULL, FULL | {"miss_rate": 0.106}, 0.005, **counts).passed


def test_improvements_pass_even_with_no_drop_allowed() -> None:
    better = {"image_auroc": 1.0, "pixel_auroc": 1.0, "aupro": 1.0}
    assert judge(FULL, FULL | better | {"false_reject_rate": 0.0, "miss_rate": 0.0}, 0.0).passed


def test_without_defects_only_what_exists_is_judged_and_that_is_said() -> None:
    good_only = dict.fromkeys(FULL, None) | {"false_reject_rate": 0.0}
    verdict = judge(good_only, good_only, 0.005, n_good=40)
    assert verdict.passed
    assert "aupro" in verdict.reason
    assert "not judged" in verdict.reason
    assert not judge(good_only, good_only | {"false_reject_rate": 0.1}, 0.005, n_good=40).passed


@pytest.mark.parametrize("bad", [math.nan, math.inf, None])
@pytest.mark.parametrize("key", ["image_auroc", "miss_rate"])
def test_a_number_that_int8_lost_fails(key: str, bad: float | None) -> None:
    verdict = judge(FULL, FULL | {key: bad}, 0.5)
    assert not verdict.passed
    assert key in verdict.reason


def test_nan_in_fp32_fails_too() -> None:
    assert not judge(FULL | {"aupro": math.nan}, FULL, 0.5).passed


@pytest.mark.parametrize("drop", [-0.1, math.nan, math.inf])
def test_a_senseless_limit_is_refused(drop: float) -> None:
    with pytest.raises(InputError, match="max drop"):
        judge(FULL, FULL, drop)


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to compare"):
        judge({}, {}, 0.005)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.2))
def test_the_verdict_is_the_inequality(before: float, after: float, limit: float) -> None:
    verdict = judge(FULL | {"aupro": before}, FULL | {"aupro": after}, limit)
    if abs(before - after - limit) > 1e-6:
        assert verdict.passed == (before - after < limit)
