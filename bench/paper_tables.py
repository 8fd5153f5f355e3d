"""What `bench.paper` found, as rows of cells: for the terminal, the report and the README."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ndp_edge.bench.published import METHODS, NDP_MS, PLACES
from ndp_edge.bench.saved import Latency

Rows = list[list[str]]


def latency_rows(measured: Sequence[Latency]) -> Rows:
    """Headings, the paper's row, then what was measured, slowest first."""
    rows = [["net", "device", "runtime", "ms", "paper's 28.746 in it", "from"]]
    rows.append(["NDP-Net", "V100", "not named", f"{NDP_MS}", "1.00", "the paper, IV-B3"])
    for one in sorted(measured, key=lambda row: -row.ms):
        ms, factor = f"{one.ms:.1f}", f"{NDP_MS / one.ms:.2f}"
        rows.append([one.net, one.device, one.runtime, ms, factor, one.source])
    return rows


def published_rows() -> Rows:
    """Headings and every method of the paper's tables: its place in time, its accuracies."""
    rows = [["method", "time (Fig. 11, as the text puts it)", "image AUROC", "pixel AUROC", "PRO"]]
    for method in METHODS:
        place = f"{NDP_MS} ms on a V100" if method.name == "NDP-Net" else PLACES[method.place]
        figures = (method.image, method.pixel, method.pro)
        shown = ["-" if value is None else f"{value:.2f}" for value in figures]
        rows.append([method.name, place, *shown])
    return rows


def calibration_rows(found: dict[str, Any]) -> Rows:
    """Headings, then each runtime: processor time of one thread, and its share of the roofline."""
    rows = [["net", "runtime", "ms of one core", "of the roofline", "95 %"]]
    for net in found["nets"]:
        for row in net["measured"]:
            part = row["efficiency"]
            low, high = (f"{100 * part[end]:.0f}" for end in ("low", "high"))
            shown = f"{row['cpu_ms']['point']:.1f}", f"{100 * part['point']:.0f} %"
            rows.append([net["preset"], row["name"], *shown, f"{low} to {high} %"])
    return rows


def reading_rows(found: dict[str, Any]) -> Rows:
    """Headings, then the V100 under each reading of the paper."""
    rows = [["", "V100, FP32", "GFLOP", "efficiency of", "ms", f"against {NDP_MS}"]]
    for row in found["v100"]["readings"]:
        ms = "-" if row["ms"] is None else f"{row['ms']:.1f}"
        error = "-" if row["error"] is None else f"{100 * row['error']:+.0f} %"
        rows.append([row["label"], row["name"], f"{row['gflop']:g}", row["runtime"], ms, error])
    return rows


def check_line(found: dict[str, Any]) -> str:
    """Whether the V100 row meets the goal, in a sentence."""
    check = found["v100"]
    if check["ms"] is None:
        return "V100: not checked without torch, whose eager mode the paper is taken to have used"
    verdict = "within" if check["within_goal"] else "outside"
    return (
        f"V100 as the paper's text runs it: {check['ms']:.1f} ms predicted, {check['paper_ms']} "
        f"published, {100 * check['error']:+.0f} %: {verdict} the goal of "
        f"{100 * check['goal']:.0f} %"
    )


def predicted_rows(net: dict[str, Any]) -> Rows:
    """Headings and one line per device and precision; each is labelled."""
    rows = [["", "device", "precision", "ms", "ms at the V100's share", "held by", "datasheet"]]
    for row in net["predictions"]:
        held = max(row["held_by"], key=lambda name: row["held_by"][name])
        sure = "remembered" if row["datasheet_sure"] else "unsure"
        times = [_ms(row["ms"]), _ms(row["ms_at_v100_efficiency"])]
        rows.append([row["label"], row["device"], row["precision"].upper(), *times, held, sure])
    return rows


def _ms(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
