"""A build for the card in this machine, with ONNX Runtime standing in for TensorRT on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ndp_edge import build, build_card, engines, verify, verify_plans
from ndp_edge.build_card import Card
from ndp_edge.bundle import Bundle
from ndp_edge.engines import tensorrt_engine
from ndp_edge.engines.onnxruntime import OnnxRuntimeEngine
from ndp_edge.engines.sidecar import read_sidecar
from ndp_edge.engines.trt_builder import BuiltPlan
from ndp_edge.files import file_hash
from ndp_edge.types import Layer

Shown = pytest.CaptureFixture[str]
CARD = Card("sm87", "Orin", "12.6")


class StandIn(OnnxRuntimeEngine):
    """Answers as the ONNX that the plan was made of; a plan of the stand-in is its path."""

    drift = 0.0

    def __init__(self, model: Path, precision: str, *, backend: str) -> None:
        assert read_sidecar(model).precision == precision
        # An FP16 plan is made of the FP32 graph.
        super().__init__(Path(model.read_text()), "fp32" if precision == "fp16" else precision)
        self.name, self.precision = backend, precision

    def _infer(self, images: np.ndarray) -> np.ndarray:
        return super()._infer(images) + np.float32(self.drift)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """TensorRT 10.3 on a card; `version`, `ms` and `drift` can be changed."""
    state = SimpleNamespace(version="10.3.0", ms={"native": 2.0, "plugin": 1.0}, count=0)
    real = engines._version

    def make(models: Any, precision: str, variant: str, options: Any, card: Card) -> Any:
        state.count += 1
        kept = tmp_path / f"graph{state.count}.onnx"
        shutil.copy(models.int8 if precision == "int8" else models.fp32, kept)
        about = {"backend": "tensorrt", "version": state.version, "typing": "strong"}
        about |= {"batches": list(options.batches)}
        layers = [Layer("a", "Convolution", precision, 0.0)]
        plan = BuiltPlan(str(kept).encode(), layers, (options.cache or b"") + b".", about)
        return plan, "abc" if variant == "plugin" else None

    def version(name: str) -> str | None:
        return state.version if name == "tensorrt" else real(name)

    monkeypatch.setattr(engines, "_version", version)
    monkeypatch.setattr(build_card, "this_card", lambda: CARD)
    monkeypatch.setattr(build_card, "_make", make)
    monkeypatch.setattr(
        build_card, "median_ms", lambda plan, precision: state.ms[read_sidecar(plan).variant]
    )
    monkeypatch.setattr(tensorrt_engine, "TensorRtEngine", StandIn)
    monkeypatch.setattr(verify_plans, "card_sm", lambda: "sm87")
    monkeypatch.setattr(StandIn, "drift", 0.0)
    return state


@pytest.fixture
def bundle(
    card: SimpleNamespace, kit: SimpleNamespace, net: Path, data: Path, tmp_path: Path
) -> Path:
    out = tmp_path / "out" / "bundle"
    assert kit.run(net, data, out, "--int8", "--engine", "tensorrt", "--batch", "1,2") == 0
    return out


def test_the_engine_itself_is_judged_and_shipped(bundle: Path, capsys: Shown) -> None:
    opened = Bundle.open(bundle)
    m = opened.manifest
    assert opened.default == ("tensorrt", "int8")
    assert [(e["precision"], e["file"], e["variant"], e["sm"]) for e in m["engines"]] == [
        ("fp32", "engines/tensorrt-fp32-sm87.plan", "native", "sm87"),
        ("int8", "engines/tensorrt-int8-sm87.plan", "plugin", "sm87"),
    ]
    assert all("judged_on" not in e and e["batch"] == [1, 2] for e in m["engines"])
    assert set(m["golden"]["tolerances"]) == {"tensorrt-fp32", "tensorrt-int8"}
    assert (bundle / "timing.cache").read_bytes() == b"..."
    report = json.loads((bundle / "report.json").read_text())
    assert report["judged_on"] is None
    assert "int8 plugin was kept: native 2.000 ms, plugin 1.000 ms" in report["notes"]
    assert not [n for n in report["notes"] if "not run here" in n]
    capsys.readouterr()
    assert verify.main([str(bundle)]) == 0
    shown = capsys.readouterr().out
    assert "golden, tensorrt int8 sm87" in shown
    assert "not checked" not in shown


def test_a_rebuild_after_an_upgrade_is_replayed(
    bundle: Path, card: SimpleNamespace, capsys: Shown
) -> None:
    card.version, card.ms = "10.13.3.9", {"native": 1.0, "plugin": 2.0}
    before = Bundle.open(bundle)
    assert build.main(["--rebuild", str(bundle)]) == 0
    after = Bundle.open(bundle)
    sidecar = read_sidecar(after.engine_path("tensorrt", "int8"))
    assert (sidecar.version, sidecar.variant) == ("10.13.3.9", "native")
    assert (bundle / "timing.cache").read_bytes() == b"......"
    same = [n for n in before.manifest["files"] if n.endswith((".onnx", ".npz", "html"))]
    assert all(before.manifest["files"][n] == after.manifest["files"][n] for n in same)
    assert verify.main([str(bundle)]) == 0


def test_a_rebuild_that_answers_otherwise_leaves_the_bundle(
    bundle: Path, kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: Shown
) -> None:
    before = Bundle.open(bundle).hash
    capsys.readouterr()
    monkeypatch.setattr(StandIn, "drift", 0.2)
    assert build.main(["--rebuild", str(bundle)]) == 1
    assert "otherwise than the golden maps" in kit.errors(capsys)[0]
    assert Bundle.open(bundle).hash == before


def judged(*refused: str) -> Any:
    """A gate that refuses these precisions while all their layers are in int8."""

    def judge(measured: Any, images: Any, drop: float, precision: str, seed: int = 0) -> Any:
        passed = precision not in refused
        return {"passed": passed, "reason": "told so", "rows": [], "max_drop": drop}

    return judge


@pytest.mark.usefixtures("card", "few_layers")
def test_the_way_back_builds_the_engine_anew(
    kit: SimpleNamespace, net: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First INT8 fails, its first attempt and the engine built of that pass."""
    verdicts = [False, True, True]

    def judge(measured: Any, images: Any, drop: float, precision: str, seed: int = 0) -> Any:
        passed = verdicts.pop(0)
        return {"passed": passed, "reason": "told so", "rows": [], "max_drop": drop}

    monkeypatch.setattr("ndp_edge.build_gate.judge", judge)
    out = tmp_path / "bundle"
    assert kit.run(net, data, out, "--int8", "--engine", "tensorrt") == 0
    assert verdicts == []
    bundle = Bundle.open(out)
    plan = bundle.engine_path("tensorrt", "int8")
    assert read_sidecar(plan).onnx == file_hash(out / "model.int8.onnx")
    wide = bundle.manifest["calibration"]["float"]
    report = json.loads((out / "report.json").read_text())
    assert report["fallback"]["float"] == wide != []
    assert report["sensitivity"]["backend"] == "onnxruntime"  # a plan has no layers to turn off
    assert verify.main([str(out)]) == 0


@pytest.mark.usefixtures("card", "few_layers")
@pytest.mark.parametrize(
    ("refused", "speeds", "taken"),
    [((), {"fp16": 2.0, "int8": 3.0}, "int8"), (("int8",), {"fp16": 2.0, "int8": 3.0}, "fp16")],
)
def test_auto_judges_fp16_beside_int8(
    kit: SimpleNamespace, net: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    refused: tuple[str, ...], speeds: dict[str, float], taken: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("ndp_edge.build_gate.judge", judged(*refused))
    monkeypatch.setattr("ndp_edge.build.speed_up", lambda measured, low: speeds[low])
    out = tmp_path / "bundle"
    assert kit.run(net, data, out, "--auto", "--engine", "tensorrt") == 0
    bundle = Bundle.open(out)
    assert bundle.default == ("tensorrt", taken)
    assert bundle.precisions("tensorrt") == ["fp32", taken]
    kept = {name for name in bundle.manifest["files"] if name.startswith("engines/")}
    assert {name.split("-")[1] for name in kept} == {"fp32", taken}
    report = json.loads((out / "report.json").read_text())
    assert {one["name"] for one in report["choices"]} == {"FP32", "FP16", "INT8"}
    assert [one["name"] for one in report["choices"] if one["emitted"]] == [taken.upper()]


def test_auto_takes_tensorrt_where_a_card_answers(
    card: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engines.choose("auto")[0] == "openvino"
    monkeypatch.setattr(engines, "cards", lambda: 1)
    backend, why = engines.choose("auto")
    assert backend == "tensorrt"
    assert "10.3.0" in why
