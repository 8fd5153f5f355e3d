"""A sabotaged calibration: caught by the gate, and repaired layer by layer where it can be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from ndp_edge import verify
from ndp_edge.bundle import Bundle
from ndp_edge.calib import calibrate as room

LAYER = "decoder.step3.mix1"
DROP = 0.02
STRICT = ["--max-drop", str(DROP)]
AREAS = ("image_auroc", "pixel_auroc", "aupro")

Patch = Callable[[Callable[[str], bool], float], None]
Shown = pytest.CaptureFixture[str]


@pytest.fixture
def widen(monkeypatch: pytest.MonkeyPatch) -> Patch:
    """Calibrate chosen tensors so many times too wide."""
    honest = room.collect_ranges

    def plant(chosen: Callable[[str], bool], factor: float) -> None:
        def collect(*args: Any, **kwargs: Any) -> dict[str, tuple[float, float]]:
            found = honest(*args, **kwargs)
            assert any(chosen(name) for name in found)
            return {
                name: (factor * low, factor * high) if chosen(name) else (low, high)
                for name, (low, high) in found.items()
            }

        monkeypatch.setattr(room, "collect_ranges", collect)

    return plant


def report_of(out: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((out / "report.json").read_text())
    return told


def test_one_range_forty_times_too_wide_is_named_and_its_layer_goes_to_float(
    kit: SimpleNamespace, trained: Path, surface: Path, tmp_path: Path, widen: Patch,
    capsys: Shown, few_layers: tuple[str, ...],
) -> None:  # fmt: skip
    widen(lambda name: name == LAYER, 40)
    out = tmp_path / "bundle"
    assert kit.run(trained, surface, out, "--int8", *STRICT) == 0
    shown = capsys.readouterr().out
    assert f"in float, reading {LAYER}" in shown
    assert "INT8 throughout" in shown
    report = report_of(out)
    assert report["sensitivity"]["layers"][0]["name"] == LAYER
    assert len(report["sensitivity"]["layers"]) == len(few_layers)
    back = report["fallback"]
    assert back["attempts"][-1]["passed"] is True
    assert "more than 0.0200" in back["reason"]  # what fell short with every layer in int8
    assert LAYER in back["layers"][0]
    whole, mixed = (one for one in report["choices"] if one["name"].startswith("INT8"))
    assert (whole["passed"], whole["emitted"]) == (False, False)
    assert (mixed["passed"], mixed["emitted"]) == (True, True)
    assert mixed["ms"] == back["ms"] > 0 < whole["ms"] == back["whole_ms"]
    assert report["gate"]["passed"] is True
    check_mixed(out, back["float"])
    page = (out / "report.html").read_text()
    assert "What INT8 costs, layer by layer" in page
    assert f"{LAYER}, in float" in page
    assert "The way back" in page
    assert verify.main([str(out)]) == 0


def check_mixed(out: Path, wide: list[str]) -> None:
    """The bundle runs INT8, and its file has just these convolutions in float."""
    bundle = Bundle.open(out)
    assert bundle.default[1] == "int8"
    assert bundle.manifest["calibration"]["float"] == wide
    model = onnx.load(out / "model.int8.onnx")
    constant = {tensor.name for tensor in model.graph.initializer}
    convolutions = [n for n in model.graph.node if n.op_type == "Conv"]
    found = {n.name for n in convolutions if n.input[1] in constant}
    assert set(wide) <= found
    assert len(found) <= len(wide) + 2 < len(convolutions)  # two may be float from the start


@pytest.mark.slow  # 8 s; `pick_precision` has its own tests
@pytest.mark.usefixtures("few_layers")
def test_auto_takes_fp32_where_int8_with_layers_in_float_is_slower(
    kit: SimpleNamespace, trained: Path, surface: Path, tmp_path: Path, widen: Patch,
    monkeypatch: pytest.MonkeyPatch, capsys: Shown,
) -> None:  # fmt: skip
    """ONNX Runtime's int8 is not fast here: so the stop-watch is told what to say."""
    widen(lambda name: name == LAYER, 20)
    monkeypatch.setattr("ndp_edge.build.speed_up", lambda measured, low: 0.9)
    out = tmp_path / "bundle"
    assert kit.run(trained, surface, out, "--auto", *STRICT) == 0
    assert Bundle.open(out).default[1] == "fp32"
    assert not (out / "model.int8.onnx").exists()
    assert "float" not in Bundle.open(out).manifest["calibration"]
    shown = capsys.readouterr().out
    assert "INT8 is not worth it here: 0.90 x FP32" in shown
    assert "--auto took FP32, the fastest that passed" in shown
    assert report_of(out)["fallback"]["attempts"][-1]["passed"] is True


@pytest.mark.usefixtures("few_layers")
def test_asked_for_the_layers_are_told_and_int8_stays_whole(
    kit: SimpleNamespace, trained: Path, surface: Path, tmp_path: Path, built: Path
) -> None:
    out = tmp_path / "bundle"
    assert kit.run(trained, surface, out, "--int8", "--sensitivity", "--max-drop", "0.3") == 0
    report = report_of(out)
    layers = report["sensitivity"]["layers"]
    gains = [layer["gain"] for layer in layers]
    assert gains == sorted(gains, reverse=True)
    assert report["fallback"] == {}
    assert "float" not in Bundle.open(out).manifest["calibration"]
    assert "What INT8 costs, layer by layer" in (out / "report.html").read_text()
    assert report_of(built)["sensitivity"] == {}  # a minute that nobody asked for


@pytest.mark.parametrize("precision", ["--fp32", "--fp16"])
def test_sensitivity_needs_int8(
    kit: SimpleNamespace, net: Path, data: Path, tmp_path: Path, capsys: Shown, precision: str
) -> None:
    assert kit.run(net, data, tmp_path / "b", precision, "--sensitivity") == 2
    kit.refused_with("take --int8 or --auto", capsys, tmp_path / "b")


def few_pictures(data: Path, root: Path) -> Path:
    """Too few for a tune split."""
    (root / "train" / "good").mkdir(parents=True)
    for picture in sorted((data / "train" / "good").iterdir())[:12]:
        shutil.copy(picture, root / "train" / "good")
    return root


def test_without_a_tune_split_sensitivity_is_refused_and_a_failed_gate_still_tells(
    kit: SimpleNamespace, data: Path, tmp_path: Path, widen: Patch, capsys: Shown
) -> None:
    root = few_pictures(data, tmp_path / "few")
    net = kit.make_net(tmp_path / "n.onnx", split_seed=0, hashes=[])
    assert kit.run(net, root, tmp_path / "b", "--int8", "--sensitivity") == 2
    kit.refused_with("add photographs to train/good", capsys, tmp_path / "b")
    widen(lambda name: True, 1000)
    assert kit.run(net, root, tmp_path / "b", "--int8", "--max-drop", "0") == 1
    shown = capsys.readouterr()
    assert "too few good pictures to find the layers" in shown.out
    assert report_of(tmp_path / "b.failed")["sensitivity"] == {}


@pytest.mark.usefixtures("few_layers")
def test_where_no_layer_alone_is_at_fault_nothing_is_emitted(
    kit: SimpleNamespace, trained: Path, surface: Path, tmp_path: Path, widen: Patch, capsys: Shown
) -> None:
    widen(lambda name: True, 1000)
    assert kit.run(trained, surface, tmp_path / "bundle", "--int8", *STRICT) == 1
    shown = capsys.readouterr()
    assert "error: INT8 did not pass" in shown.err
    assert "leaving layers in float did not pass the gate either" in shown.out
    assert [p.name for p in tmp_path.iterdir()] == ["bundle.failed"]
    report = report_of(tmp_path / "bundle.failed")
    assert report["gate"]["passed"] is False
    assert report["fallback"]["float"] == []
    assert len(report["sensitivity"]["layers"]) == 3
    assert not any(one["passed"] for one in report["fallback"]["attempts"])
    page = (tmp_path / "bundle.failed" / "report.html").read_text()
    assert "What INT8 costs, layer by layer" in page


@pytest.mark.usefixtures("few_layers")
def test_good_pictures_alone_are_judged_on_artificial_defects(
    kit: SimpleNamespace, trained: Path, surface: Path, tmp_path: Path, widen: Patch, capsys: Shown
) -> None:
    shutil.copytree(surface / "train", tmp_path / "good" / "train")
    out = tmp_path / "bundle"
    assert kit.run(trained, tmp_path / "good", out, "--int8", "--max-drop", "0.3") == 0
    shown = capsys.readouterr().out
    assert "there are no defective images: artificial defects stood in for them" in shown
    assert "AUPRO, artificial defects" in shown
    gate = report_of(out)["gate"]
    assert gate["images"]["artificial"] > 0 == gate["images"]["defective"]
    told = {(row["metric"], row.get("on")) for row in gate["rows"]}
    assert told == {
        ("false_reject_rate", None),
        ("score_difference", "good images"),
        *((key, "artificial defects") for key in (*AREAS, "miss_rate")),
    }
    page = (out / "report.html").read_text()
    assert "artificial defects: there are no real ones here" in page
    assert "Good scores moved, good images" in page
    widen(lambda name: True, 1000)
    assert kit.run(trained, tmp_path / "good", tmp_path / "ruined", "--int8", *STRICT) == 1
    assert "on artificial defects" in kit.errors(capsys)[0]
