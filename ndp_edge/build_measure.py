"""The measuring part of a build: engines side by side, thresholds, scores, golden maps.

Two thresholds, and why. The bundle's threshold is the emitted engine's own: the conformal
promise holds for scores that come from the same engine as the scores behind the threshold,
so an INT8 engine gets one from its INT8 scores of the threshold images. The gate does not use
that one: it puts FP32 and INT8 to FP32's threshold, frozen, because an own threshold would
hide a shift of all INT8 scores, and a shift is what careless calibration does.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from ndp_edge.calib.artificial import TuneSet

STAND_IN_SEED = 1 << 20
"""Added to the split's seed: the gate's artificial defects are drawn otherwise than the tune
split's."""

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
        defects: artificial defects on the judged good images, where no judged image has a real
            one (and a lower precision is to be judged); else None.
        artificial: answers on `defects`; empty without.
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
    defects: TuneSet | None = None
    artificial: dict[str, Answers] = field(default_factory=dict)


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
        defects = _stand_in(judged, splits.seed) if len(models) > 1 else None
        artificial = {} if defects is None else answer(engines, defects.images, "artificial")
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
    return Measured(
        answers, scores, thresholds, own, frozen, described, found, tolerances, defects, artificial
    )


def _stand_in(judged: Judged, seed: int) -> TuneSet | None:
    """Artificial defects for a gate that has no real ones.

    On the images that are judged, and drawn with another seed than the tune split's: what chose
    a calibration method or a layer does not judge it.
    """
    if judged.labels.any():
        return None
    from ndp_edge.calib.artificial import MOST_GOOD, make_tune_set

    count = len(judged.images)
    spread = np.linspace(0, count - 1, min(MOST_GOOD, count)).round().astype(int)
    return make_tune_set(judged.images[spread], seed + STAND_IN_SEED)


def again(measured: Measured, backend: str, model: Path, judged: Judged, low: str) -> Measured:
    """`measured` with the answers of another model in the place of those of `low`.

    Enough for the gate, at half the time of `measure`: thresholds, golden maps and the metrics at
    an engine's own threshold stay those of the model before.
    """
    with open_engine(backend, model, precision=low) as engine:
        found = answer({low: engine}, judged.images, "score")
        artificial = dict(measured.artificial)
        if measured.defects is not None:
            artificial |= answer({low: engine}, measured.defects.images, "artificial")
    frozen = _accuracy(found[low], judged, measured.thresholds["fp32"].value)
    return replace(
        measured,
        answers=measured.answers | found,
        frozen=measured.frozen | {low: frozen},
        artificial=artificial,
    )


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


def lower(measured: Measured) -> list[str]:
    """The precisions that stand against FP32: "int8", "fp16" or both; [] where FP32 is alone."""
    return [precision for precision in measured.frozen if precision != "fp32"]


def speed_up(measured: Measured, precision: str) -> float:
    """Median FP32 time over the median of `precision`, both from the same pass."""
    fp32, low = (np.median(measured.answers[p].ms) for p in ("fp32", precision))
    return float(fp32 / low)
