"""evaluate: the report keys at the frozen threshold, on pictures the bundle never saw."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace as Kit
from typing import Any

import cv2
import numpy as np
import pytest

from ndp_edge import evaluate
from ndp_edge.files import file_hash
from ndp_edge.image import write_png

SIZE = 64
REPORT_KEYS = {
    "image_auroc", "pixel_auroc", "aupro", "false_reject_rate", "miss_rate", "threshold",
    "latency_ms", "precision", "backend", "device",
}  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two good test pictures, one of them too bright; three defects, one of them too faint."""
    root = tmp_path / "data"
    for name in ("train/good", "test/good", "test/spot", "ground_truth/spot"):
        (root / name).mkdir(parents=True)
    write_png(root / "train/good/0.png", np.full((SIZE, SIZE, 3), 30, np.uint8))
    for index, level in enumerate((40, 140)):
        write_png(root / f"test/good/{index}.png", np.full((SIZE, SIZE, 3), level, np.uint8))
    for index, level in enumerate((100, 200, 250)):
        image = np.full((SIZE, SIZE, 3), 50 + index, np.uint8)
        mask = np.zeros((SIZE, SIZE), bool)
        mask[8:24, 8:24] = True
        image[mask] = level
        write_png(root / f"test/spot/{index}.png", image)
        write_png(root / f"ground_truth/spot/{index}_mask.png", mask)
    return root


def go(bundle: Path, data: Path, *more: str) -> int:
    return evaluate.main([str(bundle), "--data", str(data), *more])


def test_the_report_keys_at_the_frozen_threshold(
    kit: Kit, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    assert go(kit.make_bundle(tmp_path / "b"), data, "--json", str(out)) == 0
    report = json.loads(out.read_text())
    assert set(report) >= REPORT_KEYS
    assert report["false_reject_rate"] == 0.5
    assert report["miss_rate"] == pytest.approx(1 / 3)
    assert report["image_auroc"] == pytest.approx(5 / 6)
    assert (report["threshold"], report["precision"]) == (0.5, "int8")
    assert (report["good"], report["defective"]) == (2, 3)
    assert report["latency_ms"]["n"] == 5
    text = capsys.readouterr().out
    assert "33.33 %" in text
    assert "0.8333" in text


def test_json_to_stdout_is_only_json(
    kit: Kit, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go(kit.make_bundle(tmp_path / "b"), data, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["miss_rate"] == pytest.approx(1 / 3)


def test_maps_are_the_smoothed_maps(kit: Kit, data: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    assert go(kit.make_bundle(tmp_path / "b"), data, "--maps", str(maps)) == 0
    found = sorted(path.relative_to(maps).as_posix() for path in maps.rglob("*.*"))
    assert found == [
        "test/good/0.tiff", "test/good/1.tiff",
        "test/spot/0.tiff", "test/spot/1.tiff", "test/spot/2.tiff",
    ]  # fmt: skip
    shown = cv2.imread(str(maps / "test/spot/2.tiff"), cv2.IMREAD_UNCHANGED)
    assert shown is not None
    assert shown.dtype == np.float32
    assert float(shown.max()) == pytest.approx(250 / 255)


@pytest.mark.parametrize(
    ("where", "part"),
    [("splits", "calibration"), ("splits", "tune"), ("splits", "threshold"),
     ("calibration", "calibration"), ("training", "train")],
)  # fmt: skip
@pytest.mark.parametrize("shape", ["list", "dict"])
def test_pictures_the_bundle_was_made_from_are_refused(
    kit: Kit,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    where: str,
    part: str,
    shape: str,
) -> None:
    leaked = file_hash(data / "test/good/0.png")
    hashes: Any = ["00" * 32, leaked]
    if shape == "dict":
        hashes = {str(i): value for i, value in enumerate(hashes)}
    entry = {part: {"hashes": hashes}} if where == "splits" else {"hashes": hashes}
    assert go(kit.make_bundle(tmp_path / "b", **{where: entry}), data) == 2
    err = capsys.readouterr().err
    assert "test/good/0.png" in err
    assert part in err
    assert err.count("\n") == 1


def test_another_precision_is_noted_and_a_missing_one_refused(
    kit: Kit, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = kit.make_bundle(tmp_path / "b")
    assert go(bundle, data, "--precision", "fp32") == 0
    assert "frozen for int8, not for fp32" in capsys.readouterr().out
    one = [{"backend": "openvino", "precision": "int8", "file": "model.int8.onnx"}]
    assert go(kit.make_bundle(tmp_path / "c", engines=one), data, "--precision", "fp32") == 2


def test_only_good_pictures_have_no_auroc(kit: Kit, data: Path, tmp_path: Path) -> None:
    for path in (data / "test" / "spot").iterdir():
        path.unlink()
    (data / "test" / "spot").rmdir()
    out = tmp_path / "r.json"
    assert go(kit.make_bundle(tmp_path / "b"), data, "--json", str(out)) == 0
    report = json.loads(out.read_text())
    assert report["image_auroc"] is None
    assert report["miss_rate"] is None
    assert report["false_reject_rate"] == 0.5


def test_bad_input_is_one_line(
    kit: Kit, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = kit.make_bundle(tmp_path / "b")
    assert go(bundle, tmp_path / "none") == 2
    assert go(tmp_path / "none", data) == 2
    (data / "test/good/0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert go(bundle, data) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 3
    assert "Traceback" not in err
