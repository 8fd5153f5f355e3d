"""The report's part on the gate: what a lower precision cost, with intervals, and the choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ndp_edge.calib.gate import EXCUSABLE, beyond
from ndp_edge.report_svg import DEFECT, GOOD, GRAY, INK, REJECT, WIDTH, line, svg, text
from ndp_edge.report_tables import KEYS, NONE, esc

Row = Mapping[str, Any]

EXPLAINED = (
    "Both precisions answered the same pictures. The interval tells how far off other pictures of "
    "this kind may be: each of its ends holds with 95 % (paired bootstrap over the pictures; false "
    "rejects and misses by a closed formula on the pictures that only one of both gets wrong). A "
    "figure falls short when it is worse by more than its limit here, and either its interval "
    f"lies above 0 or it is worse by more than {EXCUSABLE:g}; a smaller loss that chance explains "
    "passes, and is said. “Shown” means that the whole interval is within the limit: other "
    "pictures would pass too."
)
"""The rule of `calib.gate`, in plain words."""

ROW, NAMES, SPAN = 26, 190, (-1.5, 3.0)
"""Of the chart: pixels a row, pixels for names, and the limits that fit across."""


def row_name(row: Row) -> str:
    """A gate row's metric, and on what it was judged where that was not the test images."""
    known = KEYS.get(str(row["metric"]))
    name = known[0] if known else "Good scores moved"
    return f"{name}, {row['on']}" if row.get("on") else name


def said(row: Row) -> str:
    """A gate row's verdict in a word or three."""
    if row.get("passed") is None:
        return "not judged"
    if not row["passed"]:
        return "FELL SHORT"
    lost, limit = row.get("worse"), row.get("limit")
    if lost is not None and limit is not None and beyond(lost, limit):
        return "beyond, may be chance"
    shown = row.get("shown")
    return "within" if shown is None else "within, shown" if shown else "within, not shown"


def gate_section(report: Mapping[str, Any]) -> str:
    """Chart and table of the gate's rows, and one line per precision; empty without either."""
    gate: Row = report.get("gate") or {}
    rows: Sequence[Row] = gate.get("rows") or ()
    choices: Sequence[Row] = report.get("choices") or ()
    parts = [_choices(choices, report.get("judged_on"))] if len(choices) > 1 else []
    if rows:
        told = f"<h2>What the gate saw</h2><p>{esc(EXPLAINED)}</p>{_counts(gate)}{_pictures(gate)}"
        parts.append(f"{told}{_chart(rows)}{_table(rows)}")
    return "\n".join(f"<section>{part}</section>" for part in parts)


def _choices(choices: Sequence[Row], judged_on: str | None) -> str:
    lines = "".join(_choice(one) for one in choices)
    where = f"; timed on {esc(judged_on)}, which stands in here" if judged_on else ""
    return (
        f"<h2>Which precision here</h2><p>Median of a picture at batch 1, taking turns in one "
        f'pass{where}.</p><div class="scroll"><table><tr><th></th><th>ms</th><th>speed</th>'
        f"<th>gate</th><th></th></tr>{lines}</table></div>"
    )


def _choice(one: Row) -> str:
    passed = one["passed"]
    gate = "yardstick" if passed is None else "passed" if passed else "failed"
    kind = ' class="wrong"' if passed is False else ""
    slow = passed is not None and one["speed"] <= 1
    told = "in this bundle" if one["emitted"] else "not worth it here" if slow else ""
    return (
        f"<tr><td>{esc(one['name'])}</td><td>{one['ms']:.2f}</td><td>{one['speed']:.2f} x</td>"
        f"<td><span{kind}>{gate}</span></td><td>{told}</td></tr>"
    )


def _counts(gate: Row) -> str:
    images: Row = gate.get("images") or {}
    if not images:
        return ""
    told = f"Judged on {images['good']} good and {images['defective']} defective pictures"
    if images.get("artificial"):
        told += (
            f", and on {images['artificial']} artificial defects: there are no real ones here, and "
            "what INT8 costs on real ones these cannot show"
        )
    return f"<p>{told}.</p>"


def _pictures(gate: Row) -> str:
    """One sentence on the pictures that calibrated."""
    found: Row = gate.get("calibration") or {}
    if not found:
        return ""
    kind = "" if found["passed"] else ' class="wrong"'
    return f"<p><span{kind}>{esc(found['reason'])}.</span></p>"


def _table(rows: Sequence[Row]) -> str:
    low = next((key for key in rows[0] if key in ("int8", "fp16")), "int8")
    lines = "".join(_line(row, ("fp32", low, "worse")) for row in rows)
    names = ("", "FP32", low.upper(), "worse by", "interval", "limit", "verdict")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f'<div class="scroll"><table><tr>{head}</tr>{lines}</table></div>'


def _line(row: Row, keys: Sequence[str]) -> str:
    figures = "".join(f"<td>{_number(row.get(key))}</td>" for key in keys)
    kind = ' class="wrong"' if row.get("passed") is False else ""
    return (
        f"<tr><td>{esc(row_name(row))}</td>{figures}<td>{_span(row)}</td>"
        f"<td>{_number(row.get('limit'))}</td><td><span{kind}>{said(row)}</span></td></tr>"
    )


def _number(value: object) -> str:
    if not isinstance(value, (int, float)):
        return NONE
    return f"{value + 0.0:.5f}"


def _span(row: Row) -> str:
    if row.get("low") is None:
        return NONE
    return f"{row['low'] + 0.0:+.4f} to {row['high'] + 0.0:+.4f}"


def _chart(rows: Sequence[Row]) -> str:
    """Each loss and its interval in units of its limit, so that all share one axis."""
    shown = [row for row in rows if row.get("worse") is not None and row.get("limit")]
    if not shown:
        return ""
    first, last = SPAN
    bottom = ROW * len(shown)

    def across(value: float) -> float:
        share = (min(max(value, first), last) - first) / (last - first)
        return NAMES + 10 + share * (WIDTH - NAMES - 24)

    parts = [
        line(across(0), 0, across(0), bottom, GRAY),
        line(across(1), 0, across(1), bottom, REJECT, extra='stroke-dasharray="5 4"'),
        text(across(0), bottom + 16, "0: as FP32", size=11),
        text(across(1), bottom + 16, "limit", size=11, colour=REJECT),
    ]
    for i, row in enumerate(shown):
        y, unit = ROW * i + ROW / 2, float(row["limit"])
        excused = DEFECT if beyond(float(row["worse"]), unit) else GOOD
        colour = excused if row["passed"] else REJECT
        parts.append(text(NAMES, y + 4, row_name(row), anchor="end", size=11))
        if row.get("low") is not None:
            ends = (across(row["low"] / unit), y, across(row["high"] / unit), y)
            parts.append(line(*ends, INK, extra='stroke-width="2"'))
        x = across(float(row["worse"]) / unit)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>')
    picture = svg(parts, "what each figure lost, in units of its limit", bottom + 22)
    return f'<div class="two"><figure>{picture}</figure></div>'
