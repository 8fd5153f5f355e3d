"""Charts as SVG text: horizontal bars, with an interval where there is one."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ndp_edge.bench.saved import Latency
from ndp_edge.report_svg import GRAY, INK, line, nice_ticks, text

MEASURED, PREDICTED, PUBLISHED = "#1d5fbf", "#a9c4ec", "#e07a1f"
ROW, NAME_WIDTH, WIDTH, VALUE_WIDTH = 24, 400, 960, 150
TOP, BOTTOM = 30, 42


class Bar(NamedTuple):
    """One bar.

    Attributes:
        name: in front of it.
        value: positive, in the chart's unit.
        colour: of the bar.
        low, high: an interval, drawn as a line; None for none.
        told: the text behind the bar; the value when empty.
    """

    name: str
    value: float
    colour: str
    low: float | None = None
    high: float | None = None
    told: str = ""


def bars(
    rows: Sequence[Bar], unit: str, *, mark: tuple[float, str] | None = None, log: bool = False
) -> str:
    """The chart; its axis begins at 0, or is logarithmic where values span orders.

    Args:
        rows: at least one, from top to bottom.
        unit: under the axis.
        mark: a value to compare with and its name, drawn as a dashed line.
        log: a logarithmic axis.
    """
    values = [v for bar in rows for v in (bar.value, bar.high) if v]
    high = max([*values, mark[0] if mark else 0.0]) * (1.25 if log else 1.02)
    low = min([*values, mark[0] if mark else math.inf]) / 1.6 if log else 0.0
    inner, height = WIDTH - NAME_WIDTH - VALUE_WIDTH, TOP + ROW * len(rows) + BOTTOM

    def across(value: float) -> float:
        if log:
            return NAME_WIDTH + inner * math.log(max(value, low) / low) / math.log(high / low)
        return NAME_WIDTH + inner * value / high

    parts, bottom = [], height - BOTTOM
    for tick in _ticks(low, high, log):
        x = across(tick)
        parts += [line(x, TOP, x, bottom, "#e3e8ec"), text(x, bottom + 16, f"{tick:g}", size=11)]
    labels = []
    for index, bar in enumerate(rows):
        y = TOP + ROW * index
        end = across(bar.value)
        labels.append(text(NAME_WIDTH - 8, y + 16, bar.name, anchor="end", size=12))
        parts.append(
            f'<rect x="{NAME_WIDTH}" y="{y + 4}" width="{max(1.0, end - NAME_WIDTH):.1f}" '
            f'height="{ROW - 8}" fill="{bar.colour}"/>'
        )
        if bar.low is not None and bar.high is not None:
            ends = across(bar.low), y + ROW / 2, across(bar.high), y + ROW / 2
            parts.append(line(*ends, INK, extra='stroke-width="2"'))
            end = max(end, across(bar.high))
        told = bar.told or _short(bar.value)
        labels.append(text(end + 6, y + 16, told, anchor="start", size=12))
    if mark:
        x = across(mark[0])
        parts.append(line(x, TOP - 6, x, bottom, PUBLISHED, extra='stroke-dasharray="5 4"'))
        labels.append(text(x, TOP - 12, mark[1], colour=PUBLISHED, size=12))
    parts += labels
    parts.append(text(WIDTH - 4, bottom + 34, unit, anchor="end", colour=GRAY, size=11))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{html.escape(unit)}" font-family="sans-serif">{"".join(parts)}</svg>'
    )


def _ticks(low: float, high: float, log: bool) -> list[float]:
    if not log:
        return nice_ticks(0, high)
    steps = [m * 10.0**k for k in range(-4, 6) for m in (1, 3)]
    return [step for step in steps if low <= step <= high]


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def paper_chart(found: dict[str, Any], measured: Sequence[Latency]) -> str:
    """What `bench.paper` found: the paper's figure, what was measured, predictions for others.

    A prediction is a range: from the CPU's efficiency to the one the paper's figure implies.
    """
    paper = found["paper"]["ms"]
    rows = [Bar("V100: the paper's own figure", paper, PUBLISHED, told=f"{paper} published")]
    several = len({one.device for one in measured}) > 1
    for one in sorted(measured, key=lambda row: -row.ms):
        name = f"{one.net.partition('/')[0]}, {one.runtime}"  # a peer's row names its runtime, too
        rows.append(
            Bar(f"{one.device}: {name}" if several else name, one.ms, MEASURED, one.low, one.high)
        )
    for net in found["nets"]:
        for row in net["predictions"]:
            name = f"{row['device']}: {net['preset']}, {row['precision'].upper()}"
            low, high = sorted((row["ms"], row["ms_at_v100_efficiency"]))
            told = f"{_short(low)} to {_short(high)} predicted"
            rows.append(Bar(name, low, PREDICTED, low, high, told))
    unit = "ms per 256 x 256 image, batch 1 (logarithmic)"
    if measured and not several:
        unit += f"; measured on {measured[0].device}"
    return bars(rows, unit, mark=(paper, f"{paper} ms"), log=True)
