"""The stages' shares: through the command's door, with an engine of known slowness."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_edge.bench import pipeline_share
from ndp_edge.bundle import BundleWriter
from ndp_edge.engines.base import Engine
from ndp_edge.image import write_png
from ndp_edge.model.config import preset

SIZE = 64
SLOW, FAST = 0.060, 0.020
"""Seconds that the engines sleep: what the figures must show, whatever else the machine does."""


class Sleeper(Engine):
    """An engine whose time is known; its map is the picture's brightness."""

    name = "openvino"

    def _infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        time.sleep(SLOW if self.precision == "fp32" else FAST)
        maps: NDArray[np.float32] = images.mean(axis=3, dtype=np.float32) / np.float32(255)
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


def open_sleeper(_backend: str, _model: Path, *, precision: str, **_: Any) -> Engine:
    return Sleeper(precision, (SIZE, SIZE))


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pipeline_share, "open_engine", open_sleeper)
    empty = ("package", "input", "output", "calibration", "splits", "training", "metrics", "gate")
    manifest = {
        **{key: {} for key in (*empty, "latency_ms")},
        "created": "2026-11-25T20:00:00+00:00",
        "config": asdict(preset("nano", image_size=SIZE)),
        "engines": [
            {"backend": "openvino", "precision": "int8", "file": "model.int8.onnx"},
            {"backend": "openvino", "precision": "fp32", "file": "model.onnx"},
        ],
        "default": {"backend": "openvino", "precision": "int8"},
        "threshold": {"value": 0.5},
        "golden": {"file": "golden.npz"},
    }
    with BundleWriter(tmp_path / "bundle") as writer:
        for name in ("model.int8.onnx", "model.onnx", "golden.npz"):
            writer.path(name).write_bytes(b"x")
        return writer.commit(manifest)


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(3):
        image = np.full((2 * SIZE, 2 * SIZE, 3), 60 + 70 * index, np.uint8)
        write_png(folder / f"{index}.png", image)
    return folder


def test_the_stages_add_up_and_show_which_engine_is_slow(
    bundle: Path, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "share.json"
    options = ["--source", str(frames), "--frames", "8", "--json", str(out)]
    assert pipeline_share.main([str(bundle), *options]) == 0
    found = json.loads(out.read_text())
    assert list(found["precisions"]) == ["fp32", "int8"]
    for name, slept in (("fp32", SLOW), ("int8", FAST)):
        told = found["precisions"][name]
        assert set(told["stages"]) == set(pipeline_share.STAGES)
        assert sum(stage["share"] for stage in told["stages"].values()) == pytest.approx(
            1, abs=1e-3
        )
        assert told["stages"]["infer"]["p50"] >= 1e3 * slept
        assert told["total_ms"] >= told["stages"]["infer"]["p50"]
        assert all(stage["p50"] > 0 for stage in told["stages"].values())
    share = {name: told["stages"]["infer"]["share"] for name, told in found["precisions"].items()}
    assert share["fp32"] > share["int8"]
    assert (found["frames"], found["image_size"], found["source_size"]) == (8, 64, [128, 128])
    shown = capsys.readouterr().out
    assert "whole frame" in shown
    assert "INT8 ms" in shown
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("ndp-edge-share")]


def test_a_frame_that_is_none_is_one_line(
    bundle: Path, frames: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (frames / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert pipeline_share.main([str(bundle), "--source", str(frames), "--frames", "5"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(errors) == 1
    assert "1.png" in errors[0]


def test_too_few_frames_and_no_folder_are_refused(
    bundle: Path, frames: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pipeline_share.main([str(bundle), "--source", str(frames), "--frames", "2"]) == 2
    assert "at least 5" in capsys.readouterr().err
    assert pipeline_share.main([str(bundle), "--source", str(frames / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
