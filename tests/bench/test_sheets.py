"""`python -m ndp_edge.bench.sheets`: what is chosen, what is drawn where, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_edge import engines, evaluate, heat
from ndp_edge.bench import sheet_drawing, sheets
from ndp_edge.bench.sheet_drawing import TILE, Band, corner, tops
from ndp_edge.bundle import BundleWriter
from ndp_edge.engines.base import Engine
from ndp_edge.image import write_png
from ndp_edge.model.config import preset

SIZE = 64
GOOD = {"0": 40, "1": 140, "2": 60}
DEFECTIVE = {"0": 100, "1": 200, "2": 250, "3": 90}
"""Name -> brightest level; the bundle rejects above 127.5."""

Pixels = NDArray[np.uint8]
Go = Callable[..., int]


class Brightness(Engine):
    """Calls bright pixels defective."""

    name = "openvino"

    def _infer(self, images: Pixels) -> NDArray[np.float32]:
        maps: NDArray[np.float32] = images.mean(axis=3, dtype=np.float32) / np.float32(255)
        return maps

    def _submit(self, images: Pixels) -> Any:
        return self._infer(images)

    def _collect(self, handle: Any) -> NDArray[np.float32]:
        answer: NDArray[np.float32] = handle
        return answer

    def _describe(self) -> dict[str, Any]:
        return {"device": "test", "threads": 1, "versions": {}}

    def _close(self, pending: list[Any]) -> None:
        pending.clear()


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle for 64-pixel pictures that judges by brightness; its threshold is 0.5."""

    def opened(_backend: str, _model: Path, *, precision: str, **_: Any) -> Engine:
        return Brightness(precision, (SIZE, SIZE))

    monkeypatch.setattr(engines, "open_engine", opened)
    empty = ("package", "input", "output", "calibration", "splits", "training", "metrics", "gate")
    kinds = (("int8", "model.int8.onnx"), ("fp32", "model.onnx"))
    manifest = {
        **{key: {} for key in (*empty, "latency_ms")},
        "created": "2026-11-22T20:00:00+00:00",
        "config": asdict(preset("nano", image_size=SIZE)),
        "engines": [{"backend": "openvino", "precision": p, "file": file} for p, file in kinds],
        "default": {"backend": "openvino", "precision": "int8"},
        "threshold": {"value": 0.5},
        "golden": {"file": "golden.npz"},
    }
    with BundleWriter(tmp_path / "bundle") as writer:
        for name in ("model.int8.onnx", "model.onnx", "golden.npz"):
            writer.path(name).write_bytes(b"x")
        return writer.commit(manifest)


def spot(level: int) -> tuple[Pixels, NDArray[np.bool_]]:
    mask = np.zeros((SIZE, SIZE), np.bool_)
    mask[8:24, 8:24] = True
    image = np.full((SIZE, SIZE, 3), 50, np.uint8)
    image[mask] = level
    return image, mask


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three good test pictures, one of them too bright; four defects, two of them too faint."""
    root = tmp_path / "cloth"
    for name in ("train/good", "test/good", "test/spot", "ground_truth/spot"):
        (root / name).mkdir(parents=True)
    write_png(root / "train/good/0.png", np.full((SIZE, SIZE, 3), 30, np.uint8))
    for name, level in GOOD.items():
        write_png(root / f"test/good/{name}.png", np.full((SIZE, SIZE, 3), level, np.uint8))
    for name, level in DEFECTIVE.items():
        image, mask = spot(level)
        write_png(root / f"test/spot/{name}.png", image)
        write_png(root / f"ground_truth/spot/{name}_mask.png", mask)
    return root


@pytest.fixture
def go(bundle: Path, data: Path, tmp_path: Path) -> Go:
    """The command on the two above; the sheet goes to sheet.png."""

    def run(*words: str, out: str = "sheet.png") -> int:
        where = [str(bundle), "--data", str(data), "--out", str(tmp_path / out)]
        return sheets.main([*where, *words])

    return run


def told(go: Go, tmp_path: Path, *words: str) -> dict[str, Any]:
    assert go("--json", str(tmp_path / "s.json"), *words) == 0
    report: dict[str, Any] = json.loads((tmp_path / "s.json").read_text())
    return report


def opened(path: Path) -> Pixels:
    return np.asarray(cv2.imread(str(path)))[..., ::-1]


def tile(sheet: Pixels, row: int, column: int, top: int) -> Pixels:
    x, y = corner(row, column, top)
    return sheet[y : y + TILE, x : x + TILE]


def test_the_json_agrees_with_evaluate(go: Go, bundle: Path, data: Path, tmp_path: Path) -> None:
    report = told(go, tmp_path)
    assert report["counts"] == {"hits": 2, "misses": 2, "false_rejects": 1}
    names = {k: [p["name"] for p in v] for k, v in report["pictures"].items()}
    assert names == {
        "hits": ["test/spot/2.png", "test/spot/1.png"],
        "misses": ["test/spot/3.png", "test/spot/0.png"],
        "false_rejects": ["test/good/1.png"],
    }
    assert report["shown"] == {**names, "nearest": ["test/good/2.png", "test/good/0.png"]}
    assert report["pictures"]["hits"][0]["score"] == pytest.approx(250 / 255)
    assert (report["surface"], report["precision"], report["threshold"]) == ("cloth", "int8", 0.5)
    where = tmp_path / "e.json"
    assert evaluate.main([str(bundle), "--data", str(data), "--json", str(where)]) == 0
    other = json.loads(where.read_text())
    assert report["counts"]["misses"] / report["defective"] == other["miss_rate"]
    assert report["counts"]["false_rejects"] / report["good"] == other["false_reject_rate"]
    for key in ("image_auroc", "bundle", "threshold", "notes", "good", "defective"):
        assert report[key] == other[key]


def test_another_precision_and_its_note(go: Go, tmp_path: Path) -> None:
    report = told(go, tmp_path, "--precision", "fp32")
    assert report["precision"] == "fp32"
    assert "frozen for int8" in report["notes"][0]


def test_tiles_stand_where_they_should(go: Go, tmp_path: Path) -> None:
    assert go() == 0
    sheet = opened(tmp_path / "sheet.png")
    band = Band("", "", [None] * 3)  # type: ignore[list-item]
    starts = tops([band] * 3)
    assert sheet.shape[0] == starts[-1] + sheet_drawing.MARGIN
    # Hits from the brightest, misses from the faintest, then false rejects.
    levels = ((250, 200), (90, 100), (140, 60, 40))
    for top, expected in zip(starts, levels, strict=False):
        for column, level in enumerate(expected):
            for row in (0, 1):
                middle = tile(sheet, row, column, top)[TILE // 4, TILE // 4]
                assert np.abs(middle.astype(int) - level).max() <= 3
            assert len(np.unique(tile(sheet, 2, column, top))) > 1
        assert (tile(sheet, 0, len(expected), top) == 255).all()
    gap = sheet[starts[0] + sheet_drawing.BAND_TITLE + 9, :, :].min(axis=1) == 255
    assert gap[: sheet_drawing.MARGIN].all()
    assert gap[sheet_drawing.MARGIN + TILE : sheet_drawing.MARGIN + TILE + 8].all()
    assert not gap[sheet_drawing.MARGIN]


def test_truth_and_findings_are_marked_on_the_second_tile_alone(go: Go, tmp_path: Path) -> None:
    assert go() == 0
    sheet = opened(tmp_path / "sheet.png")

    def has(colour: tuple[int, int, int], row: int, column: int, top: int) -> bool:
        return bool((tile(sheet, row, column, top) == colour).all(axis=2).any())

    hits, misses, wrong = tops([Band("", "", [None])] * 3)[:3]  # type: ignore[list-item]
    for row in range(3):
        assert has(heat.TRUTH_COLOUR, row, 0, misses) == (row == 1)
        assert not has(heat.DEFECT_COLOUR, row, 0, misses)
        assert has(heat.DEFECT_COLOUR, row, 0, hits) == (row == 1)
        assert has(heat.DEFECT_COLOUR, row, 0, wrong) == (row == 1)
        assert not has(heat.TRUTH_COLOUR, row, 0, wrong)


def test_without_false_rejects_the_nearest_good_ones_have_nothing_marked(
    go: Go, data: Path, tmp_path: Path
) -> None:
    (data / "test/good/1.png").unlink()
    report = told(go, tmp_path, "--each", "1")
    assert report["shown"]["false_rejects"] == []
    assert report["shown"]["nearest"] == ["test/good/2.png"]
    full = Band("", "", [None])  # type: ignore[list-item]
    starts = tops([full, full, Band("", "", full.columns, (0, 2))])
    sheet = opened(tmp_path / "sheet.png")
    assert sheet.shape[0] == starts[-1] + sheet_drawing.MARGIN
    assert np.abs(tile(sheet, 0, 0, starts[2]).astype(int) - 60).max() <= 3
    assert (tile(sheet, 1, 0, starts[2]) == heat.colours(np.float32([60 / 255]), 0.5)).all()


def test_a_band_without_pictures_is_its_title(go: Go, data: Path, tmp_path: Path) -> None:
    for name in ("0", "3"):
        (data / f"test/spot/{name}.png").unlink()
    assert told(go, tmp_path)["counts"]["misses"] == 0
    full = Band("", "", [None])  # type: ignore[list-item]
    starts = tops([full, Band("", "", []), full])
    assert starts[2] - starts[1] == sheet_drawing.BAND_TITLE
    assert opened(tmp_path / "sheet.png").shape[0] == starts[-1] + sheet_drawing.MARGIN


def refuse_work(*_: Any, **__: Any) -> Any:
    raise AssertionError("the engine was opened before the options were checked")


@pytest.mark.parametrize(
    ("out", "words", "wanted"),
    [
        ("sheet.png", ("--each", "0"), "--each 0"),
        ("sheet.png", ("--each", "17"), "1 to 16"),
        ("none/sheet.png", (), "no folder"),
        ("sheet.gif", (), "ends with .png"),
        (".", (), "ends with"),
        ("sheet.png", ("--json", "none/s.json"), "no folder"),
    ],
)
def test_wrong_options_cost_no_work(
    go: Go,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    out: str,
    words: tuple[str, ...],
    wanted: str,
) -> None:
    monkeypatch.setattr(engines, "open_engine", refuse_work)
    assert go(*words, out=out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert wanted in line


def test_a_folder_that_may_not_be_written_costs_no_work(
    go: Go, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engines, "open_engine", refuse_work)
    monkeypatch.setattr(sheets.os, "access", lambda *_: False)  # root may write everywhere
    assert go() == 2
    assert "may not be written to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("gone", "wanted"),
    [
        ("test/spot", "no defective test pictures"),
        ("test/good", "no good test pictures"),
        ("ground_truth/spot", "has no mask"),
        ("train", "train/good"),
    ],
)
def test_data_that_cannot_be_judged(
    go: Go, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], gone: str, wanted: str
) -> None:
    (data / gone).rename(tmp_path / "gone")
    assert go() == 2
    assert wanted in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "sheet.png").exists()


def test_no_bundle(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sheet.png"
    assert sheets.main([str(tmp_path / "none"), "--data", str(data), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error:")
    assert not out.exists()
