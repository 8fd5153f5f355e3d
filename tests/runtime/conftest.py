"""What run and evaluate are tested with: an engine that calls bright pixels defective."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_edge import engines, run
from ndp_edge.bundle import BundleWriter
from ndp_edge.engines.base import Engine
from ndp_edge.image import write_png
from ndp_edge.model.config import preset

SIZE = 64
THRESHOLD = 0.5


class Brightness(Engine):
    """An engine that calls bright pixels defective, and answers NaN to a black frame."""

    name = "openvino"

    def _infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        maps: NDArray[np.float32] = images.mean(axis=3, dtype=np.float32) / np.float32(255)
        dark = (images.max(axis=(1, 2, 3)) == 1) & (images.min(axis=(1, 2, 3)) == 1)
        maps[dark] = np.nan
        return maps

    def _submit(self, images: NDArray[np.uint8]) -> Any:
        return self._infer(images)

    def _collect(self, handle: Any) -> NDArray[np.float32]:
        answer: NDArray[np.float32] = handle
        return answer

    def _describe(self) -> dict[str, Any]:
        return {"device": "test", "threads": 1, "versions": {}}

    def _close(self, pending: list[Any]) -> None:
        pending.clear()


def open_brightness(_backend: str, _model: Path, *, precision: str, **_: Any) -> Engine:
    return Brightness(precision, (SIZE, SIZE))


def make_bundle(out: Path, threshold: float | dict[str, Any] = THRESHOLD, **changes: Any) -> Path:
    empty = ("package", "input", "output", "calibration", "splits", "training", "metrics", "gate")
    manifest = {
        **{key: {} for key in (*empty, "latency_ms")},
        "created": "2026-11-22T20:00:00+00:00",
        "config": asdict(preset("nano", image_size=SIZE)),
        "engines": [
            {"backend": "openvino", "precision": "int8", "file": "model.int8.onnx"},
            {"backend": "openvino", "precision": "fp32", "file": "model.onnx"},
        ],
        "default": {"backend": "openvino", "precision": "int8"},
        "threshold": threshold if isinstance(threshold, dict) else {"value": threshold},
        "golden": {"file": "golden.npz"},
        **changes,
    }
    with BundleWriter(out) as writer:
        for name in ("model.int8.onnx", "model.onnx", "golden.npz"):
            writer.path(name).write_bytes(b"x")
        return writer.commit(manifest)


def frame(bright: int = 0) -> NDArray[np.uint8]:
    """Gray, with a bright block of `bright` rows and twice as many columns."""
    image = np.full((SIZE, SIZE, 3), 60, np.uint8)
    image[10 : 10 + bright, 20 : 20 + 2 * bright] = 204
    return image


def go(bundle: Path, folder: Path, out: Path, *more: str) -> int:
    return run.main([str(bundle), "--source", str(folder), "--out", str(out), *more])


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


@pytest.fixture
def kit() -> SimpleNamespace:
    """The functions above, for test files that cannot import this one."""
    return SimpleNamespace(
        Brightness=Brightness,
        open_brightness=open_brightness,
        make_bundle=make_bundle,
        frame=frame,
        go=go,
        lines=lines,
        file=Path(__file__),
    )


@pytest.fixture(autouse=True)
def brightness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "open_engine", open_brightness)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "frames"
    (root / "b").mkdir(parents=True)
    write_png(root / "b" / "2.png", frame())
    write_png(root / "a.png", frame(bright=8))
    write_png(root / "c.png", frame())
    (root / "notes.txt").write_text("no picture")
    (root / ".hidden.png").write_bytes(b"")
    return root
