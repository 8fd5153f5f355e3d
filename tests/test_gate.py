"""The gate: what passes, what does not, and what it says."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndp_edge.calib.bootstrap import Interval
from ndp_edge.calib.gate import AREAS, EXCUSABLE, RATES, judge, worse
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


rates = st.floats(0, 1)
spans = st.tuples(st.floats(-0.2, 0.2), st.floats(0, 0.3)).map(lambda t: Interval(t[0], sum(t)))


@given(rates, rates, st.floats(0, 0.2), spans, st.sampled_from(AREAS))
def test_beyond_the_limit_only_chance_excuses_and_only_a_small_loss(
    before: float, after: float, limit: float, span: Interval, key: str
) -> None:
    one, other = {key: before}, {key: after}
    lost = before - after
    if min(abs(lost - limit), abs(lost - EXCUSABLE), abs(span.low)) < 1e-6:
        return
    verdict = judge(one, other, limit, intervals={key: span})
    excused = span.low < 0 and lost < EXCUSABLE
    assert verdict.passed == (lost < limit or excused)
    assert ("cannot tell from chance" in verdict.reason) == (lost > limit and excused)
    row = next(row for row in verdict.rows if row["metric"] == key)
    assert (row["low"], row["high"], row["worse"]) == (span.low, span.high, lost)
    if abs(span.high - limit) > 1e-6:
        assert row["shown"] == (span.high < limit)
        assert verdict.passed is False or ("may be worse by up to" in verdict.reason) == (
            not row["shown"]
        )


@given(
    st.dictionaries(st.sampled_from((*AREAS, *RATES)), st.tuples(rates, rates), min_size=1),
    st.floats(0, 0.2),
    st.integers(1, 200),
)
def test_what_gets_better_never_fails_what_passed(
    both: dict[str, tuple[float, float]], limit: float, count: int
) -> None:
    """And every metric that fell short is named, none that did not."""
    one = {key: pair[0] for key, pair in both.items()}
    other = {key: pair[1] for key, pair in both.items()}
    verdict = judge(one, other, limit, n_good=count, n_defective=count)
    assert verdict.passed == all(row["passed"] is not False for row in verdict.rows)
    if not verdict.passed:
        for row in verdict.rows:
            assert (row["metric"] in verdict.reason) == (row["passed"] is False)
    for key in both:
        best = 1.0 if key in AREAS else 0.0
        better = judge(one, other | {key: best}, limit, n_good=count, n_defective=count)
        assert better.passed or not verdict.passed


@given(rates, rates)
def test_worse_is_a_drop_of_an_area_and_a_rise_of_a_rate(before: float, after: float) -> None:
    told = worse(dict.fromkeys((*AREAS, *RATES), before), dict.fromkeys((*AREAS, *RATES), after))
    assert all(told[key] == pytest.approx(before - after) for key in AREAS)
    assert all(told[key] == pytest.approx(after - before) for key in RATES)
    assert worse({"aupro": before}, {"aupro": None}) == {}
    assert worse({"aupro": math.nan}, {"aupro": after}) == {}


def test_the_verdict_speaks_of_the_precision_that_was_judged() -> None:
    verdict = judge(FULL, FULL | {"aupro": 0.5}, 0.01, name="fp16")
    assert verdict.reason.startswith("aupro drops by 0.4000")
    assert {row["fp16"] for row in verdict.rows if row["metric"] == "aupro"} == {0.5}
    assert "FP16 is within its limits" in judge(FULL, FULL, 0.01, name="fp16").reason
