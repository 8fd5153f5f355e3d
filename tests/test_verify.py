"""Verify passes a sound bundle, and names what is wrong with any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from ndp_edge import build, checkpoint, verify
from ndp_edge.bundle import Bundle
from ndp_edge.data.surface import write_surface
from ndp_edge.errors import MachineError
from ndp_edge.export.graph import build_graph
from ndp_edge.files import file_hash
from ndp_edge.golden import Golden, read_golden, write_golden
from ndp_edge.manifest import MANIFEST, seal
from ndp_edge.model.config import NdpConfig
from ndp_edge.model.network import NDPNet

CONFIG = NdpConfig("tiny", (8, 8, 8, 8, 8), 8, image_size=64)
Shown = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("verify")
    write_surface("woven", root / "data", train=40, good=4, defects=5, size=64)
    torch.manual_seed(0)
    net = NDPNet(CONFIG).eval()
    net.set_reference(torch.rand(1, 3, 64, 64))
    weights = {k: v.numpy() for k, v in net.state_dict().items()}
    onnx.save(build_graph(checkpoint.Checkpoint(CONFIG, weights, {})), root / "net.onnx")
    options = ["--int8", "--engine", "openvino", "--max-drop", "0.9"]
    paths = ["--checkpoint", str(root / "net.onnx"), "--data", str(root / "data")]
    assert build.main([*paths, *options, "--out", str(root / "bundle")]) == 0
    return root / "bundle"


@pytest.fixture
def bundle(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "bundle"))


def reseal(root: Path, change: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Put right hashes into the manifest, as somebody would who rebuilt a part by hand."""
    manifest = json.loads((root / MANIFEST).read_text())
    for name, entry in manifest["files"].items():
        entry.update(sha256=file_hash(root / name), size=(root / name).stat().st_size)
    if change:
        change(manifest)
    (root / MANIFEST).write_text(seal(manifest))


def table(capsys: Shown) -> dict[str, str]:
    """Name of each check -> the rest of its line."""
    lines = capsys.readouterr().out.splitlines()
    return {line.split("  ")[0]: " ".join(line.split("  ")[1:]) for line in lines}


def test_a_sound_bundle_passes(sound: Path, capsys: Shown) -> None:
    assert verify.main([str(sound), "--json", "-"]) == 0
    shown = capsys.readouterr()
    rows = {c["name"]: c["result"] for c in json.loads(shown.out)["checks"]}
    assert "golden, openvino int8" in shown.err  # the table makes way for the JSON
    assert set(rows) == {
        "files", "manifest", "version of ndp-edge", "version of openvino", "model.int8.onnx",
        "model.onnx", "golden, openvino fp32", "golden, openvino int8",
        "cross-check, onnxruntime fp32",
    }  # fmt: skip
    assert set(rows.values()) == {"passed"}


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx", "golden.npz", MANIFEST])
def test_a_flipped_byte_is_exit_2_and_one_line(bundle: Path, name: str, capsys: Shown) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 4
    (bundle / name).write_bytes(data)
    assert verify.main([str(bundle)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert name in lines[0]


def test_no_bundle_is_exit_2(tmp_path: Path) -> None:
    assert verify.main([str(tmp_path / "none")]) == 2


def test_an_engine_that_answers_otherwise_is_exit_1(bundle: Path, capsys: Shown) -> None:
    golden = read_golden(bundle / "golden.npz")
    maps = dict(golden.maps)
    maps["openvino-int8"] = maps["openvino-int8"] + np.float32(0.1)
    write_golden(bundle / "golden.npz", Golden(golden.images, maps))
    reseal(bundle)
    assert verify.main([str(bundle)]) == 1
    rows = table(capsys)
    assert "FAILED" in rows["golden, openvino int8"]
    assert "passed" in rows["golden, openvino fp32"]


def test_changed_weights_are_exit_1(bundle: Path, capsys: Shown) -> None:
    # Hashes made right again: only the replay can notice.
    model = onnx.load(bundle / "model.onnx")
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.ndim == 4 and array.shape[0] == 8:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(array) * 2, tensor.name))
    onnx.save(model, bundle / "model.onnx")
    reseal(bundle)
    assert verify.main([str(bundle)]) == 1
    rows = table(capsys)
    assert "FAILED" in rows["golden, openvino fp32"]
    assert "passed" in rows["golden, openvino int8"]


def test_illegal_onnx_is_exit_1(bundle: Path, capsys: Shown) -> None:
    model = onnx.load(bundle / "model.onnx")
    model.graph.node[-1].op_type = "NoSuchOperator"
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    reseal(bundle)
    assert verify.main([str(bundle)]) == 1
    assert "FAILED" in table(capsys)["model.onnx"]


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["threshold"].update(precision="fp32"),
        lambda m: m["gate"].update(passed=False),
        lambda m: m["metrics"].pop("int8"),
        lambda m: m["golden"]["tolerances"].pop("openvino-int8"),
        lambda m: m["golden"]["tolerances"]["openvino-int8"].update(max_abs=-1.0),
        lambda m: m["config"].update(image_size=128),
    ],
)
def test_a_manifest_that_contradicts_itself_fails(
    bundle: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    reseal(bundle, change)
    kept = read_golden(bundle / "golden.npz")
    (check,) = verify.check_manifest(Bundle.open(bundle), kept)
    assert check.result == "FAILED"


def test_a_missing_tolerance_is_exit_1_not_a_traceback(bundle: Path, capsys: Shown) -> None:
    reseal(bundle, lambda m: m["golden"]["tolerances"].clear())
    assert verify.main([str(bundle)]) == 1
    rows = table(capsys)
    assert "FAILED" in rows["manifest"]
    assert "no tolerance" in rows["golden, openvino int8"]


def test_other_versions_warn_and_pass(bundle: Path, capsys: Shown) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["package"]["version"] = "0.0.1"
        manifest["engines"][0]["versions"]["openvino"] = "1999.1"

    reseal(bundle, change)
    assert verify.main([str(bundle)]) == 0
    rows = table(capsys)
    assert "warning" in rows["version of ndp-edge"]
    assert "1999.1" in rows["version of openvino"]


def test_an_engine_that_is_not_installed_is_named(
    bundle: Path, capsys: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*arguments: Any, **options: Any) -> Any:
        raise MachineError("openvino is not installed here; install it with: pip ...")

    monkeypatch.setattr(verify, "available", lambda: {"openvino": None, "onnxruntime": None})
    monkeypatch.setattr(verify, "open_engine", missing)
    assert verify.main([str(bundle)]) == 3
    shown = capsys.readouterr()
    assert "not checked" in shown.out
    assert "install" in shown.err.splitlines()[-1]
