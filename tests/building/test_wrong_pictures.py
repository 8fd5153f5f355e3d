"""Calibration on what is not good product: noise, defects, black pictures."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_edge import build_calibrate
from ndp_edge.build_pictures import judge_pictures
from ndp_edge.bundle import Bundle
from ndp_edge.data.folder import load_images, open_dataset
from ndp_edge.threshold import conformal_threshold


def wrong_pictures(kind: str, surface: Path, count: int) -> NDArray[np.uint8]:
    if kind == "noise":
        return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)
    if kind == "black":
        return np.zeros((count, 64, 64, 3), np.uint8)
    bad = [sample for sample in open_dataset(surface).test if sample.label]
    return load_images(bad[:count], 64)


@pytest.fixture
def calibrate_on(monkeypatch: pytest.MonkeyPatch, surface: Path) -> Any:
    """The first pictures that calibration loads become others; the names stay."""
    honest = build_calibrate.load_images

    def plant(kind: str) -> None:
        turns = [kind]

        def load(samples: Any, size: int) -> NDArray[np.uint8]:
            if turns:
                return wrong_pictures(turns.pop(), surface, len(samples))
            return honest(samples, size)

        monkeypatch.setattr(build_calibrate, "load_images", load)

    return plant


@pytest.mark.parametrize("kind", ["noise", "defects"])
def test_pictures_that_fp32_rejects_fail_the_gate_by_name(
    kit: SimpleNamespace, trained: Path, surface: Path, tmp_path: Path, calibrate_on: Any,
    kind: str, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Though the figures stay within their limits: this net bears such ranges."""
    calibrate_on(kind)
    assert kit.run(trained, surface, tmp_path / "b", "--int8") == 1
    told = kit.errors(capsys)
    assert len(told) == 1
    report = json.loads((tmp_path / "b.failed" / "report.json").read_text())
    gate = report["gate"]
    assert [p.name for p in tmp_path.iterdir()] == ["b.failed"]
    assert gate["passed"] is False
    assert gate["calibration"]["passed"] is False
    rejected = gate["calibration"]["rejected"]
    assert len(rejected) > gate["calibration"]["limit"]
    assert set(rejected) <= set(report["calibration_files"])
    assert f"train/good/{Path(rejected[0]).name}" in told[0]
    assert "not the good product that the threshold rests on" in told[0]
    assert report["fallback"] == {}  # no layer is at fault, and none is sought
    page = (tmp_path / "b.failed" / "report.html").read_text()
    assert "chance alone rejects more than" in page


def test_auto_falls_back_to_fp32_then(
    kit: SimpleNamespace, trained: Path, surface: Path, tmp_path: Path, calibrate_on: Any
) -> None:
    calibrate_on("noise")
    assert kit.run(trained, surface, tmp_path / "b", "--auto") == 0
    assert Bundle.open(tmp_path / "b").default[1] == "fp32"


@pytest.mark.usefixtures("few_layers")
def test_black_pictures_ship_only_where_the_gate_sees_no_harm(
    kit: SimpleNamespace, trained: Path, surface: Path, tmp_path: Path, calibrate_on: Any
) -> None:
    """They make ranges too narrow, and FP32 may well find nothing on them."""
    calibrate_on("black")
    code = kit.run(trained, surface, tmp_path / "b", "--int8", "--max-drop", "0.02")
    report = json.loads((tmp_path / ("b" if code == 0 else "b.failed") / "report.json").read_text())
    assert report["gate"]["passed"] == (code == 0)
    areas = [row for row in report["gate"]["rows"] if row["metric"].endswith(("auroc", "aupro"))]
    assert len(areas) == 3
    assert code == 1 or all(row["worse"] <= 0.02 + 1e-9 or row["low"] <= 0 for row in areas)


def test_good_pictures_pass_and_the_report_says_what_was_asked(built: Path) -> None:
    report = json.loads((built / "report.json").read_text())
    found = report["gate"]["calibration"]
    assert found["passed"] is True
    assert found["of"] == len(report["calibration_scores"]) == len(report["calibration_files"])
    assert found["reason"] in (built / "report.html").read_text()


def test_a_few_rejected_pictures_are_chance_and_many_are_not() -> None:
    threshold = conformal_threshold(np.linspace(0.1, 0.5, 100), 0.01)
    scores = {f"{i}.png": 0.2 + 0.001 * i for i in range(20)}

    def verdict(bad: int, pool: int = 20) -> dict[str, Any]:
        high = {f"{i}.png": 0.9 - 0.01 * i for i in range(bad)}
        return judge_pictures({"scores": scores | high, "pool": pool}, threshold)

    limit = verdict(0)["limit"]
    assert 0 < limit < 10
    assert verdict(limit)["passed"] is True
    worse = verdict(limit + 1)
    assert worse["passed"] is False
    assert worse["rejected"][:2] == ["0.png", "1.png"]
    # Chosen from a larger pool because they differ: chance may have put more of them there.
    assert verdict(limit + 1, pool=200)["passed"] is True
