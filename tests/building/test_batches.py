"""--batch: other batch sizes are timed, and must answer as batch 1 does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_edge import build_batches
from ndp_edge.build_batches import parse_batches, try_batches
from ndp_edge.errors import GateError, InputError
from ndp_edge.postprocess import smooth_max

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)


class Gray:
    """An engine whose answer drifts by `drift` once the batch is larger than one."""

    def __init__(self, drift: float) -> None:
        self.drift = drift

    def __enter__(self) -> Gray:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def infer(self, images: np.ndarray) -> np.ndarray:
        maps = images.mean(axis=3, dtype=np.float32) / np.float32(255)
        return maps + np.float32(self.drift * (len(images) > 1))


def _try(monkeypatch: pytest.MonkeyPatch, drift: float, *batches: int) -> list[dict[str, Any]]:
    monkeypatch.setattr(build_batches, "open_engine", lambda *_, **__: Gray(drift))
    _, scores = smooth_max(Gray(0).infer(IMAGES))
    return try_batches(
        "openvino", Path("x"), "int8", IMAGES, scores, batches=batches, tolerance=0.01
    )


def test_each_size_above_one_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    told = _try(monkeypatch, 0.0, 1, 2, 8)
    assert [t["batch"] for t in told] == [2, 8]
    assert all(t["difference"] == 0 and t["ms"] >= t["ms_per_image"] for t in told)
    assert _try(monkeypatch, 0.0, 1) == []


@pytest.mark.parametrize("drift", [0.02, float("nan")])
def test_a_batch_that_answers_otherwise_is_refused(
    monkeypatch: pytest.MonkeyPatch, drift: float
) -> None:
    with pytest.raises((GateError, InputError)):
        _try(monkeypatch, drift, 4)


@pytest.mark.parametrize("text", ["", "0", "1,x", "-2", "1000", "1.5"])
def test_senseless_batches_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--batch"):
        parse_batches(text)


def test_batches_are_read_in_order_and_once() -> None:
    assert parse_batches("8,1,8") == (1, 8)


def test_target_is_for_cross_building_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ndp_edge.build import main

    assert main(["--int8", "--target", "sm86", "--out", str(tmp_path / "b")]) == 2
    assert "tensorrt-rtx" in capsys.readouterr().err
