"""The measuring part of a build: engines side by side, thresholds, scores, gate, golden maps.

Two thresholds, and why. The bundle's threshold is the emitted engine's own: the conformal
promise holds for scores that come from the same engine as the scores behind the threshold,
so an INT8 engine gets one from its INT8 scores of the threshold images. The gate does not use
that one: it puts FP32 and INT8 to FP32's threshold, frozen, because an own threshold would
hide a shift of all INT8 scores, and a shift is what careless calibration does.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge import golden, metrics
from ndp_edge.build_inputs import Judged
from ndp_edge.data.folder import load_images
from ndp_edge.data.splits import Splits
from ndp_edge.engines import available, open_engine
from ndp_edge.engines.base import Engine
from ndp_edge.golden import Golden, engine_key
from ndp_edge.scoring import Answers, answer, rates
from ndp_edge.threshold import Threshold, conformal_threshold

REPORT_KEYS = ("image_auroc", "pixel_auroc", "aupro", "false_reject_rate", "miss_rate", "threshold")


@dataclass(frozen=True)
class Measured:
    """What the engines of one backend answered; every mapping goes from precision to value.

    Attributes:
        answers: on the judged images.
        quiet: scores of the threshold split's good images.
        thresholds: each engine's own conformal threshold.
        metrics: the report keys of DESIGN section 8 at the engine's own threshold.
        frozen: the accuracy keys at FP32's threshold; what the gate compares.
        described: `Engine.describe()`.
        golden: a few judged images and each engine's maps.
        tolerances: engine key -> what a replay may differ by.
    """

    answers: dict[str, Answers]
    quiet: dict[str, NDArray[np.float32]]
    thresholds: dict[str, Threshold]
    metrics: dict[str, dict[str, Any]]
    frozen: dict[str, dict[str, Any]]
    described: dict[str, dict[str, Any]]
    golden: Golden
    tolerances: dict[str, dict[str, float]]


def measure(
    backend: str, models: Mapping[str, Path], splits: Splits, judged: Judged, rate: float
) -> Measured:
    """Run every model (precision -> ONNX, "fp32" among them) of one backend in one pass.

    Args:
        backend: as `engines.open_engine` knows it.
        models: precision -> file.
        splits: its threshold split gives the thresholds.
        judged: what is scored and timed.
        rate: the false-reject rate to aim at; the threshold split must carry it.
    """
    size = judged.images.shape[1]
    with ExitStack() as stack:
        engines: dict[str, Engine] = {
            precision: stack.enter_context(open_engine(backend, model, precision=precision))
            for precision, model in models.items()
        }
        described = {precision: _describe(engine) for precision, engine in engines.items()}
        quiet = answer(engines, load_images(splits.threshold, size), "threshold")
        thresholds = {p: conformal_threshold(a.scores, rate) for p, a in quiet.items()}
        answers = quiet if judged.split == "threshold" else answer(engines, judged.images, "score")
        kept = golden.pick(answers["fp32"].scores, judged.labels)
        images = judged.images[kept]
        maps = {engine_key(backend, p): golden.record(e, images) for p, e in engines.items()}
    fp32 = maps[engine_key(backend, "fp32")]
    frozen = {p: _accuracy(a, judged, thresholds["fp32"].value) for p, a in answers.items()}
    own = {
        # The areas know no threshold: only the rates differ from the frozen ones.
        p: frozen[p]
        | rates(a.scores, judged.labels, thresholds[p].value)
        | {"latency_ms": a.latency, "precision": p, "backend": backend}
        | {"device": described[p].get("device", "unknown")}
        for p, a in answers.items()
    }
    tolerances = {key: golden.tolerance(m, fp32) for key, m in maps.items()}
    scores = {p: a.scores for p, a in quiet.items()}
    found = Golden(images, maps)
    return Measured(answers, scores, thresholds, own, frozen, described, found, tolerances)


def _describe(engine: Engine) -> dict[str, Any]:
    """`Engine.describe()` with the backend's version as `verify` will read it again."""
    told = engine.describe()
    versions = {**told.get("versions", {}), engine.name: available()[engine.name]}
    return {**told, "versions": versions}


def _accuracy(answers: Answers, judged: Judged, threshold: float) -> dict[str, Any]:
    found = metrics.summary(
        answers.scores, judged.labels, answers.smoothed, judged.masks, threshold
    )
    return {key: found[key] for key in REPORT_KEYS}


def low_precision(measured: Measured) -> str | None:
    """The precision that stands against FP32: "int8" or "fp16"; None where FP32 is alone."""
    return next((precision for precision in measured.frozen if precision != "fp32"), None)


def judge(measured: Measured, judged: Judged, max_drop: float) -> dict[str, Any]:
    """The gate's verdict as a dict: passed, reason, rows, max_drop, threshold.

    Without a lower precision there is nothing to compare: passed, and the reason says so.
    """
    low = low_precision(measured)
    if low is None:
        reason = "FP32 only: no lower precision to compare"
        return {"passed": True, "reason": reason, "rows": [], "max_drop": max_drop}
    from ndp_edge.calib.gate import judge as compare

    verdict = compare(
        measured.frozen["fp32"],
        measured.frozen[low],
        max_drop,
        n_good=int(np.sum(judged.labels == 0)) or None,
        n_defective=int(np.sum(judged.labels == 1)) or None,
        name=low,
    )
    return {
        "passed": bool(verdict.passed),
        "reason": verdict.reason,
        "rows": [dict(row) for row in verdict.rows],
        "max_drop": max_drop,
        "frozen_threshold": measured.thresholds["fp32"].value,
    }


def speed_up(measured: Measured) -> float | None:
    """Median FP32 time over the lower precision's median, both from the same pass."""
    low = low_precision(measured)
    if low is None:
        return None
    return float(np.median(measured.answers["fp32"].ms) / np.median(measured.answers[low].ms))
