"""The gate: did INT8 cost more than it may? FP32 is the judge, metric by metric.

The rule. A metric has fallen short when it is worse by more than its limit on these images, and
either the interval (`calib.bootstrap`, each end holds with 95 %) lies above 0, so that other
images would show a loss as well, or it is worse by more than EXCUSABLE: chance may be the reason
of that too, but nobody should ship on that hope. Within EXCUSABLE, a loss whose interval holds 0
is passed as chance, and the verdict says so. Without an interval the limit alone decides.

A pass is not a proof. A metric counts as shown when the whole interval is within its limit: then
other images would pass too. What a small test set cannot show, the verdict names, with how much
worse INT8 may be for all that these images tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ndp_edge.calib.bootstrap import Interval
from ndp_edge.errors import InputError

AREAS = ("image_auroc", "pixel_auroc", "aupro")
"""Metrics where more is better: a drop counts."""

RATES = ("false_reject_rate", "miss_rate")
"""Metrics where less is better, counted in whole images: a rise counts."""

EXCUSABLE = 0.05
"""The largest loss that chance excuses."""

_ROUNDING = 1e-9
"""What float arithmetic may add to a drop that stands exactly at its limit."""


@dataclass(frozen=True)
class Verdict:
    """What the gate says.

    Attributes:
        passed: no metric that exists has fallen short.
        rows: one dict per metric: metric, fp32, int8, worse (how much worse INT8 is, negative
            when better, None when not judged), low, high (the interval of `worse`, None without
            one), limit, passed, shown (the interval is within the limit).
        reason: for the report: what fell short, or what was compared and what that shows.
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
    intervals: Mapping[str, Interval] | None = None,
) -> Verdict:
    """Compare two `metrics.summary` dicts of the same images at the same (frozen) threshold.

    The limit of an area's drop, or of a rate's rise, is `max_drop`; that of a rate is at least
    one image. What FP32 could not tell (None: no defects in the set) is not judged, and the
    reason says so. The rule is this module's docstring.

    Args:
        fp32, int8: image_auroc, pixel_auroc, aupro, false_reject_rate, miss_rate, each a
            number in [0, 1] or None.
        max_drop: at least 0.
        n_good, n_defective: how many images are behind the rates; None: the rate itself must
            stay within `max_drop`.
        name: the precision of `int8` as rows and sentences call it; "fp16" is judged likewise.
        intervals: metric -> interval of how much worse `int8` is.

    Raises:
        InputError: `max_drop` is negative or not a number, or no metric exists at all.
    """
    if not max_drop >= 0 or math.isinf(max_drop):
        raise InputError(f"max drop {max_drop}: wanted a number of at least 0, such as 0.005")
    known = intervals or {}
    rows = [_row(name, key, fp32, int8, max_drop, known.get(key)) for key in AREAS]
    for key, count in zip(RATES, (n_good, n_defective), strict=True):
        limit = max(max_drop, 1 / count) if count else max_drop
        rows.append(_row(name, key, fp32, int8, limit, known.get(key)))
    return conclude(rows, name)


def conclude(rows: list[dict[str, Any]], name: str) -> Verdict:
    """The verdict on rows, each with its own `passed` and `shown`.

    Raises:
        InputError: none of them is judged.
    """
    judged = [row for row in rows if row["passed"] is not None]
    if not judged:
        raise InputError("the gate has nothing to compare: neither model has a single metric")
    failed = [row for row in judged if not row["passed"]]
    return Verdict(not failed, rows, _reason(name, rows, failed))


def worse(fp32: Mapping[str, Any], int8: Mapping[str, Any]) -> dict[str, float]:
    """Metric -> how much worse `int8` is, for the metrics that both have as finite numbers."""
    found = {}
    for key in (*AREAS, *RATES):
        before, after = fp32.get(key), int8.get(key)
        if all(v is not None and math.isfinite(v) for v in (before, after)):
            assert before is not None and after is not None
            found[key] = (1 if key in AREAS else -1) * (float(before) - float(after))
    return found


def _row(
    name: str,
    key: str,
    fp32: Mapping[str, Any],
    int8: Mapping[str, Any],
    limit: float,
    interval: Interval | None,
) -> dict[str, Any]:
    """One metric's line. A number that turned into None or NaN has failed."""
    before, after = fp32.get(key), int8.get(key)
    lost = worse({key: before}, {key: after}).get(key)
    row: dict[str, Any] = {
        "metric": key,
        "fp32": before,
        name: after,
        "worse": lost,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "limit": limit,
    }
    if before is None and after is None:
        return {**row, "passed": None, "shown": None}
    shown = None if interval is None else lost is not None and not beyond(interval.high, limit)
    return {**row, "passed": lost is not None and not _short(lost, limit, interval), "shown": shown}


def beyond(lost: float, limit: float) -> bool:
    """Is a metric that is worse by `lost` worse by more than its limit?"""
    return lost > limit + _ROUNDING


def _short(lost: float, limit: float, interval: Interval | None) -> bool:
    """Has a metric that is worse by `lost` fallen short?"""
    if not beyond(lost, limit):
        return False
    return interval is None or interval.low > _ROUNDING or beyond(lost, EXCUSABLE)


def _reason(name: str, rows: list[dict[str, Any]], failed: list[dict[str, Any]]) -> str:
    if failed:
        return "; ".join(_complaint(name, row) for row in failed)
    judged = [row for row in rows if row["passed"] is not None]
    chance = [row for row in judged if beyond(row["worse"], row["limit"])]
    within = [_label(row) for row in judged if row not in chance]
    text = f"{name.upper()} is within its limits: {', '.join(within)}" if within else ""
    parts = [text] if text else []
    parts += [
        f"{_complaint(name, row)}, which these images cannot tell from chance" for row in chance
    ]
    absent = [_label(row) for row in rows if row["passed"] is None]
    if absent:
        parts.append(f"not judged, because these images cannot tell it: {', '.join(absent)}")
    return "; ".join([*parts, *_unshown(judged)])


def _unshown(judged: list[dict[str, Any]]) -> list[str]:
    """What a pass does not show, and how much worse INT8 may be."""
    open_ = [row for row in judged if row["shown"] is False]
    if not open_:
        return []
    named = ", ".join(f"{_label(row)} may be worse by up to {row['high']:.4f}" for row in open_)
    few = "not shown"
    if len(open_) == len(judged):
        few = "too few images to show that nothing was lost"
    return [f"{few}: {named}"]


def _label(row: Mapping[str, Any]) -> str:
    on = row.get("on")
    return f"{row['metric']} on {on}" if on else str(row["metric"])


def _complaint(name: str, row: dict[str, Any]) -> str:
    if row["worse"] is None:
        return f"{_label(row)} is {row[name]} in {name.upper()} and {row['fp32']} in FP32"
    way = "drops" if row["metric"] in AREAS else "rises"
    said = f"{_label(row)} {way} by {row['worse']:.4f}"
    if row.get("low") is not None:
        said += f" ({row['low']:.4f} to {row['high']:.4f})"
    return f"{said}, more than {row['limit']:.4f}"
