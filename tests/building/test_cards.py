"""A build for NVIDIA cards on a machine without one: the bundle, verify, rebuild, refusals."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from ndp_edge import build, verify
from ndp_edge.bundle import Bundle
from ndp_edge.engines import trt_compat
from ndp_edge.engines.sidecar import read_sidecar, sidecar_of
from ndp_edge.files import file_hash
from ndp_edge.manifest import MANIFEST, seal

Shown = pytest.CaptureFixture[str]
TARGETS = ["--engine", "tensorrt-rtx", "--target", "sm86,sm120"]


@pytest.fixture(scope="module", autouse=True)
def _rtx() -> None:
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT-RTX is not installed here: pip install 'ndp-edge[rtx]'")


@pytest.fixture(scope="module")
def crossed(
    kit: SimpleNamespace, net: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("crossed") / "bundle"
    assert kit.run(net, data, out, "--int8", *TARGETS, "--batch", "1,2") == 0
    return out


def table(capsys: Shown) -> dict[str, str]:
    lines = capsys.readouterr().out.splitlines()
    return {line.split("  ")[0]: " ".join(line.split("  ")[1:]) for line in lines}


def test_the_bundle_has_an_engine_a_card_and_its_judge(crossed: Path) -> None:
    bundle = Bundle.open(crossed)
    assert bundle.default == ("tensorrt-rtx", "int8")
    entries = [e for e in bundle.manifest["engines"] if e["backend"] == "tensorrt-rtx"]
    assert [(e["sm"], e["judged_on"], e["batch"]) for e in entries] == [
        ("sm86", "openvino", [1, 2]),
        ("sm120", "openvino", [1, 2]),
    ]
    for entry in entries:
        sidecar = read_sidecar(crossed / entry["file"])
        assert sidecar.onnx == file_hash(crossed / "model.int8.onnx")
        assert set(entry["convolutions"]) == {"int8", "fp16"}
        assert entry["convolutions"]["fp16"] == 1  # what reads the image
    for sm in ("sm86", "sm120"):
        path = bundle.engine_path("tensorrt-rtx", "int8", sm)
        assert path == crossed / "engines" / f"tensorrt-rtx-int8-{sm}.plan"
    assert bundle.precisions("openvino") == ["fp32", "int8"]


def test_the_report_says_what_was_judged_and_what_runs_in_int8(crossed: Path) -> None:
    report = json.loads((crossed / "report.json").read_text())
    assert report["judged_on"] == "openvino"
    assert report["backend"] == "openvino"  # the figures are its
    (note,) = [n for n in report["notes"] if "judged on openvino" in n]
    assert "the tensorrt-rtx engines (sm86, sm120) were not run here" in note
    assert not [n for n in report["notes"] if "asked for int8" in n]  # one in float is as asked
    for engine in report["engines"]:
        kinds = [x["precision"] for x in engine["layers"] if "onvolution" in x["type"]]
        assert set(kinds) == {"int8", "fp16"}
        assert kinds.count("fp16") == 1  # what reads the image
    page = (crossed / "report.html").read_text()
    assert "Engines for NVIDIA cards" in page
    assert "engines/tensorrt-rtx-int8-sm86.plan: convolutions: " in page


def test_verify_checks_what_it_can_and_names_the_rest(crossed: Path, capsys: Shown) -> None:
    assert verify.main([str(crossed)]) == 0
    rows = table(capsys)
    for sm in ("sm86", "sm120"):
        assert "passed" in rows[f"engines/tensorrt-rtx-int8-{sm}.plan"]
        told = rows[f"golden, tensorrt-rtx int8 {sm}"]
        assert "not checked" in told
        assert f"needs an NVIDIA card of {sm}" in told
    assert "passed" in rows["golden, openvino int8"]


def reseal(root: Path) -> None:
    """Put right hashes into the manifest, as somebody would who swapped a file by hand."""
    manifest = json.loads((root / MANIFEST).read_text())
    for name, entry in manifest["files"].items():
        entry.update(sha256=file_hash(root / name), size=(root / name).stat().st_size)
    (root / MANIFEST).write_text(seal(manifest))


def _other_card(sidecar: dict[str, Any]) -> None:
    sidecar["sm"] = "sm89"


def _other_onnx(sidecar: dict[str, Any]) -> None:
    sidecar["onnx"] = "0" * 64


@pytest.mark.parametrize(
    ("change", "words"), [(_other_card, "sm89"), (_other_onnx, "another model.int8.onnx")]
)
def test_a_plan_of_something_else_fails(
    crossed: Path, tmp_path: Path, capsys: Shown,
    change: Callable[[dict[str, Any]], None], words: str,
) -> None:  # fmt: skip
    root = Path(shutil.copytree(crossed, tmp_path / "bundle"))
    path = sidecar_of(root / "engines" / "tensorrt-rtx-int8-sm86.plan")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    reseal(root)
    assert verify.main([str(root)]) == 1
    row = table(capsys)["engines/tensorrt-rtx-int8-sm86.plan"]
    assert "FAILED" in row
    assert words in row


def test_rebuild_adds_a_card_and_renews_those_that_are_there(
    crossed: Path, tmp_path: Path, capsys: Shown
) -> None:
    root = Path(shutil.copytree(crossed, tmp_path / "bundle"))
    assert build.main(["--rebuild", str(root), "--target", "sm89"]) == 0
    bundle = Bundle.open(root)
    entries = [e for e in bundle.manifest["engines"] if e["backend"] == "tensorrt-rtx"]
    assert [e["sm"] for e in entries] == ["sm86", "sm120", "sm89"]
    assert entries[2]["judged_on"] == "openvino"
    assert read_sidecar(root / entries[2]["file"]).batches == (1, 2)
    capsys.readouterr()
    assert verify.main([str(root)]) == 0
    kept = {n: e for n, e in bundle.manifest["files"].items() if not n.startswith("engines/")}
    for name, entry in kept.items():
        assert entry["sha256"] == file_hash(crossed / name)
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_rebuild_of_a_bundle_without_such_engines_says_how(
    built: Path, tmp_path: Path, kit: SimpleNamespace, capsys: Shown
) -> None:
    root = Path(shutil.copytree(built, tmp_path / "bundle"))
    before = Bundle.open(root).hash
    assert build.main(["--rebuild", str(root)]) == 2
    assert "--target sm86" in kit.errors(capsys)[0]
    assert build.main(["--rebuild", str(root), "--engine", "tensorrt"]) == 3
    assert "pip install 'ndp-edge[tensorrt]'" in kit.errors(capsys)[0]
    assert Bundle.open(root).hash == before


def test_a_failed_rebuild_leaves_the_bundle_as_it_was(
    crossed: Path, tmp_path: Path, kit: SimpleNamespace, capsys: Shown,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from ndp_edge import build_trt
    from ndp_edge.errors import MachineError

    def crash(*arguments: Any, **options: Any) -> Any:
        raise MachineError("tensorrt-rtx was ended by SIGABRT")

    root = Path(shutil.copytree(crossed, tmp_path / "bundle"))
    before = Bundle.open(root).hash
    monkeypatch.setattr(build_trt.cross_build, "__kwdefaults__", {"build": crash})
    assert build.main(["--rebuild", str(root)]) == 3
    assert "SIGABRT" in kit.errors(capsys)[0]
    assert Bundle.open(root).hash == before
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


@pytest.fixture
def lively(net: Path, tmp_path: Path) -> Path:
    """The tiny net with maps that vary: else all scores are one, and a breath flips them all."""
    model = onnx.load(net)
    for tensor in model.graph.initializer:
        if tensor.name.endswith("to_map.weight"):
            value = 150 * onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    path = tmp_path / "lively.onnx"
    onnx.save(model, path)
    return path


def test_fp16_is_judged_by_the_typed_graph(
    kit: SimpleNamespace, lively: Path, data: Path, tmp_path: Path
) -> None:
    net, out = lively, tmp_path / "bundle"
    options = ["--engine", "tensorrt-rtx", "--target", "sm89"]
    assert kit.run(net, data, out, "--fp16", *options) == 0
    bundle = Bundle.open(out)
    assert bundle.default == ("tensorrt-rtx", "fp16")
    assert bundle.precisions("onnxruntime") == ["fp32", "fp16"]
    assert "model.fp16.onnx" in bundle.manifest["files"]
    report = json.loads((out / "report.json").read_text())
    assert report["precision"] == "fp16"
    assert [row["metric"] for row in report["gate"]["rows"] if "fp16" in row]
    assert verify.main([str(out)]) == 0


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--engine", "tensorrt-rtx"], 2, "--target sm86"),
        (["--engine", "tensorrt-rtx", "--target", "sm87"], 2, "sm87"),
        ([*TARGETS, "--variant", "plugin"], 2, "--variant"),
        (["--engine", "tensorrt", "--int8"], 3, "pip install 'ndp-edge[tensorrt]'"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    kit: SimpleNamespace, net: Path, data: Path, tmp_path: Path, capsys: Shown,
    options: list[str], code: int, words: str,
) -> None:  # fmt: skip
    assert kit.run(net, data, tmp_path / "bundle", *options) == code
    kit.refused_with(words, capsys, tmp_path / "bundle")


def test_a_missing_library_is_exit_3_with_its_command(
    kit: SimpleNamespace, net: Path, data: Path, tmp_path: Path, capsys: Shown,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    real = importlib.util.find_spec
    names = trt_compat.MODULES["tensorrt-rtx"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n in names else real(n))
    assert kit.run(net, data, tmp_path / "bundle", *TARGETS) == 3
    kit.refused_with("pip install 'ndp-edge[rtx]'", capsys, tmp_path / "bundle")
