"""The trial that counts the gate's errors: its plan, its plants, its arithmetic."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndp_edge.bench import gate_trial
from ndp_edge.errors import MachineError

IMAGES = np.zeros((1, 64, 64, 3), np.uint8)


@given(st.integers(1, 60), st.integers(0, 60))
def test_the_plan_has_all_runs_spread_evenly(repeats: int, planted: int) -> None:
    plan = gate_trial.order(repeats, planted)
    assert (plan.count(False), plan.count(True)) == (repeats, planted)
    half = len(plan) // 2
    assert abs(2 * sum(plan[:half]) - planted) <= 2


def slow_engine(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    end = time.perf_counter() + 0.02
    while time.perf_counter() < end:
        pass
    return images[..., 0].astype(np.float32)


def test_a_planted_wait_takes_its_share_and_changes_no_answer() -> None:
    call = gate_trial.waiting(slow_engine, 0.5)
    began = time.perf_counter()
    maps = call(IMAGES)
    assert time.perf_counter() - began >= 0.03
    np.testing.assert_array_equal(maps, slow_engine(IMAGES))


def test_planted_work_is_counted_in_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine takes 40 units of time, so a quarter is 10 of them."""
    done: list[str] = []
    clock = [0.0]

    def unit() -> None:
        done.append("unit")
        clock[0] += 1

    def engine(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        done.append("engine")
        clock[0] += 40
        return images[..., 0].astype(np.float32)

    monkeypatch.setattr(gate_trial, "small_work", lambda: unit)
    monkeypatch.setattr(gate_trial.time, "perf_counter", lambda: clock[0])
    call = gate_trial.working(engine, 0.25)
    call(IMAGES)
    done.clear()
    call(IMAGES)
    assert done == ["engine"] + ["unit"] * 10


def test_counts() -> None:
    runs = [
        {"planted": False, "alarm": False},
        {"planted": False, "alarm": True},
        {"planted": True, "alarm": True},
    ]
    assert gate_trial.counts(runs) == {
        "unchanged": 2,
        "false_alarms": 1,
        "planted": 1,
        "found": 1,
    }


def test_a_run_that_breaks_ends_the_trial(tmp_path: Path) -> None:
    """Not counted as a pass: there is no such bundle, so the command ends with 2."""
    args = gate_trial.parser().parse_args([str(tmp_path / "absent")])
    with pytest.raises(MachineError, match="exit code 2"):
        gate_trial.one_run(args, 0.0, tmp_path / "out.json", None)


def test_wrong_counts_are_refused(capsys: pytest.CaptureFixture[Any]) -> None:
    assert gate_trial.main(["bundle", "--repeats", "0"]) == 2
    assert "--repeats" in capsys.readouterr().err
