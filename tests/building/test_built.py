"""A build makes a whole bundle, and keeps the report of a failed gate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ndp_edge import checkpoint
from ndp_edge.bundle import Bundle
from ndp_edge.data.folder import load_images, open_dataset
from ndp_edge.data.splits import PARTS, split
from ndp_edge.engines import open_engine
from ndp_edge.model.network import NDPNet
from ndp_edge.postprocess import smooth_max


def test_the_bundle_holds_what_the_manifest_says(
    kit: SimpleNamespace, built: Path, data: Path
) -> None:
    bundle = Bundle.open(built)
    m = bundle.manifest
    assert set(m["files"]) == {
        "model.onnx", "model.int8.onnx", "golden.npz", "report.json", "report.html",
    }  # fmt: skip
    assert bundle.default == ("onnxruntime", "int8")
    assert bundle.precisions("onnxruntime") == ["fp32", "int8"]
    assert bundle.config == kit.CONFIG
    splits = split(open_dataset(data), seed=3)
    assert {k: v["digest"] for k, v in m["splits"].items()} == splits.digest
    assert m["threshold"]["n"] == len(splits.threshold)
    assert m["threshold"]["precision"] == "int8"
    assert m["calibration"]["n"] == m["calibration"]["pool"] == len(splits.calibration) == 4
    assert m["calibration"]["files"] == {s.name: splits.hashes[s.name] for s in splits.calibration}
    assert m["calibration"]["hashes"] == m["splits"]["calibration"]["hashes"]
    assert {part: entry["n"] for part, entry in m["splits"].items()} == {
        part: len(getattr(splits, part)) for part in PARTS
    }
    parts = [set(m["splits"][part]["hashes"]) for part in PARTS]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 69
    assert m["gate"]["passed"] is True
    assert not list(built.parent.glob(".*"))


def test_the_report_has_the_keys_of_the_emitted_engine(built: Path) -> None:
    report = json.loads((built / "report.json").read_text())
    assert report["precision"] == "int8"
    assert report["threshold"]["value"] == Bundle.open(built).threshold
    assert report["calibration_files"] == Bundle.open(built).manifest["calibration"]["files"]
    assert report["calibration"]["method"] == "minmax"
    assert "files" not in report["calibration"]
    for precision in ("fp32", "int8"):
        found = report["metrics"][precision]
        for key in ("image_auroc", "pixel_auroc", "aupro", "false_reject_rate", "miss_rate"):
            assert 0 <= found[key] <= 1
        assert found["latency_ms"]["n"] == 9
        assert set(found["latency_ms"]) == {"p50", "p95", "p99", "mean", "n"}
    assert report["frozen_metrics"]["int8"]["threshold"] == report["metrics"]["fp32"]["threshold"]
    assert "<html" in (built / "report.html").read_text()


def test_the_threshold_is_that_of_the_emitted_engine(built: Path, data: Path) -> None:
    bundle = Bundle.open(built)
    images = load_images(split(open_dataset(data), seed=3).threshold, 64)
    model = bundle.engine_path("onnxruntime", "int8")
    with open_engine("onnxruntime", model, precision="int8") as engine:
        scores = smooth_max(engine.infer(images))[1]
    # 15 images carry 1 in 16 at best, and then the threshold is the largest score.
    assert bundle.threshold == pytest.approx(float(scores.max()), abs=1e-6)
    assert bundle.manifest["threshold"]["target"] == pytest.approx(1 / 16)


def test_an_existing_bundle_needs_force(
    kit: SimpleNamespace, built: Path, net: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Bundle.open(built).hash
    assert kit.run(net, data, built, "--fp32") == 2
    assert "--force" in kit.errors(capsys)[0]
    assert Bundle.open(built).hash == before


def test_fp32_alone_and_force(
    kit: SimpleNamespace,
    built: Path,
    net: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = Path(shutil.copytree(built, tmp_path / "bundle"))
    assert kit.run(net, data, out, "--fp32", "--force", "--json", "-") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["precision"] == "fp32"
    assert "image AUROC" in shown.err
    bundle = Bundle.open(out)
    assert bundle.precisions("onnxruntime") == ["fp32"]
    assert "model.int8.onnx" not in bundle.manifest["files"]
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def failing(*arguments: Any, **options: Any) -> Any:
    return SimpleNamespace(
        passed=False, rows=[{"metric": "aupro", "drop": 0.3}], reason="AUPRO fell"
    )


@pytest.mark.usefixtures("few_layers")
def test_a_failed_gate_emits_nothing_and_keeps_the_report(
    kit: SimpleNamespace, net: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("ndp_edge.calib.gate.judge", failing)
    for _ in range(2):  # a second failure replaces the first one's report
        assert kit.run(net, data, tmp_path / "bundle", "--int8") == 1
        assert "AUPRO fell" in kit.errors(capsys)[0]
    assert [p.name for p in tmp_path.iterdir()] == ["bundle.failed"]
    kept = tmp_path / "bundle.failed"
    assert sorted(p.name for p in kept.iterdir()) == ["report.html", "report.json"]
    assert json.loads((kept / "report.json").read_text())["gate"]["passed"] is False


@pytest.mark.usefixtures("few_layers")
def test_auto_falls_back_to_fp32_and_says_so(
    kit: SimpleNamespace, net: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("ndp_edge.calib.gate.judge", failing)
    assert kit.run(net, data, tmp_path / "bundle", "--auto") == 0
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.default == ("onnxruntime", "fp32")
    assert bundle.manifest["threshold"]["precision"] == "fp32"
    assert "INT8 did not pass the gate" in capsys.readouterr().out


def test_good_images_alone_are_enough(
    kit: SimpleNamespace, net: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "good-only"
    shutil.copytree(data / "train", root / "train")
    assert kit.run(net, root, tmp_path / "bundle", "--int8") == 0
    shown = capsys.readouterr().out
    assert "no defective images" in shown
    assert "no test folder" in shown
    metrics = Bundle.open(tmp_path / "bundle").manifest["metrics"]["int8"]
    assert metrics["image_auroc"] is None
    assert metrics["false_reject_rate"] is not None


def test_two_builds_with_one_seed_give_the_same_models(
    kit: SimpleNamespace, built: Path, net: Path, data: Path, tmp_path: Path
) -> None:
    assert kit.run(net, data, tmp_path / "bundle", "--int8") == 0
    for name in ("model.onnx", "model.int8.onnx", "golden.npz"):
        assert (tmp_path / "bundle" / name).read_bytes() == (built / name).read_bytes()


def test_a_training_run_is_exported(kit: SimpleNamespace, data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = {k: v.numpy() for k, v in NDPNet(kit.CONFIG).state_dict().items()}
    checkpoint.save(tmp_path / "model.safetensors", checkpoint.Checkpoint(kit.CONFIG, weights, {}))
    assert kit.run(tmp_path, data, tmp_path / "bundle", "--fp32") == 0
    report = json.loads((tmp_path / "bundle" / "report.json").read_text())
    assert any("a leak cannot be excluded" in note for note in report["notes"])
    assert report["model"]["export check"]
