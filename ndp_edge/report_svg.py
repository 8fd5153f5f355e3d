"""The report's plots as SVG text: ROC curves, score histogram, latency distribution."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

GOOD, DEFECT, GRAY, INK, REJECT = "#2a9d8f", "#e07a1f", "#8a94a0", "#26323d", "#c81e1e"
PALETTE = ("#8a94a0", "#1d5fbf", "#7b3fb5", "#2a9d8f")
"""One colour per precision, FP32 (the yardstick) in gray."""

WIDTH, HEIGHT = 480, 320
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 14, 44
INNER_W, INNER_H = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def roc(scores: NDArray[Any], labels: NDArray[Any]) -> Curve:
    """False positive rates and true positive rates, both rising from 0 to 1.

    Equal scores move together, so the curve is exact. With one class missing its rate
    stays at 0, and nothing is drawn from it.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    sorted_scores = np.asarray(scores, np.float64)[order]
    hits = np.asarray(labels, np.bool_)[order]
    last = np.append(np.flatnonzero(np.diff(sorted_scores)), len(hits) - 1)
    true = np.cumsum(hits)[last] / max(1, int(hits.sum()))
    false = np.cumsum(~hits)[last] / max(1, int((~hits).sum()))
    return np.append(0.0, false), np.append(0.0, true)


def pixel_roc(maps: NDArray[np.float32], masks: NDArray[np.bool_], points: int = 400) -> Curve:
    """The ROC over all pixels, at `points` thresholds: exact at each, joined by lines.

    The thresholds are quantiles of the defective pixels and of the good ones, so that both
    ends of the curve are drawn finely.
    """
    hot, cold = maps[masks].ravel(), maps[~masks].ravel()
    if not len(hot) or not len(cold):
        return np.zeros(1), np.zeros(1)
    step = max(1, len(cold) // 200_000)
    tail = 1 - np.geomspace(1e-5, 1, points // 2)
    edges = np.unique(
        np.concatenate(
            [
                np.quantile(hot, np.linspace(0, 1, points // 2)),
                np.quantile(cold[::step], np.clip(tail, 0, 1)),
            ]
        )
    )
    curve = [_rate_above(part, edges) for part in (cold, hot)]
    return curve[0], curve[1]


def _rate_above(values: NDArray[np.float32], edges: NDArray[Any]) -> NDArray[np.float64]:
    bins = np.searchsorted(edges, values, side="left")  # number of edges below the value
    counts = np.bincount(bins, minlength=len(edges) + 1)
    above = np.cumsum(counts[::-1])[::-1][1:] / len(values)
    return np.concatenate([[0.0], above[::-1], [1.0]])


def text(
    x: float, y: float, content: str, *, anchor: str = "middle", colour: str = INK, size: int = 13
) -> str:
    """One line of text; its content is escaped here."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" '
        f'font-size="{size}">{html.escape(content)}</text>'
    )


def line(x1: float, y1: float, x2: float, y2: float, colour: str, *, extra: str = "") -> str:
    """A straight line; `extra` holds further attributes."""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" {extra}/>'


def svg(parts: Sequence[str], label: str, height: int = HEIGHT) -> str:
    """The whole picture, as wide as its column; `label` is read out by screen readers."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def _frame(
    x_label: str, y_label: str, x_ticks: Mapping[float, str], y_ticks: Mapping[float, str]
) -> list[str]:
    """Axes with ticks; tick keys are positions in [0, 1]."""
    parts = [f'<rect x="{LEFT}" y="{TOP}" width="{INNER_W}" height="{INNER_H}" fill="#fbfcfd"/>']
    for at, name in y_ticks.items():
        y = TOP + INNER_H * (1 - at)
        parts += [
            line(LEFT, y, LEFT + INNER_W, y, "#e3e8ec"),
            text(LEFT - 6, y + 4, name, anchor="end", size=12),
        ]
    for at, name in x_ticks.items():
        x = LEFT + INNER_W * at
        parts += [
            line(x, TOP + INNER_H, x, TOP + INNER_H + 4, GRAY),
            text(x, TOP + INNER_H + 17, name, size=12),
        ]
    parts.append(line(LEFT, TOP + INNER_H, LEFT + INNER_W, TOP + INNER_H, GRAY))
    parts.append(text(LEFT + INNER_W / 2, HEIGHT - 8, x_label))
    middle = TOP + INNER_H / 2
    parts.append(f'<g transform="rotate(-90 14 {middle:.0f})">{text(14, middle + 4, y_label)}</g>')
    return parts


_RATE_TICKS = {0.0: "0", 0.25: "0.25", 0.5: "0.5", 0.75: "0.75", 1.0: "1"}


def roc_plot(
    curves: Mapping[str, Curve], label: str, areas: Mapping[str, float | None], mark: Curve | None
) -> str:
    """ROC curves, one per precision; `mark` is where the frozen threshold stands."""
    parts = _frame(
        "good ones rejected" if mark else "good pixels marked",
        "defects found" if mark else "defect pixels found",
        _RATE_TICKS,
        _RATE_TICKS,
    )
    parts.append(
        line(LEFT, TOP + INNER_H, LEFT + INNER_W, TOP, "#c9d1d8", extra='stroke-dasharray="3 4"')
    )
    for number, (name, (false, true)) in enumerate(curves.items()):
        points = " ".join(
            f"{LEFT + INNER_W * x:.1f},{TOP + INNER_H * (1 - y):.1f}"
            for x, y in zip(false, true, strict=True)
        )
        colour = PALETTE[number % len(PALETTE)]
        dash = ' stroke-dasharray="6 4"' if number else ""
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"{dash}/>'
        )
        area = areas.get(name)
        legend = name.upper() + (f"  {area:.4f}" if area is not None else "")
        y = TOP + INNER_H - 14 - 20 * (len(curves) - 1 - number)
        parts.append(
            line(
                LEFT + INNER_W - 156,
                y - 4,
                LEFT + INNER_W - 126,
                y - 4,
                colour,
                extra=f'stroke-width="3"{dash}',
            )
        )
        parts.append(text(LEFT + INNER_W - 118, y, legend, anchor="start"))
    if mark is not None:
        x, y = LEFT + INNER_W * mark[0][0], TOP + INNER_H * (1 - mark[1][0])
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="none" stroke="{REJECT}" '
            'stroke-width="2.5"/>'
        )
        parts.append(text(x + 12, y + 18, "threshold", anchor="start", colour=REJECT))
    return svg(parts, label)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def histogram_plot(scores: NDArray[Any], labels: NDArray[Any], threshold: float) -> str:
    """Scores of good and defective pictures with the threshold; logarithmic when they span it."""
    values, hits = np.asarray(scores, np.float64), np.asarray(labels, np.bool_)
    low, high = float(values.min()), float(values.max())
    log = low > 0 and high / low > 30 and threshold > 0
    scale: Callable[[Any], Any] = np.log10 if log else np.asarray
    if not log:
        low = min(0.0, low)
    low, high = min(low, threshold), max(high, threshold)
    start, end = float(scale(low)), float(scale(high))
    end = end if end > start else start + 1.0
    end += 0.02 * (end - start)
    edges = np.linspace(start, end, 37)
    counts = [np.histogram(scale(values[part]), edges)[0] for part in (~hits, hits)]
    tallest = max(1, *(int(count.max()) for count in counts))

    def across(value: float) -> float:
        return (float(scale(value)) - start) / (end - start)

    ticks = [10.0**k for k in range(math.ceil(start), math.floor(end) + 1)] if log else []
    if len(ticks) < 2:
        ticks = [t for t in nice_ticks(low, high) if not log or t > 0]
    y_ticks = {t / tallest: f"{t:g}" for t in nice_ticks(0, tallest, 4) if t == int(t)}
    parts = _frame(
        "score (logarithmic)" if log else "score",
        "pictures",
        {across(t): f"{t:g}" for t in ticks if 0 <= across(t) <= 1},
        y_ticks,
    )
    width = INNER_W / len(counts[0])
    for side, (count, colour) in enumerate(zip(counts, (GOOD, DEFECT), strict=True)):
        for index, number in enumerate(count):
            if number:
                tall = INNER_H * int(number) / tallest
                x = LEFT + width * (index + side / 2)
                parts.append(
                    f'<rect x="{x:.1f}" y="{TOP + INNER_H - tall:.1f}" '
                    f'width="{width / 2 - 0.5:.1f}" height="{tall:.1f}" fill="{colour}"/>'
                )
    x = LEFT + INNER_W * across(threshold)
    dashed = 'stroke-width="2" stroke-dasharray="5 4"'
    parts.append(line(x, TOP, x, TOP + INNER_H, REJECT, extra=dashed))
    right = across(threshold) < 0.6
    parts.append(
        text(
            x + (7 if right else -7),
            TOP + 14,
            f"threshold {threshold:.4g}",
            anchor="start" if right else "end",
            colour=REJECT,
        )
    )
    return svg(parts, "Scores of good and defective pictures with the threshold")


def latency_plot(times: Mapping[str, Sequence[float]]) -> str:
    """One strip per precision: how often each latency occurred, with p50, p95 and p99."""
    row = 92
    height = TOP + row * len(times) + BOTTOM
    everything = np.concatenate([np.asarray(t, np.float64) for t in times.values()])
    high = float(np.quantile(everything, 0.995)) * 1.12
    edges = np.linspace(0, high, 97)
    parts = []
    bottom = TOP + row * len(times)
    for tick in nice_ticks(0, high):
        x = LEFT + INNER_W * tick / high
        parts += [line(x, TOP, x, bottom, "#e3e8ec"), text(x, bottom + 17, f"{tick:g}", size=12)]
    for number, (name, values) in enumerate(times.items()):
        base = TOP + row * (number + 1) - 8
        colour = PALETTE[number % len(PALETTE)]
        parts += [
            line(LEFT, base, LEFT + INNER_W, base, GRAY),
            text(LEFT - 6, base - 18, name.upper(), anchor="end"),
        ]
        counts = np.histogram(np.minimum(values, high), edges)[0]
        width = INNER_W / len(counts)
        for index, count in enumerate(counts):
            if count:
                tall = (row - 40) * int(count) / int(counts.max())
                parts.append(
                    f'<rect x="{LEFT + width * index:.1f}" y="{base - tall:.1f}" '
                    f'width="{width:.1f}" height="{tall:.1f}" fill="{colour}"/>'
                )
        p50, p95, p99 = (float(np.percentile(values, p)) for p in (50, 95, 99))
        for value in (p50, p95, p99):
            x = LEFT + INNER_W * min(value / high, 1)
            parts.append(line(x, base - row + 34, x, base, INK, extra='stroke-dasharray="2 3"'))
        note = f"p50 {p50:.2f}   p95 {p95:.2f}   p99 {p99:.2f} ms   (n {len(values)})"
        x = LEFT + INNER_W * min(p50 / high, 1)
        right = x < LEFT + INNER_W / 5  # the note takes most of the width
        parts.append(
            text(
                x if right else LEFT + INNER_W,
                base - row + 28,
                note,
                anchor="start" if right else "end",
                size=12,
            )
        )
    parts.append(text(LEFT + INNER_W / 2, height - 8, "ms per picture, batch 1"))
    return svg(parts, "Distribution of latencies", height)
