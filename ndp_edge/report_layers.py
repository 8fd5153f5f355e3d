"""The report's part on what INT8 costs layer by layer, and on the layers left in float."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ndp_edge.calib.fallback import say
from ndp_edge.console import counted
from ndp_edge.report_svg import GRAY, INK, LEFT, REJECT, WIDTH, line, svg, text
from ndp_edge.report_tables import esc, figure_cells

Layers = Sequence[Mapping[str, Any]]

CHARTED = 12
"""Layers in the chart and in the unfolded table."""

BAR, GAP = 16, 6
NAMES = 170
"""Pixels for a layer's name, left of its bar."""

COLUMNS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "map_rms": "maps off FP32 (RMS)",
}


def sensitivity_section(report: Mapping[str, Any]) -> str:
    """Chart and table of `calib.sensitivity`, and the attempts of the fall-back; or nothing."""
    found: Mapping[str, Any] = report.get("sensitivity") or {}
    layers: Layers = found.get("layers") or ()
    if not layers:
        return ""
    fallback: Mapping[str, Any] = report.get("fallback") or {}
    back = set(fallback.get("float") or ())
    return (
        "<section><h2>What INT8 costs, layer by layer</h2><p>Each layer alone back in float, all "
        f"others in int8, on {found['pictures']} pictures: good ones of the tune split and "
        "artificial defects on them. A layer's share is how much of the maps' mean squared "
        "difference from FP32 goes away with it; shares need not add up to one.</p>"
        f'<div class="two"><figure>{_chart(layers, back)}</figure><div>{_fallback(fallback)}</div>'
        f"</div>{_table(found, layers, back)}</section>"
    )


def _fallback(fallback: Mapping[str, Any]) -> str:
    """What was tried, one line each, and what it cost."""
    attempts: Layers = fallback.get("attempts") or ()
    if not attempts:
        return ""
    lines = "".join(
        f"<li>{counted(one['convolutions'], 'convolution')}, reading "
        f"{esc(', '.join(one['layers']))}: "
        f"{'passed' if one['passed'] else 'failed, ' + esc(one['reason'])}</li>"
        for one in attempts
    )
    told = (
        f"<h3>The way back</h3><p>The gate failed with everything in int8: "
        f"{esc(fallback.get('reason', ''))}. Then layers went back to float, the costliest first; "
        f"the gate was asked {counted(len(attempts), 'time')}.</p>"
        f"<ol>{lines}</ol>"
    )
    if not fallback.get("float"):
        return (
            told + '<p class="wrong">No attempt passed: the fault is not in a few layers. Look at '
            "the calibration pictures.</p>"
        )
    slower = fallback["ms"] / fallback["whole_ms"]
    return (
        f"{told}<p>Cost: {fallback['whole_ms']:.2f} to {fallback['ms']:.2f} ms a picture, "
        f"{slower:.2f} times the time of INT8 throughout; FP32 takes {fallback['fp32_ms']:.2f} ms."
        "</p>"
    )


def _chart(layers: Layers, back: set[str]) -> str:
    shown = layers[:CHARTED]
    largest = max((max(0.0, float(layer["gain"])) for layer in shown), default=0.0) or 1.0
    left, parts = NAMES + 8, []
    room = WIDTH - left - LEFT
    for i, layer in enumerate(shown):
        top, gain = i * (BAR + GAP), float(layer["gain"])
        width = room * max(0.0, gain) / largest
        colour = REJECT if back & set(layer["convolutions"]) else GRAY
        parts += [
            text(NAMES, top + 13, str(layer["name"]), anchor="end", size=12),
            f'<rect x="{left}" y="{top}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>',
            text(left + width + 5, top + 13, f"{100 * gain:.1f} %", anchor="start", size=12),
        ]
    height = len(shown) * (BAR + GAP)
    parts.append(line(left, 0, left, height - GAP, INK))
    return svg(parts, "share of the maps' difference from FP32 that each layer brings", height)


def _table(found: Mapping[str, Any], layers: Layers, back: set[str]) -> str:
    """FP32, INT8 throughout, and INT8 without each layer; the costliest ones unfolded."""
    rows = [_row("FP32", "", found.get("fp32") or {}), _row("INT8", "", found.get("int8") or {})]
    for layer in layers:
        name = f"{say(layer)}{', in float' * bool(back & set(layer['convolutions']))}"
        rows.append(_row(name, f"{100 * float(layer['gain']):.1f} %", layer))
    head = "".join(f"<th>{name}</th>" for name in ("back in float", "share", *COLUMNS.values()))
    first, rest = rows[: CHARTED + 2], rows[CHARTED + 2 :]
    more = (
        f"<details><summary>{len(rest)} more layers</summary>{_scroll(head, rest)}</details>"
        if rest
        else ""
    )
    return f"{_scroll(head, first)}{more}"


def _scroll(head: str, rows: Sequence[str]) -> str:
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _row(name: str, share: str, figures: Mapping[str, Any]) -> str:
    cells = figure_cells(figures, COLUMNS)
    return f'<tr><td class="wide">{esc(name)}</td><td>{share}</td>{cells}</tr>'
