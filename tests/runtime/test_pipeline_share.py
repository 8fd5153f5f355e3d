"""The stages' shares: through the command's door, with an engine of known slowness."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_edge.bench import pipeline_share
from ndp_edge.engines.base import Engine
from ndp_edge.image import write_png

SIZE = 64
SLOW, FAST = 0.060, 0.020
"""Seconds that the engines sleep: what the figures must show, whatever else the machine does."""


@pytest.fixture(autouse=True)
def sleepers(kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines whose times are known."""

    class Sleeper(kit.Brightness):  # type: ignore[misc, name-defined]
        def _infer(self, images: NDArray[np.uint8]) -> Any:
            time.sleep(SLOW if self.precision == "fp32" else FAST)
            return super()._infer(images)

    def open_sleeper(_backend: str, _model: Path, *, precision: str, **_: Any) -> Engine:
        engine: Engine = Sleeper(precision, (SIZE, SIZE))
        return engine

    monkeypatch.setattr(pipeline_share, "open_engine", open_sleeper)


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
