"""export_onnx: checked before it is written, or not written; and the command around it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from ndp_edge import checkpoint as checkpoints
from ndp_edge.checkpoint import Checkpoint
from ndp_edge.errors import GateError, InputError, MachineError
from ndp_edge.export import exporter
from ndp_edge.export.__main__ import main
from ndp_edge.export.exporter import export_onnx, load_model, read_config
from ndp_edge.export.graph import build_graph
from ndp_edge.export.inline import inline

# --- export_onnx and its check ----------------------------------------------------------------


def test_export_reports_what_it_compared(
    kit: SimpleNamespace, saved: Path, tiny: Checkpoint, tmp_path: Path
) -> None:
    out = tmp_path / "net.onnx"
    report = export_onnx(saved, out, images=kit.noise(2, 64))
    check = report["check"]
    assert check["images"] == 7 and check["map_range"][0] < check["map_range"][1]
    assert 0 <= check["onnxruntime"]["reconstruction"] <= 1e-4
    assert 0 <= check["onnxruntime"]["anomaly_map"] <= 1e-4
    assert 0 <= check["openvino"]["anomaly_map"] <= 1e-4
    assert report["bytes"] == out.stat().st_size and json.dumps(report)
    assert read_config(out) == (kit.TINY, tiny.training)
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def broken(weight: str, value: float) -> Any:
    """A build_graph whose result has one wrong weight."""

    def build(checkpoint: Checkpoint) -> onnx.ModelProto:
        model = build_graph(checkpoint)
        for tensor in model.graph.initializer:
            if tensor.name == weight:
                array = numpy_helper.to_array(tensor).copy()
                array.flat[0] += value
                tensor.CopyFrom(numpy_helper.from_array(array, weight))
                return model
        raise LookupError(weight)

    return build


@pytest.mark.parametrize(
    ("weight", "value", "told"),
    [
        ("msdsm2.to_map.bias", 0.05, "anomaly_map differs"),
        ("decoder.to_image.bias", 0.05, "differs"),
        ("encoder.stage3.conv1.weight", float("nan"), "not finite"),
        ("rbam4.reference", float("inf"), "not finite"),
    ],
)
def test_a_failed_check_leaves_no_file(
    saved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    weight: str,
    value: float,
    told: str,
) -> None:
    monkeypatch.setattr(exporter, "build_graph", broken(weight, value))
    with pytest.raises(GateError, match=told):
        export_onnx(saved, tmp_path / "net.onnx", images=None)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_before_the_check_has_passed(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that not even SIGKILL during the check can leave an unchecked file."""
    seen: list[list[Path]] = []
    compare = exporter.compare_with_torch

    def look(*arguments: Any) -> dict[str, Any]:
        seen.append(list(tmp_path.iterdir()))
        return compare(*arguments)

    monkeypatch.setattr(exporter, "compare_with_torch", look)
    export_onnx(saved, tmp_path / "net.onnx", images=None)
    assert seen == [[]] and [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_a_failed_check_keeps_the_earlier_file(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "net.onnx"
    export_onnx(saved, out, images=None, check=False)
    before = out.read_bytes()
    monkeypatch.setattr(exporter, "build_graph", broken("decoder.to_image.bias", 0.5))
    with pytest.raises(GateError):
        export_onnx(saved, out, images=None)
    assert out.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_openvino_alone_being_wrong_fails_the_check(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(model: onnx.ModelProto) -> onnx.ModelProto:
        return inline(broken("msdsm1.to_map.bias", 1.0)(checkpoints.load(saved)))

    monkeypatch.setattr("ndp_edge.export.check.inline", spoilt)
    with pytest.raises(GateError, match="openvino"):
        export_onnx(saved, tmp_path / "net.onnx", images=None)
    assert list(tmp_path.iterdir()) == []


def test_without_torch_the_check_says_what_to_install(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MachineError, match=r'pip install "ndp-edge\[train\]"'):
        export_onnx(saved, tmp_path / "net.onnx", images=None)
    assert main(["--checkpoint", str(saved), "--out", str(tmp_path / "net.onnx")]) == 3
    assert capsys.readouterr().err.splitlines()[-1].endswith('pip install "ndp-edge[train]"')
    assert list(tmp_path.iterdir()) == []
    report = export_onnx(saved, tmp_path / "net.onnx", images=None, check=False)
    assert report["check"] is None and (tmp_path / "net.onnx").is_file()


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 32, 32, 3), np.uint8),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((1, 64, 64, 3), np.float32),
    ],
)
def test_check_images_of_another_kind_are_refused(
    saved: Path, tmp_path: Path, images: NDArray[Any]
) -> None:
    with pytest.raises(InputError, match=r"wanted uint8 \[N, 64, 64, 3\]"):
        export_onnx(saved, tmp_path / "net.onnx", images=images)


# --- what is read back ------------------------------------------------------------------------


def test_a_saved_checkpoint_comes_back_as_the_same_net(
    kit: SimpleNamespace, saved: Path, tiny: Checkpoint
) -> None:
    images = kit.noise(1, 64)
    assert np.array_equal(
        kit.run_torch(checkpoints.load(saved), images), kit.run_torch(tiny, images)
    )


def test_what_is_no_onnx_of_ours_is_refused(tmp_path: Path, tiny: Checkpoint) -> None:
    with pytest.raises(InputError, match="no ONNX at"):
        read_config(tmp_path / "missing.onnx")
    for name, content in (("text.onnx", b"not a model at all"), ("empty.onnx", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="is not an ONNX model"):
            load_model(tmp_path / name)
    model = build_graph(tiny)
    whole = model.SerializeToString()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is not an ONNX model"):
        read_config(tmp_path / "half.onnx")
    training = {e.key: e for e in model.metadata_props}["ndp_edge.training"]
    for value in ("{", "[1]"):
        training.value = value
        with pytest.raises(InputError, match="training record"):
            read_config(model)
    del model.metadata_props[:]
    with pytest.raises(InputError, match="ndp-edge"):
        read_config(model)


# --- the command ------------------------------------------------------------------------------


def test_command_writes_file_table_and_json(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, told = tmp_path / "net.onnx", tmp_path / "report.json"
    assert main(["--checkpoint", str(saved), "--out", str(out), "--json", str(told)]) == 0
    assert "onnxruntime anomaly_map" in capsys.readouterr().out
    assert json.loads(told.read_text())["bytes"] == out.stat().st_size


def test_command_takes_real_pictures(
    kit: SimpleNamespace, real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints.save(tmp_path / "net.safetensors", kit.fresh(replace(kit.TINY, image_size=256)))
    arguments = ["--checkpoint", tmp_path / "net.safetensors", "--out", tmp_path / "net.onnx"]
    arguments += ["--data", real_data / "kolektor_sdd", "--json", "-"]
    assert main([str(a) for a in arguments]) == 0
    assert json.loads(capsys.readouterr().out)["check"]["images"] == 9


@pytest.mark.parametrize("fault", ["no checkpoint", "not one", "no folder", "a folder", "no data"])
def test_bad_input_is_one_line_and_exit_2(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    checkpoint, out, extra = saved, tmp_path / "net.onnx", []
    if fault == "no checkpoint":
        checkpoint = tmp_path / "none"
    elif fault == "not one":
        checkpoint = tmp_path / "text.safetensors"
        checkpoint.write_text("hello")
    elif fault == "no folder":
        out = tmp_path / "none" / "net.onnx"
    elif fault == "a folder":
        out = tmp_path
    else:
        extra = ["--data", str(tmp_path / "none")]
    assert main(["--checkpoint", str(checkpoint), "--out", str(out), *extra]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert not out.is_file() and not list(tmp_path.glob(".*"))
