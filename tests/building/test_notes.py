"""What a build tells beside its figures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ndp_edge.build_report import outlier_notes
from ndp_edge.data.folder import Sample
from ndp_edge.threshold import conformal_threshold


def _told(scores: np.ndarray, rate: float) -> list[str]:
    samples = [Sample(Path(f"{i}.png"), f"{i}.png", 0, "good", None) for i in range(len(scores))]
    threshold = conformal_threshold(scores, rate)
    measured: Any = SimpleNamespace(quiet={"int8": scores}, thresholds={"int8": threshold})
    splits: Any = SimpleNamespace(threshold=samples)
    return outlier_notes(measured, splits, "int8")


def test_a_picture_that_holds_the_threshold_up_is_named() -> None:
    scores = np.append(np.linspace(0.3, 0.5, 149), 0.92).astype(np.float32)
    (note,) = _told(scores, 0.01)
    assert "149.png (0.920)" in note
    assert "--target-false-reject" in note


def test_one_that_the_threshold_already_leaves_out_is_not() -> None:
    scores = np.append(np.linspace(0.3, 0.5, 149), 0.92).astype(np.float32)
    assert _told(scores, 0.05) == []
    assert _told(np.linspace(0.3, 0.5, 150).astype(np.float32), 0.01) == []
