"""What verify.sh makes of measured numbers and of compute-sanitizer's words: made-up ones here."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_edge.bench.gpu import judge, sanitize, targets, verify
from ndp_edge.bench.gpu.rig import WrongError
from ndp_edge.bench.gpu.words import NOT_MEASURED, number, over

CLEAN = f"========= COMPUTE-SANITIZER\n{sanitize.DONE}\n========= ERROR SUMMARY: 0 errors\n"
RACES = (
    f"========= COMPUTE-SANITIZER\n{sanitize.DONE}\n"
    "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n"
)


@pytest.mark.parametrize(
    ("tool", "code", "output", "status"),
    [
        ("memcheck", 0, CLEAN, "clean"),
        ("racecheck", 0, RACES, "clean"),
        ("memcheck", 0, CLEAN.replace("0 errors", "2 errors"), "errors"),
        ("memcheck", 1, CLEAN.replace("0 errors", "1 error"), "errors"),
        ("racecheck", 0, RACES.replace("0 hazards", "1 hazard"), "errors"),
        ("memcheck", None, CLEAN.replace("0 errors", "2 errors"), "errors"),
        # None of these is clean, whatever they count.
        ("memcheck", 1, CLEAN, NOT_MEASURED),
        ("memcheck", None, CLEAN, NOT_MEASURED),
        ("memcheck", 0, CLEAN.replace(sanitize.DONE, ""), NOT_MEASURED),
        ("memcheck", 0, sanitize.DONE, NOT_MEASURED),
        ("racecheck", 0, CLEAN, NOT_MEASURED),
        ("memcheck", 0, f"{CLEAN}========= Error: Device not supported\n", NOT_MEASURED),
        ("memcheck", 0, "", NOT_MEASURED),
    ],
)
def test_only_a_clean_run_is_clean(tool: str, code: int | None, output: str, status: str) -> None:
    said = sanitize.verdict(tool, code, output)
    assert said.status == status
    assert bool(said.why) == (status != "clean")


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compute-sanitizer that only does what FAKE says."""
    path = tmp_path / "compute-sanitizer"
    path.write_text('#!/bin/sh\neval "$FAKE"\n')
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return path


def test_the_tool_is_run_and_read(tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sanitize.find_sanitizer() == str(tool)
    monkeypatch.setenv("FAKE", 'echo "Device not supported: $*" >&2')
    said = sanitize.check("racecheck", 20)
    assert said.status == NOT_MEASURED
    assert "Device not supported: --tool racecheck" in said.why
    monkeypatch.setenv("SAID", CLEAN)
    monkeypatch.setenv("FAKE", 'echo "$SAID"; [ $PYTORCH_NO_CUDA_MEMORY_CACHING = 1 ]')
    assert sanitize.check("memcheck", 20).status == "clean"
    monkeypatch.setenv("FAKE", "sleep 60 & sleep 60")
    began = time.monotonic()
    assert sanitize.check("memcheck", 0.5).why == "it did not end in time"
    assert time.monotonic() - began < 30


def test_a_step_that_hangs_is_ended_with_its_children() -> None:
    code = "import subprocess; subprocess.run(['sleep', '60'])"
    began = time.monotonic()
    assert verify.run_limited([sys.executable, "-c", code], 0.5) is None
    assert time.monotonic() - began < 30
    assert verify.run_limited([sys.executable, "-c", "raise SystemExit(7)"], 30) == 7


def row(name: str, side: int, batch: int = 1, **measured: Any) -> dict[str, Any]:
    """A timed row."""
    return {"name": name, "channels": 8, "side": side, "batch": batch, "measured": measured}


def report(**changes: Any) -> dict[str, Any]:
    """One that meets every target."""
    levels = [
        row("rbfrm", side, times_faster_than_graph=3.0, times_the_floor=4.0 if side == 64 else 9.0)
        for side in (64, 32, 16)
    ]
    selects = [
        row("ffm_select", 16, share_of_copy_bandwidth=0.1),
        row("ffm_select", 64, share_of_copy_bandwidth=0.7),
        row("ffm_select", 64, batch=8, share_of_copy_bandwidth=0.2),
    ]
    made = {
        "dry_run": False,
        "checks_ended": True,
        "timing_ended": True,
        "checks": [{"name": "a", "passed": True}],
        "timings": [{"name": "rates", "measured": {}}, *levels, *selects],
        "sanitizer": {tool: {"status": "clean", "why": ""} for tool in sanitize.TOOLS},
    } | changes
    return made | {"targets": targets.judge(made)}


def test_targets_met_are_exit_0() -> None:
    assert [one["met"] for one in report()["targets"]] == [True] * 5
    assert verify.exit_code(report()) == 0


def changed(name: str, side: int, **measured: Any) -> list[dict[str, Any]]:
    """The timings with one row's numbers changed."""
    rows: list[dict[str, Any]] = report()["timings"]
    for one in rows:
        if (one["name"], one.get("side"), one.get("batch")) == (name, side, 1):
            one["measured"] |= measured
    return rows


@pytest.mark.parametrize(
    ("changes", "which", "met"),
    [
        ({"timings": changed("rbfrm", 16, times_faster_than_graph=2.99)}, 0, False),
        ({"timings": changed("rbfrm", 16, times_faster_than_graph=NOT_MEASURED)}, 0, None),
        ({"timings": report()["timings"][:3]}, 0, None),
        ({"timings": []}, 1, None),
        ({"timings": changed("rbfrm", 64, times_the_floor=4.01)}, 1, False),
        ({"timings": changed("ffm_select", 64, share_of_copy_bandwidth=0.69)}, 2, False),
        ({"sanitizer": {"memcheck": {"status": "errors", "why": "x"}}}, 3, False),
        ({"sanitizer": {"memcheck": {"status": NOT_MEASURED, "why": "x"}}}, 3, None),
    ],
)
def test_a_target_missed_or_not_measured_is_exit_1(
    changes: dict[str, Any], which: int, met: bool | None
) -> None:
    found = report(**changes)
    assert found["targets"][which]["met"] is met
    assert verify.exit_code(found) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"checks": [{"name": "a", "passed": True}, {"name": "b", "passed": False}]},
        {"checks": []},
        {"checks": [{"name": "a", "passed": None}]},
        {"checks_ended": False},
    ],
)
def test_checks_that_failed_or_did_not_run_are_exit_1(changes: dict[str, Any]) -> None:
    assert verify.exit_code(report(**changes)) == 1
    assert verify.exit_code(report(dry_run=True, **changes)) == 1


def test_a_dry_run_that_could_not_go_through_the_timing_is_exit_1() -> None:
    assert verify.exit_code(report(dry_run=True, timings=[])) == 0
    assert verify.exit_code(report(dry_run=True, timing_ended=False)) == 1
    broken = [{"name": "rates", "measured": {}, "failures": ["copy: it broke"]}]
    assert verify.exit_code(report(dry_run=True, timings=broken)) == 1


def test_compiled_times_join_their_rows() -> None:
    rows = [
        row("rbfrm", 64, compiled_us=NOT_MEASURED),
        row("rbfrm", 32, compiled_us=NOT_MEASURED),
        row("compiled rbfrm", 32, compiled_us=5.0),
        row("compiled rbfrm", 64, compiled_us=NOT_MEASURED) | {"failures": ["no Triton"]},
    ]
    first, second = verify.merged(rows)
    assert (first["measured"], first["failures"]) == ({"compiled_us": NOT_MEASURED}, ["no Triton"])
    assert second["measured"] == {"compiled_us": 5.0}


def test_the_rule_of_twice_the_plain_error() -> None:
    exact = np.linspace(1, 2, 100)
    plain = (exact + 1e-3).astype(np.float32)
    for error, passes in ((1.9e-3, True), (2.1e-3, False)):
        got = (exact - error).astype(np.float32)
        if passes:
            figures = judge.compare("x", got, plain, exact, strict=True)
            assert figures["x_rms_over_plain"] == pytest.approx(1.9, rel=1e-3)
        else:
            with pytest.raises(WrongError, match="x: largest error"):
                judge.compare("x", got, plain, exact, strict=True)
    for bad in (np.nan, np.inf):
        broken = plain.copy()
        broken[3] = bad
        with pytest.raises(WrongError, match="1 of 100 elements"):
            judge.compare("x", broken, plain, exact)
        with pytest.raises(WrongError, match="1 of 100 elements"):
            judge.within("x", broken, exact, 1.0)
    with pytest.raises(WrongError, match="shape"):
        judge.compare("x", plain[:-1], plain, exact)


def test_numbers_and_their_absence() -> None:
    assert (number(12.3456), number(None), number(2e3, 1e-3)) == (12.35, NOT_MEASURED, 2.0)
    assert (over(3.0, 2.0), over(None, 2.0), over(3.0, None)) == (1.5, NOT_MEASURED, NOT_MEASURED)
