"""The body of report.html: verdict, samples, plots; the tables come from report_tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ndp_edge import report_samples, report_svg
from ndp_edge.report_calibration import calibration_section
from ndp_edge.report_gate import gate_section
from ndp_edge.report_layers import sensitivity_section
from ndp_edge.report_tables import (
    KEYS,
    TINY,
    Pair,
    Report,
    compare,
    engines_section,
    esc,
    layers_section,
    metrics_section,
    origin_section,
    raw_section,
    show_change,
    show_value,
    times_as_fast,
)

if TYPE_CHECKING:
    from ndp_edge.report import Evidence, Pictures

WEAK_AUROC, WEAK_MISSES = 0.9, 0.2
"""Below this AUROC or above this share of missed defects the page says so at the top."""


def title(report: Report) -> str:
    """The page's title, escaped."""
    return esc(report.get("title") or "ndp-edge report")


def body(report: Report, pictures: Pictures) -> str:
    """Everything inside <main>."""
    parts = [
        _head(report),
        _verdict(report),
        _notes(report),
        gate_section(report),
        metrics_section(report),
        report_samples.section(pictures.samples, _threshold(report)),
        _plots(report, pictures.evidence),
        sensitivity_section(report),
        layers_section(pictures.layers),
        engines_section(pictures.engines),
        calibration_section(report),
        origin_section(report),
        raw_section(report),
    ]
    return "\n".join(part for part in parts if part)


def _threshold(report: Report) -> float | None:
    value = (report.get("threshold") or {}).get("value")
    return None if value is None else float(value)


def _head(report: Report) -> str:
    parts = [report.get("backend"), report.get("device"), report.get("created")]
    sub = " · ".join(esc(part) for part in parts if part)
    return f'<header><h1>{title(report)}</h1><p class="sub">{sub}</p></header>'


def _verdict(report: Report) -> str:
    gate = report.get("gate") or {}
    pair = compare(report)
    word, kind = "No gate", ""
    if gate and (pair or not gate.get("passed")):
        name = esc(pair.shipped.upper()) if pair else ""
        word, kind = ("passed", "passed") if gate.get("passed") else ("failed", "failed")
        word = f"{name} gate {word}" if name else f"Gate {word}"
    cost = f"<p>{_cost(pair)}</p>" if pair else ""
    tiles = "".join(
        f'<div class="tile"><b>{value}</b><span>{name}</span></div>'
        for value, name in _tiles(report)
    )
    return (
        f'<section class="verdict {kind}"><div class="word">{word}</div>'
        f"<p>{esc(gate.get('reason') or '')}</p>{cost}{_weakness(report)}"
        f'<div class="tiles">{tiles}</div>{_promise(report)}</section>'
    )


def _weakness(report: Report) -> str:
    """A gate compares precisions: it may pass a detector that was never any good."""
    shipped = _shipped(report)
    auroc, missed = shipped.get("image_auroc"), shipped.get("miss_rate")
    if (auroc is None or auroc >= WEAK_AUROC) and (missed is None or missed <= WEAK_MISSES):
        return ""
    told = []
    if missed is not None:
        told.append(f"it misses {100 * missed:.0f} % of the defects")
    if auroc is not None:
        told.append(f"its image AUROC is {auroc:.3f} (0.5 is guessing)")
    return f'<p class="wrong">The detector itself is weak: {", ".join(told)}.</p>'


def _shipped(report: Report) -> Report:
    metrics: Mapping[str, Report] = report.get("metrics") or {}
    named = metrics.get(str(report.get("precision")))
    return named or (list(metrics.values()) or [{}])[-1]


def _cost(pair: Pair) -> str:
    """One sentence: what the lower precision cost, and what it brought."""
    costs = [
        f"{show_change(key, pair)} {name}"
        for key, (name, _) in KEYS.items()
        if pair.base.get(key) is not None
        and pair.other.get(key) is not None
        and abs(pair.other[key] - pair.base[key]) >= TINY
    ]
    what = ", ".join(costs) if costs else "no change in any figure below"
    factor = times_as_fast(pair)
    faster = f" It is <b>{factor:.2f} times as fast</b>." if factor else ""
    return f"{esc(pair.shipped.upper())} against {esc(pair.first.upper())}: {what}.{faster}"


def _tiles(report: Report) -> list[tuple[str, str]]:
    shipped = _shipped(report)
    tiles = [
        (show_value(key, shipped[key]), KEYS[key][0])
        for key in KEYS
        if shipped.get(key) is not None
    ]
    p50 = (shipped.get("latency_ms") or {}).get("p50")
    return [*tiles, (f"{p50:.2f} ms", "median per picture")] if p50 else tiles


def _promise(report: Report) -> str:
    info = report.get("threshold") or {}
    if info.get("value") is None:
        return ""
    text = (
        f"Threshold <b>{float(info['value']):.5g}</b>: a picture is rejected when its score is "
        "above it."
    )
    if info.get("target") is not None:
        text += (
            f" Promise: at most <b>{100 * float(info['target']):.3g} %</b> of good pictures are "
            "rejected on average, as long as the line keeps making pictures like the "
            f"{esc(info.get('n', '?'))} good ones behind it ({esc(info.get('method', ''))})."
        )
    return f"<p>{text}</p>"


def _notes(report: Report) -> str:
    notes = "".join(f"<li>{esc(note)}</li>" for note in report.get("notes") or ())
    return (
        f'<section class="notes"><h2>Good to know</h2><ul>{notes}</ul></section>' if notes else ""
    )


def _plots(report: Report, evidence: Mapping[str, Evidence]) -> str:
    metrics = report.get("metrics") or {}
    both = {n: e for n, e in evidence.items() if 0 < int(np.sum(e.labels)) < len(e.labels)}
    threshold = _threshold(report)
    figures = []
    if evidence and threshold is not None:
        name, last = list(evidence.items())[-1]
        plot = report_svg.histogram_plot(last.scores, last.labels, threshold)
        key = _legend({"good": report_svg.GOOD, "defective": report_svg.DEFECT})
        figures.append(_figure(f"Scores, {name.upper()}", key + plot))
    if both:
        curves = {n: report_svg.roc(e.scores, e.labels) for n, e in both.items()}
        mark = _mark(list(both.values())[-1], threshold)
        areas = {n: metrics.get(n, {}).get("image_auroc") for n in both}
        plot = report_svg.roc_plot(curves, "ROC over pictures", areas, mark)
        figures.append(_figure("ROC over pictures", plot))
    pixels = {
        n: report_svg.pixel_roc(e.maps, e.masks)
        for n, e in both.items()
        if e.maps is not None and e.masks is not None and e.masks.any()
    }
    if pixels:
        areas = {n: metrics.get(n, {}).get("pixel_auroc") for n in pixels}
        plot = report_svg.roc_plot(pixels, "ROC over pixels", areas, None)
        figures.append(_figure("ROC over pixels", plot))
    times = {name: list(e.latencies_ms) for name, e in evidence.items() if len(e.latencies_ms)}
    if times:
        figures.append(_figure("Latency", report_svg.latency_plot(times)))
    if not figures:
        return ""
    plots = "".join(figures)
    return f'<section><h2>Separation and latency</h2><div class="two">{plots}</div></section>'


def _mark(evidence: Evidence, threshold: float | None) -> report_svg.Curve | None:
    if threshold is None:
        return None
    rejected = np.asarray(evidence.scores, np.float64) > threshold
    bad = np.asarray(evidence.labels, np.bool_)
    rates = (float(rejected[part].mean()) for part in (~bad, bad))
    false, true = (np.asarray([rate]) for rate in rates)
    return false, true


def _figure(caption: str, content: str) -> str:
    return f"<figure><figcaption>{esc(caption)}</figcaption>{content}</figure>"


def _legend(colours: Mapping[str, str]) -> str:
    items = "".join(f'<span><i style="color:{c}"></i>{esc(n)}</span>' for n, c in colours.items())
    return f'<div class="key">{items}</div>'
