"""The gate of a build: what was measured, with intervals, under `calib.gate`'s rule.

Where there are no defective test images, artificial ones stand in: on the good images that are
judged, made here and used for nothing else. They show what INT8 costs on marks like those that
the net was trained with; what it costs on real defects they do not show, and the verdict says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ndp_edge import metrics
from ndp_edge.build_inputs import Judged
from ndp_edge.build_measure import Measured
from ndp_edge.scoring import Answers

if TYPE_CHECKING:
    from ndp_edge.calib.artificial import TuneSet
    from ndp_edge.calib.gate import Verdict

ARTIFICIAL = "artificial defects"
AGREEMENT = 0.25
"""Largest root mean squared difference of good images' scores, as a share of the way from
FP32's median score to its threshold; --max-drop where that is more."""


def judge(
    measured: Measured, judged: Judged, max_drop: float, precision: str, seed: int = 0
) -> dict[str, Any]:
    """The gate's verdict as a dict: passed, reason, rows, max_drop, frozen_threshold, images.

    Args:
        measured: FP32 and the lower precision, on the same images.
        judged: these images.
        max_drop: see `calib.gate.judge`.
        precision: the one to judge.
        seed: of the bootstrap.
    """
    threshold = measured.thresholds["fp32"].value
    verdict = _verdict(
        measured.answers, measured.frozen, judged, threshold, max_drop, precision, seed
    )
    rows = [dict(row) for row in verdict.rows]
    passed, reason = bool(verdict.passed), verdict.reason
    if measured.defects is not None:
        from ndp_edge.calib import gate

        # `passed` stands whatever the artificial ones say: they can only add failures.
        rows = [row for row in rows if row.get("passed") is not None]
        rows += [
            _agreement(measured, precision, max_drop),
            *_artificial(measured, measured.defects, max_drop, precision, seed),
        ]
        both = gate.conclude(rows, precision)
        passed, reason = passed and both.passed, _said(both.reason, passed, reason)
    return {
        "passed": passed,
        "reason": reason,
        "rows": rows,
        "max_drop": max_drop,
        "frozen_threshold": threshold,
        "images": {
            "good": int(np.sum(judged.labels == 0)),
            "defective": int(np.sum(judged.labels == 1)),
            "artificial": 0 if measured.defects is None else int(measured.defects.labels.sum()),
        },
    }


def with_pictures(verdict: dict[str, Any], pictures: dict[str, Any]) -> dict[str, Any]:
    """`judge`'s verdict and that of `build_pictures` on what calibrated: both must pass."""
    found = {**verdict, "calibration": pictures}
    if pictures["passed"]:
        return found
    reasons = [pictures["reason"]] if verdict["passed"] else [verdict["reason"], pictures["reason"]]
    return {**found, "passed": False, "reason": "; ".join(reasons)}


def _said(both: str, passed: bool, reason: str) -> str:
    said = both if passed else f"{reason}; {both}"
    return f"{said}; there are no defective images: {ARTIFICIAL} stood in for them"


def _verdict(
    answers: Mapping[str, Answers],
    figures: Mapping[str, Mapping[str, Any]],
    images: Judged | TuneSet,
    threshold: float,
    max_drop: float,
    precision: str,
    seed: int,
) -> Verdict:
    """`calib.gate`'s verdict on one set of images, with intervals.

    Args:
        answers, figures: precision -> what it said, and its accuracy at the threshold.
        images: labels and masks of what was answered.
    """
    from ndp_edge.calib import gate
    from ndp_edge.calib.bootstrap import Side, intervals

    fp32, low = (Side(answers[p].scores, answers[p].smoothed) for p in ("fp32", precision))
    both = figures["fp32"], figures[precision]
    known = intervals(
        fp32, low, images.labels, images.masks, threshold, worse=gate.worse(*both), seed=seed
    )
    return gate.judge(
        *both,
        max_drop,
        n_good=int(np.sum(images.labels == 0)) or None,
        n_defective=int(np.sum(images.labels == 1)) or None,
        name=precision,
        intervals=known,
    )


def _artificial(
    measured: Measured, defects: TuneSet, max_drop: float, precision: str, seed: int
) -> list[dict[str, Any]]:
    """Rows of the artificial defects, all but their false rejects: those are judged on more."""
    threshold = measured.thresholds["fp32"].value

    def summary(answers: Answers) -> dict[str, Any]:
        found = metrics.summary(
            answers.scores, defects.labels, answers.smoothed, defects.masks, threshold
        )
        return {**found, "false_reject_rate": None}

    figures = {p: summary(measured.artificial[p]) for p in ("fp32", precision)}
    verdict = _verdict(measured.artificial, figures, defects, threshold, max_drop, precision, seed)
    rows = [dict(row) for row in verdict.rows if row.get("passed") is not None]
    return [{**row, "on": ARTIFICIAL} for row in rows]


def _agreement(measured: Measured, precision: str, max_drop: float) -> dict[str, Any]:
    """How far good images' scores move, measured by the room below the threshold."""
    before, after = measured.answers["fp32"].scores, measured.answers[precision].scores
    moved = metrics.rms(after, before)
    room = measured.thresholds["fp32"].value - float(np.median(before))
    share = moved / room if room > 0 else 0.0 if moved == 0 else float("inf")
    return {
        "metric": "score_difference",
        "fp32": 0.0,
        precision: share,
        "worse": share,
        "low": None,
        "high": None,
        "limit": max(AGREEMENT, max_drop),
        "passed": share <= max(AGREEMENT, max_drop),
        "shown": None,
        "on": "good images",
    }
