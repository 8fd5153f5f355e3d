"""The gate's question about the calibration itself: is what it saw good product?

A calibration on noise, on defects or on another product can go unnoticed by figures: its ranges
are wrong by chance or not at all, and a small test set does not tell. FP32's scores of the
pictures do tell (`calib.pictures`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ndp_edge.threshold import Threshold

NAMED = 5
"""Pictures that a sentence names."""


def judge_pictures(calibration: Mapping[str, Any], threshold: Threshold) -> dict[str, Any]:
    """The verdict on the calibration pictures.

    Args:
        calibration: of `build_calibrate.quantise`: scores (picture -> FP32's score), pool (how
            many pictures they were chosen from).
        threshold: FP32's, as frozen.

    Returns:
        passed; rejected (names, highest score first), of (pictures), limit (how many chance
        explains) and reason (a sentence). The pictures that differ most are the ones chosen, so
        the law is asked about the whole pool: all of its rejects may be among them.
    """
    from ndp_edge.calib.pictures import FALSE_ALARM, most_by_chance

    scores: Mapping[str, float] = calibration["scores"]
    above = {name: score for name, score in scores.items() if score > threshold.value}
    rejected = sorted(above, key=lambda name: -above[name])
    limit = most_by_chance(int(calibration["pool"]), threshold.n, threshold.rank)
    passed = len(rejected) <= limit
    said = f"FP32 rejects {len(rejected)} of {len(scores)} calibration pictures"
    odds = f"{round(1 / FALSE_ALARM)}"
    if passed:
        reason = f"{said}; chance explains up to {limit}"
    else:
        named = ", ".join(f"{name} ({above[name]:.3f})" for name in rejected[:NAMED])
        more = f" and {len(rejected) - NAMED} more" if len(rejected) > NAMED else ""
        reason = (
            f"{said}, and chance alone rejects more than {limit} in fewer than one build of "
            f"{odds}: {named}{more}; they are not the good product that the threshold rests on"
        )
    return {
        "passed": passed,
        "rejected": rejected,
        "of": len(scores),
        "limit": limit,
        "reason": reason,
    }
