"""A sabotaged calibration: caught by the gate, and repaired layer by layer where it can be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from ndp_edge import build_calibrate, verify
from ndp_edge.bundle import Bundle
from ndp_edge.calib import calibrate as room
from ndp_edge.data.folder import load_images, open_dataset
from ndp_edge.data.splits import split
from ndp_edge.data.surface import write_surface
from ndp_edge.training.batches import Batches
from ndp_edge.training.loop import Run, Trainer
from ndp_edge.training.options import TrainOptions

LAYER = "decoder.step3.mix1"
DROP = 0.02
STRICT = ["--max-drop", str(DROP)]
STEPS = (40, 160)
AREAS = ("image_auroc", "pixel_auroc", "aupro")

Patch = Callable[[Callable[[str], bool], float], None]
Shown = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Larger than `data`: enough pictures for a gate and for a tune split."""
    root = tmp_path_factory.mktemp("trained") / "surface"
    write_surface("woven", root, train=100, good=12, defects=15, size=64)
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, surface: Path, kit: SimpleNamespace) -> Path:
    """A tiny net trained for some seconds, as ONNX: it finds most defects, so that it has something
    to lose. A fresh one guesses, whatever its precision."""
    from ndp_edge.export.exporter import export_onnx

    splits = split(open_dataset(surface))
    images = load_images(splits.train, 64)
    options = TrainOptions(STEPS, lr=4e-3, schedule="cosine", crop=64, opacity=(0.5, 1.0))
    hashes = sorted(splits.hashes[s.name] for s in splits.train)
    folder = tmp_path_factory.mktemp("net")
    (folder / "samples").mkdir()
    batches = Batches(images, [], options, gray=False)
    record = {"split_seed": 0, "hashes": hashes}
    run = Run(folder, kit.CONFIG, options, batches, images[0], None, "test", record)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # layers this small are slower on two
    try:
        Trainer(run, resume=False).train()
    finally:
        torch.set_num_threads(before)
    export_onnx(folder, folder / "net.onnx", images=images[:1], check=False)
    return folder / "net.onnx"


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


def test_one_range_twenty_times_too_wide_is_named_and_its_layer_goes_to_float(
    kit: SimpleNamespace, trained: Path, surface: Path, tmp_path: Path, widen: Patch,
    capsys: Shown, few_layers: tuple[str, ...],
) -> None:  # fmt: skip
    widen(lambda name: name == LAYER, 20)
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


def wrong_pictures(kind: str, surface: Path) -> NDArray[np.uint8]:
    if kind == "noise":
        return np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    if kind == "black":
        return np.zeros((8, 64, 64, 3), np.uint8)
    return load_images([s for s in open_dataset(surface).test if s.label], 64)


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
@pytest.mark.parametrize("kind", ["noise", "defects", "black"])
def test_calibration_on_the_wrong_pictures_ships_only_where_the_gate_sees_no_harm(
    kit: SimpleNamespace, trained: Path, surface: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, kind: str,
) -> None:  # fmt: skip
    """Noise and defects make wide ranges and black pictures narrow ones, and this net takes them
    all: a gate that failed would be wrong. Where one does harm, nothing may be emitted."""
    honest = build_calibrate.load_images
    turns = [wrong_pictures(kind, surface)]
    monkeypatch.setattr(
        build_calibrate,
        "load_images",
        lambda samples, size: turns.pop() if turns else honest(samples, size),
    )
    out = tmp_path / "bundle"
    code = kit.run(trained, surface, out, "--int8", *STRICT)
    assert not turns
    report = report_of(out if code == 0 else tmp_path / "bundle.failed")
    assert report["gate"]["passed"] == (code == 0)
    assert out.exists() == (code == 0)
    areas = [row for row in report["gate"]["rows"] if row["metric"] in AREAS]
    assert len(areas) == 3
    harmless = all(row["worse"] <= DROP + 1e-9 or row["low"] <= 0 for row in areas)
    assert harmless or code == 1
    assert code == 0 or report["sensitivity"]["layers"]
    if kind != "black":
        assert code == 0, report["gate"]["reason"]


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
