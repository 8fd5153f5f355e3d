"""What a build says at its end, for a terminal: the figures, what INT8 cost, what was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ndp_edge.build_measure import speed_up
from ndp_edge.build_work import Work
from ndp_edge.console import table
from ndp_edge.engines.trt_report import say_convolutions
from ndp_edge.report_gate import row_name, said


def summary_table(work: Work) -> str:
    """FP32 against INT8, one line per figure, for a terminal."""
    measured = work.measured
    names = list(measured.metrics)
    rows: list[list[str]] = [["", *(n.upper() for n in names)]]
    for key, label in (
        ("image_auroc", "image AUROC"),
        ("pixel_auroc", "pixel AUROC"),
        ("aupro", "AUPRO"),
    ):
        rows.append([label, *(_figure(measured.metrics[n][key]) for n in names)])
    for key, label in (("false_reject_rate", "false rejects"), ("miss_rate", "misses")):
        if len(names) > 1:
            cells = (_percent(measured.frozen[n][key]) for n in names)
            rows.append([f"{label}, frozen threshold", *cells])
        cells = (_percent(measured.metrics[n][key]) for n in names)
        rows.append([f"{label}, own threshold", *cells])
    rows.append(["threshold, own", *(_figure(measured.thresholds[n].value) for n in names)])
    where = f", {work.judged_on} here" if work.judged_on else ""
    times = (f"{measured.metrics[n]['latency_ms']['p50']:.2f}" for n in names)
    rows.append([f"ms p50{where}", *times])
    if len(names) > 1 and not work.judged_on:
        speeds = (f"{speed_up(measured, n):.2f} x" for n in names)
        rows.append(["speed", *speeds])
    for told in work.batches:
        figures = [f"{told['ms_per_image']:.2f}" if n == work.emitted else "" for n in names]
        rows.append([f"ms per picture, batch {told['batch']}", *figures])
    share = work.int8_share()
    if share is not None:
        shares = [f"{100 * share:.1f} %" if n == work.emitted else "" for n in names]
        rows.append(["convolution time in int8", *shares])
    for built in work.built:
        rows.append([built.file, *("" for _ in names[1:]), say_convolutions(built.layers)])
    return "\n".join([table(rows), *_choices(work), *_intervals(work.gate), _verdict(work)])


def _verdict(work: Work) -> str:
    word = "passed" if work.gate["passed"] else "FAILED"
    return f"gate: {word} - {work.gate['reason']}"


def _choices(work: Work) -> list[str]:
    """A line per precision where layers went to float: the table above has no column for it."""
    if not work.fallback.get("float"):
        return []
    rows = [["", "ms", "speed", "gate"]]
    for one in work.choices():
        word = {None: "", True: "passed", False: "FAILED"}[one["passed"]]
        rows.append([one["name"], f"{one['ms']:.2f}", f"{one['speed']:.2f} x", word])
    return ["", table(rows), ""]


def _intervals(gate: Mapping[str, Any]) -> list[str]:
    """How much worse the lower precision is, metric by metric, from where to where."""
    judged = [row for row in gate["rows"] if row.get("passed") is not None and "worse" in row]
    if not judged:
        return []
    rows = [["gate", "worse by", "from", "to", "limit", ""]]
    for row in judged:
        figures = (row["worse"], row.get("low"), row.get("high"))
        signed = ("-" if v is None else f"{v + 0.0:+.4f}" for v in figures)
        rows.append([row_name(row), *signed, f"{row['limit']:.4f}", said(row)])
    return [table(rows), "each end of an interval holds with 95 %"]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"
