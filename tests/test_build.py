"""A build makes a whole bundle or none, refuses leaks, and keeps the report of a failed gate."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch

from ndp_edge import build, checkpoint
from ndp_edge.bundle import Bundle
from ndp_edge.data.folder import load_images, open_dataset
from ndp_edge.data.splits import split
from ndp_edge.data.surface import write_surface
from ndp_edge.engines import open_engine
from ndp_edge.export.graph import build_graph
from ndp_edge.model.config import NdpConfig
from ndp_edge.model.network import NDPNet
from ndp_edge.postprocess import smooth_max

CONFIG = NdpConfig("tiny", (8, 8, 8, 8, 8), 8, image_size=64)
QUIET = ["--engine", "onnxruntime", "--max-drop", "0.9"]
"""ONNX Runtime starts fastest; a net with random weights passes only a wide gate."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "surface"
    write_surface("woven", root, train=60, good=4, defects=5, size=64)
    return root


def make_net(path: Path, **training: Any) -> Path:
    """A fresh tiny net as ONNX; `training` goes into its metadata."""
    torch.manual_seed(0)
    net = NDPNet(CONFIG).eval()
    net.set_reference(torch.rand(1, 3, 64, 64))
    weights = {k: v.numpy() for k, v in net.state_dict().items()}
    onnx.save(build_graph(checkpoint.Checkpoint(CONFIG, weights, training)), path)
    return path


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    splits = split(open_dataset(data), seed=3)
    hashes = sorted(splits.hashes[s.name] for s in splits.train)
    return make_net(tmp_path_factory.mktemp("net") / "tiny.onnx", split_seed=3, hashes=hashes)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, net: Path, data: Path) -> Path:
    out = tmp_path_factory.mktemp("built") / "bundle"
    assert run(net, data, out, "--int8") == 0
    return out


def run(net: Path, data: Path, out: Path, *options: str) -> int:
    return build.main(
        ["--checkpoint", str(net), "--data", str(data), "--out", str(out), *QUIET, *options]
    )


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = capsys.readouterr().err.splitlines()
    assert "Traceback" not in "".join(lines)
    return [line for line in lines if line.startswith("error: ")]


def test_the_bundle_holds_what_the_manifest_says(built: Path, data: Path) -> None:
    bundle = Bundle.open(built)
    m = bundle.manifest
    assert set(m["files"]) == {
        "model.onnx", "model.int8.onnx", "golden.npz", "report.json", "report.html",
    }  # fmt: skip
    assert bundle.default == ("onnxruntime", "int8")
    assert bundle.precisions("onnxruntime") == ["fp32", "int8"]
    assert bundle.config == CONFIG
    splits = split(open_dataset(data), seed=3)
    assert {k: v["digest"] for k, v in m["splits"].items()} == splits.digest
    assert m["threshold"]["n"] == len(splits.threshold)
    assert m["threshold"]["precision"] == "int8"
    assert m["calibration"]["n"] == len(splits.calibration)
    assert m["calibration"]["hashes"] == m["splits"]["calibration"]["hashes"]
    parts = [set(m["splits"][p]["hashes"]) for p in ("train", "calibration", "threshold", "test")]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 69
    assert m["gate"]["passed"] is True
    assert not list(built.parent.glob(".*"))


def test_the_report_has_the_keys_of_the_emitted_engine(built: Path) -> None:
    report = json.loads((built / "report.json").read_text())
    assert report["precision"] == "int8"
    assert report["threshold"]["value"] == Bundle.open(built).threshold
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
    built: Path, net: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Bundle.open(built).hash
    assert run(net, data, built, "--fp32") == 2
    assert "--force" in errors(capsys)[0]
    assert Bundle.open(built).hash == before


def test_fp32_alone_and_force(
    built: Path, net: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(built, tmp_path / "bundle"))
    assert run(net, data, out, "--fp32", "--force", "--json", "-") == 0
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


def test_a_failed_gate_emits_nothing_and_keeps_the_report(
    net: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("ndp_edge.calib.gate.judge", failing)
    for _ in range(2):  # a second failure replaces the first one's report
        assert run(net, data, tmp_path / "bundle", "--int8") == 1
        assert "AUPRO fell" in errors(capsys)[0]
    assert [p.name for p in tmp_path.iterdir()] == ["bundle.failed"]
    kept = tmp_path / "bundle.failed"
    assert sorted(p.name for p in kept.iterdir()) == ["report.html", "report.json"]
    assert json.loads((kept / "report.json").read_text())["gate"]["passed"] is False


def test_auto_falls_back_to_fp32_and_says_so(
    net: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("ndp_edge.calib.gate.judge", failing)
    assert run(net, data, tmp_path / "bundle", "--auto") == 0
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.default == ("onnxruntime", "fp32")
    assert bundle.manifest["threshold"]["precision"] == "fp32"
    assert "INT8 did not pass the gate" in capsys.readouterr().out


def test_good_images_alone_are_enough(
    net: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "good-only"
    shutil.copytree(data / "train", root / "train")
    assert run(net, root, tmp_path / "bundle", "--int8") == 0
    shown = capsys.readouterr().out
    assert "no defective images" in shown
    assert "no test folder" in shown
    metrics = Bundle.open(tmp_path / "bundle").manifest["metrics"]["int8"]
    assert metrics["image_auroc"] is None
    assert metrics["false_reject_rate"] is not None


def refused_with(words: str, capsys: pytest.CaptureFixture[str], out: Path) -> None:
    lines = errors(capsys)
    assert len(lines) == 1
    assert words in lines[0]
    assert not out.exists()
    assert not list(out.parent.glob(".*"))


@pytest.mark.parametrize(
    "case",
    [
        (["--target-false-reject", "0.01"], "15 good images cannot carry"),
        (["--target-false-reject", "1.5"], "must lie in (0, 1)"),
        (["--max-drop", "-1"], "must lie in [0, 1)"),
        (["--calib-images", "0"], "at least 1"),
        (["--fp16"], "FP16"),
        (["--seed", "4"], "was trained on"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    net: Path, data: Path, tmp_path: Path, case: tuple[list[str], str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    options, words = case
    assert run(net, data, tmp_path / "bundle", *options) == 2
    refused_with(words, capsys, tmp_path / "bundle")


def test_a_test_picture_that_was_trained_on_is_named(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = split(open_dataset(data), seed=0)
    leaked = splits.test[0]
    net = make_net(tmp_path / "leak.onnx", split_seed=0, hashes=[splits.hashes[leaked.name]])
    assert run(net, data, tmp_path / "bundle") == 2
    refused_with(leaked.name, capsys, tmp_path / "bundle")


def test_a_test_picture_copied_into_train_is_named(
    net: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(data, tmp_path / "data"))
    copied = sorted((root / "test" / "good").iterdir())[0]
    shutil.copy(copied, root / "train" / "good" / "zzz.png")
    assert run(net, root, tmp_path / "bundle") == 2
    refused_with("zzz.png", capsys, tmp_path / "bundle")


@pytest.mark.parametrize("name", ["absent.onnx", "rubbish.onnx", "rubbish.safetensors", "absent"])
def test_a_checkpoint_that_is_none_is_refused(
    data: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if name.startswith("rubbish"):
        (tmp_path / name).write_bytes(b"rubbish" * 100)
    assert run(tmp_path / name, data, tmp_path / "bundle") == 2
    refused_with(name, capsys, tmp_path / "bundle")


def test_a_backend_that_is_missing_names_its_install_command(
    net: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(net, data, tmp_path / "bundle", "--engine", "tensorrt") == 3
    refused_with("install", capsys, tmp_path / "bundle")


def test_a_full_disk_is_one_line_and_leaves_nothing(
    net: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert run(net, data, tmp_path / "bundle", "--fp32") == 2
    refused_with("disk is full", capsys, tmp_path / "bundle")
    monkeypatch.undo()
    monkeypatch.setattr("ndp_edge.build.write_golden", full)
    assert run(net, data, tmp_path / "bundle", "--fp32") == 2
    refused_with("disk is full", capsys, tmp_path / "bundle")


def start(net: Path, data: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "ndp_edge.build",
        "--checkpoint",
        str(net),
        "--data",
        str(data),
    ]
    return subprocess.Popen(
        [*command, "--out", str(out), *QUIET, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_a_build_killed_at_any_moment_leaves_a_whole_bundle_or_none(
    net: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    began = time.monotonic()
    assert start(net, data, out, "--int8").wait(120) == 0
    whole = time.monotonic() - began
    old = Bundle.open(out).hash
    moments = random.Random(0)
    for _ in range(2):
        process = start(net, data, out, "--int8", "--force")
        time.sleep(moments.uniform(0.4, 1.0) * whole)
        process.kill()
        assert process.wait(30) in (-signal.SIGKILL, 0)
        Bundle.open(out)  # the old one or the new one, whole
    shutil.rmtree(out)
    for _ in range(2):
        process = start(net, data, out, "--int8")
        time.sleep(moments.uniform(0.4, 0.9) * whole)
        process.kill()
        process.wait(30)
        if out.exists():
            assert Bundle.open(out).hash != old
            shutil.rmtree(out)
    assert start(net, data, out, "--fp32").wait(120) == 0
    Bundle.open(out)
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_two_builds_with_one_seed_give_the_same_models(
    built: Path, net: Path, data: Path, tmp_path: Path
) -> None:
    assert run(net, data, tmp_path / "bundle", "--int8") == 0
    for name in ("model.onnx", "model.int8.onnx", "golden.npz"):
        assert (tmp_path / "bundle" / name).read_bytes() == (built / name).read_bytes()


def test_a_training_run_is_exported(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = {k: v.numpy() for k, v in NDPNet(CONFIG).state_dict().items()}
    checkpoint.save(tmp_path / "model.safetensors", checkpoint.Checkpoint(CONFIG, weights, {}))
    assert run(tmp_path, data, tmp_path / "bundle", "--fp32") == 0
    report = json.loads((tmp_path / "bundle" / "report.json").read_text())
    assert any("a leak cannot be excluded" in note for note in report["notes"])
    assert report["model"]["export check"]
