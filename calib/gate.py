"""The gate: did INT8 cost more than it may? FP32 is the judge, metric by metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ndp_edge.errors import InputError

AREAS = ("image_auroc", "pixel_auroc", "aupro")
"""Metrics where more is better: a drop counts."""

RATES = ("false_reject_rate", "miss_rate")
"""Metrics where less is better, counted in whole images: a rise counts."""

_ROUNDING = 1e-9
"""What float arithmetic may add to a drop that stands exactly at its limit."""


@dataclass(frozen=True)
class Verdict:
    """What the gate says.

    Attributes:
        passed: every metric that exists is within its limit.
        rows: one dict per metric: metric, fp32, int8, worse (how much worse INT8 is, negative
            when better, None when not judged), limit, passed.
        reason: one sentence for the report: what fell short, or what was compared.
    """

    passed: bool
    rows: list[dict[str, Any]] = field(default_factory=list)
    reason: str = ""


def judge(
    fp32: Mapping[str, Any],
    int8: Mapping[str, Any],
    max_drop: float,
    *,
    n_good: int | None = None,
    n_defective: int | None = None,
    name: str = "int8",
) -> Verdict:
    """Compare two `metrics.summary` dicts of the same images at the same (frozen) threshold.

    A drop of an area, or a rise of a rate, may be at most `max_drop`; a rate may always rise
    by one image. What FP32 could not tell (None: no defects in the set) is not judged, and
    the reason says so.

    Args:
        fp32, int8: image_auroc, pixel_auroc, aupro, false_reject_rate, miss_rate, each a
            number in [0, 1] or None.
        max_drop: at least 0.
        n_good, n_defective: how many images are behind the rates; None: the rate itself must
            stay within `max_drop`.
        name: the precision of `int8` as rows and sentences call it; "fp16" is judged likewise.

    Raises:
        InputError: `max_drop` is negative or not a number, or no metric exists at all.
    """
    if not max_drop >= 0 or math.isinf(max_drop):
        raise InputError(f"max drop {max_drop}: wanted a number of at least 0, such as 0.005")
    rows = [_row(name, key, fp32.get(key), int8.get(key), max_drop, sign=1) for key in AREAS]
    for key, count in zip(RATES, (n_good, n_defective), strict=True):
        limit = max(max_drop, 1 / count) if count else max_drop
        rows.append(_row(name, key, fp32.get(key), int8.get(key), limit, sign=-1))
    judged = [row for row in rows if row["passed"] is not None]
    if not judged:
        raise InputError("the gate has nothing to compare: neither model has a single metric")
    failed = [row for row in judged if not row["passed"]]
    return Verdict(not failed, rows, _reason(name, rows, failed))


def _row(
    name: str, key: str, before: Any, after: Any, limit: float, *, sign: int
) -> dict[str, Any]:
    """One metric's line. A number that turned into None or NaN has failed."""
    row: dict[str, Any] = {"metric": key, "fp32": before, name: after}
    if before is None and after is None:
        return {**row, "worse": None, "limit": limit, "passed": None}
    known = all(v is not None and math.isfinite(v) for v in (before, after))
    worse = sign * (float(before) - float(after)) if known else None
    passed = worse is not None and worse <= limit + _ROUNDING
    return {**row, "worse": worse, "limit": limit, "passed": passed}


def _reason(name: str, rows: list[dict[str, Any]], failed: list[dict[str, Any]]) -> str:
    if failed:
        return "; ".join(_complaint(name, row) for row in failed)
    judged = [row["metric"] for row in rows if row["passed"] is not None]
    absent = [row["metric"] for row in rows if row["passed"] is None]
    text = f"{name.upper()} is within its limits: {', '.join(judged)}"
    if absent:
        text += f"; not judged, because these images cannot tell it: {', '.join(absent)}"
    return text


def _complaint(name: str, row: dict[str, Any]) -> str:
    if row["worse"] is None:
        return f"{row['metric']} is {row[name]} in {name.upper()} and {row['fp32']} in FP32"
    way = "drops" if row["metric"] in AREAS else "rises"
    return f"{row['metric']} {way} by {row['worse']:.4f}, more than {row['limit']:.4f}"
