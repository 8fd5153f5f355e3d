"""The gate's judgement, on simulated timings: who is called slower, and what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndp_edge.bench import baseline, regression
from ndp_edge.bench.result import KIND
from ndp_edge.errors import InputError

KEY = {"device": "a", "engine": "openvino-int8", "batch": 1, "versions": {"openvino": "1"}}
METRICS = {
    "image_auroc": 0.98,
    "pixel_auroc": 0.97,
    "aupro": 0.95,
    "false_reject_rate": 0.02,
    "miss_rate": 0.05,
}


def a_run(
    seed: int,
    *,
    work: float = 1.0,
    wait: float = 1.0,
    noise: float = 0.05,
    waited: float = 0.0,
    compares: str = "ratio",
) -> dict[str, Any]:
    """Ten rounds of one row: `work` more computing, `wait` more time that takes no processor."""
    rng = np.random.default_rng(seed)
    reference = 20 * rng.lognormal(0, 0.3, 10)
    ratio = work * wait * rng.lognormal(0, noise, 10)
    cpu = work * rng.lognormal(0, noise / 2, 10)
    rounds = [
        {"ms": r * q, "reference_ms": r, "ratio": q, "cpu_ratio": c, "waited": waited}
        for r, q, c in zip(reference, ratio, cpu, strict=True)
    ]
    row = {
        "label": "openvino-int8",
        "key": KEY,
        "latency_ms": {"p50": float(np.median(reference * ratio))},
        "compares": compares,
        "rounds": rounds,
    }
    return {"kind": KIND, "rows": [row], "accuracy": None}


def verdict(before: dict[str, Any], now: dict[str, Any], max_regress: float = 0.1) -> str:
    found = regression.compare(before, now, max_regress=max_regress, max_drop=0.005)
    (speed,) = found.speed
    assert found.passed == (speed.verdict != regression.REGRESSED)
    assert bool(found.reason()) == (not found.passed)
    return speed.verdict


def test_no_false_alarm_and_none_missed_in_simulated_runs() -> None:
    clean = [verdict(a_run(2 * i), a_run(2 * i + 1)) for i in range(100)]
    assert regression.REGRESSED not in clean
    slowed = [verdict(a_run(2 * i), a_run(2 * i + 1, work=1.25)) for i in range(50)]
    assert slowed.count(regression.REGRESSED) >= 49


def test_the_machines_own_speed_is_divided_out() -> None:
    now = a_run(1)
    for one in now["rows"][0]["rounds"]:
        one["ms"] *= 3
        one["reference_ms"] *= 3
    assert verdict(a_run(0), now) != regression.REGRESSED


def test_what_only_waits_is_found_on_a_quiet_device() -> None:
    assert verdict(a_run(0), a_run(1, wait=1.25)) == regression.REGRESSED


def test_what_only_waits_is_not_told_from_neighbours_on_a_busy_one() -> None:
    """Here the clock is off by a fifth for nothing: no alarm, and the verdict says why."""
    found = verdict(a_run(0, waited=0.7), a_run(1, wait=1.2, waited=0.7))
    assert found == regression.BY_WORK


def test_added_work_is_found_on_a_busy_device() -> None:
    before, now = a_run(0, waited=0.7, noise=0.15), a_run(1, work=1.25, waited=0.7, noise=0.15)
    assert verdict(before, now) == regression.REGRESSED


def test_processor_time_that_costs_no_time_is_no_regression() -> None:
    """More threads that spin: the clock contradicts."""
    assert verdict(a_run(0), a_run(1, work=1.3, wait=1 / 1.3)) == regression.PASSED


def test_a_card_is_compared_by_the_clock_alone() -> None:
    before, now = a_run(0, compares="ms"), a_run(0, compares="ms")
    for one in now["rows"][0]["rounds"]:
        one["ms"] *= 1.5
    (speed,) = regression.compare(before, now, max_regress=0.1, max_drop=0).speed
    assert speed.cpu_factor is None
    assert speed.allowance == 1
    assert speed.factor.point == pytest.approx(1.5)


def second_look(work: float, then: float) -> regression.Comparison:
    """An alarm at `work` more computing, and ten later rounds at `then` more."""
    before, now = a_run(0), a_run(1, work=work)
    first = regression.compare(before, now, max_regress=0.1, max_drop=0.005)
    assert first.slower
    now["rows"][0]["rounds"] += a_run(2, work=then)["rows"][0]["rounds"]
    return regression.confirm(before, now, first, 10, max_regress=0.1)


def test_a_mood_of_the_machine_is_no_regression() -> None:
    found = second_look(1.25, 1.0)
    (speed,) = found.speed
    assert speed.verdict == regression.ONCE
    assert found.passed
    assert speed.factor.point < 1.2


@given(st.floats(1.2, 3), st.floats(1.2, 3))
def test_what_stays_slower_stays_a_regression(work: float, then: float) -> None:
    found = second_look(work, then)
    assert not found.passed
    assert "openvino-int8" in found.reason()


@given(st.integers(0, 1000), st.floats(0, 1))
def test_a_larger_allowance_never_raises_an_alarm(seed: int, more: float) -> None:
    before, now = a_run(seed), a_run(seed + 1, work=1.2, noise=0.1)
    if verdict(before, now, 0.1) != regression.REGRESSED:
        assert verdict(before, now, 0.1 + more) != regression.REGRESSED


@given(st.integers(0, 1000))
def test_a_run_never_regresses_against_itself(seed: int) -> None:
    run = a_run(seed, noise=0.3)
    assert verdict(run, run) != regression.REGRESSED


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("device", "b"),
        ("engine", "openvino-fp32"),
        ("batch", 8),
        ("versions", {"openvino": "2"}),
        ("new", 1),
    ],
)
def test_another_key_is_refused_in_one_line(name: str, value: Any) -> None:
    now = a_run(1)
    now["rows"][0]["key"] = {**KEY, name: value}
    with pytest.raises(InputError, match=name) as caught:
        verdict(a_run(0), now)
    assert "\n" not in str(caught.value)
    assert "--json" in str(caught.value)


def test_nothing_in_common_is_refused() -> None:
    now = a_run(1)
    now["rows"][0]["label"] = "torch-fp32"
    with pytest.raises(InputError, match="nothing to compare"):
        verdict(a_run(0), now)


def test_a_row_of_one_run_only_is_named() -> None:
    before = a_run(0)
    before["rows"].append({**copy.deepcopy(before["rows"][0]), "label": "torch-fp32"})
    found = regression.compare(before, a_run(1), max_regress=0.1, max_drop=0)
    assert any("torch-fp32" in note for note in found.notes)


def with_accuracy(run: dict[str, Any], pictures: str = "p", **changes: float) -> dict[str, Any]:
    metrics = {"int8": {**METRICS, **changes}}
    told = {"pictures": pictures, "good": 50, "defective": 40, "metrics": metrics}
    return {**run, "accuracy": told}


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({}, True),
        ({"aupro": 0.946}, True),
        ({"aupro": 0.944}, False),
        ({"image_auroc": 0.99}, True),
        ({"false_reject_rate": 0.04}, True),  # one picture of 50
        ({"false_reject_rate": 0.06}, False),
        ({"miss_rate": 0.10}, False),
    ],
)
def test_accuracy_follows_the_gates_rules(changes: dict[str, float], passed: bool) -> None:
    before, now = with_accuracy(a_run(0)), with_accuracy(a_run(1), **changes)
    found = regression.compare(before, now, max_regress=0.1, max_drop=0.005)
    assert found.passed is passed
    assert len(found.accuracy) == len(METRICS)
    if not passed:
        assert next(iter(changes)) in found.reason()


def test_accuracy_on_other_pictures_is_refused() -> None:
    before, now = with_accuracy(a_run(0)), with_accuracy(a_run(1), pictures="q")
    with pytest.raises(InputError, match="other pictures"):
        regression.compare(before, now, max_regress=0.1, max_drop=0.005)


def test_what_is_no_saved_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    with pytest.raises(InputError, match="no baseline"):
        baseline.read_baseline(path)
    damaged = a_run(0)
    damaged["rows"][0]["rounds"][3]["ratio"] = 0
    texts = ("", "[]", "{}", '{"kind": "other"}', json.dumps({"kind": KIND}), json.dumps(damaged))
    for text in texts:
        path.write_text(text)
        with pytest.raises(InputError, match=r"base\.json"):
            baseline.read_baseline(path)
    path.write_text(json.dumps(a_run(0)))
    assert baseline.read_baseline(path)["rows"]
