"""The tables of report.html: figures, layers, origin. Every text is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ndp_edge.console import json_text
from ndp_edge.engines.trt_report import say_convolutions

if TYPE_CHECKING:
    from ndp_edge.types import Layer

Report = Mapping[str, Any]

RATES = ("false_reject_rate", "miss_rate")
KEYS = {
    "image_auroc": ("Image AUROC", True),
    "pixel_auroc": ("Pixel AUROC", True),
    "aupro": ("AUPRO", True),
    "false_reject_rate": ("False rejects", False),
    "miss_rate": ("Missed defects", False),
}
"""Report key -> (what the page calls it, whether more is better)."""

NONE = "-"
SHARED = ("backend", "device")
TINY = 5e-5
"""Changes below half the last digit shown count as none."""

MOST_LAYERS = 15


def esc(value: object) -> str:
    """Any value as text that is safe inside an element or a quoted attribute."""
    return html.escape(str(value))


class Pair(NamedTuple):
    """Two precisions to compare: names and report keys of the yardstick and the shipped one."""

    first: str
    base: Report
    shipped: str
    other: Report


def compare(report: Report) -> Pair | None:
    """FP32 and the shipped precision, when the report has both."""
    metrics = report.get("metrics") or {}
    first = "fp32" if "fp32" in metrics else next(iter(metrics), "")
    others = [name for name in metrics if name != first]
    if not others:
        return None
    # A bundle that fell back to FP32 still shows what the other precision would have cost.
    shipped = str(report.get("precision"))
    other = shipped if shipped in others else others[-1]
    return Pair(first, metrics[first], other, metrics[other])


def times_as_fast(pair: Pair, part: str = "p50") -> float | None:
    """How often the shipped precision fits into the yardstick's time."""
    slow, fast = ((m.get("latency_ms") or {}).get(part) for m in (pair.base, pair.other))
    return float(slow / fast) if slow and fast else None


def show_change(key: str, pair: Pair) -> str:
    """What the shipped precision changed in one figure, coloured by whether that is good."""
    before, after = pair.base.get(key), pair.other.get(key)
    if before is None or after is None:
        return NONE
    change = after - before if abs(after - before) >= TINY else 0.0
    shown = f"{100 * change:+.2f} pp" if key in RATES else f"{change:+.4f}"
    if not change:
        return f"<span>{shown}</span>"
    return f'<span class="{"better" if (change > 0) == KEYS[key][1] else "worse"}">{shown}</span>'


def show_value(key: str, value: Any) -> str:
    """A figure as text: rates in percent, a dash where it is undefined."""
    if value is None:
        return NONE
    return f"{100 * value:.2f} %" if key in RATES else f"{value:.4f}"


def figure_cells(figures: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Table cells of measured figures to five digits; a dash for what there is none of."""
    values = (figures.get(key) for key in keys)
    shown = (f"{value:.5f}" if isinstance(value, float) else NONE for value in values)
    return "".join(f"<td>{cell}</td>" for cell in shown)


def metrics_section(report: Report) -> str:
    """All report keys, one column per precision."""
    metrics: Mapping[str, Report] = report.get("metrics") or {}
    if not metrics:
        return ""
    every, pair = list(metrics.values()), compare(report)
    rows = []
    for key, (name, _) in KEYS.items():
        last = show_change(key, pair) if pair else None
        rows.append(_row(name, [show_value(key, m.get(key)) for m in every], last))
    last = "" if pair else None
    rows.append(_row("Threshold", [show_value("", m.get("threshold")) for m in every], last))
    rows += _latency_rows(every, pair)
    rows += [_shared_row(key, [m.get(key, NONE) for m in every], last) for key in SHARED]
    head = "".join(f"<th>{esc(name.upper())}</th>" for name in metrics)
    head += "<th>change</th>" if pair else ""
    table = f'<div class="scroll"><table><tr><th></th>{head}</tr>{"".join(rows)}</table></div>'
    return f"<section><h2>Accuracy and speed</h2>{table}</section>"


def _latency_rows(every: Sequence[Report], pair: Pair | None) -> list[str]:
    rows = []
    for part in ("p50", "p95", "p99", "mean"):
        times = [(m.get("latency_ms") or {}).get(part) for m in every]
        cells = [NONE if time is None else f"{time:.2f}" for time in times]
        factor = times_as_fast(pair, part) if pair else None
        last = (f"{factor:.2f} x" if factor else NONE) if pair else None
        rows.append(_row(f"Latency {part}, ms", cells, last))
    counts = [(m.get("latency_ms") or {}).get("n", NONE) for m in every]
    return [*rows, _row("Timed calls", counts, "" if pair else None)]


def _shared_row(key: str, cells: Sequence[object], last: str | None) -> str:
    """One cell over all columns where they agree: long device names then fit a phone."""
    if len(set(map(str, cells))) > 1:
        return _row(key.capitalize(), cells, last, kind="wide")
    span = len(cells) + (last is not None)
    return (
        f'<tr><td>{esc(key.capitalize())}</td><td class="wide" colspan="{span}">'
        f"{esc(cells[0])}</td></tr>"
    )


def _row(name: str, cells: Iterable[object], last: str | None, kind: str = "") -> str:
    """One row; `last` is markup for the column of changes, None where there is none."""
    shown = "".join(f'<td class="{kind}">{esc(cell)}</td>' for cell in cells)
    end = "" if last is None else f"<td>{last}</td>"
    return f"<tr><td>{esc(name)}</td>{shown}{end}</tr>"


def layers_section(layers: Sequence[Layer]) -> str:
    """The executed graph, the slowest layers first."""
    if not layers:
        return ""
    ranked = sorted(layers, key=lambda layer: -layer.ms)
    total = sum(layer.ms for layer in layers) or 1.0
    shares: dict[str, float] = {}
    for layer in layers:
        shares[layer.precision] = shares.get(layer.precision, 0.0) + layer.ms
    by = ", ".join(
        f"{esc(name)} {100 * ms / total:.0f} %"
        for name, ms in sorted(shares.items(), key=lambda item: -item[1])
    )
    table = _layer_table(ranked[:MOST_LAYERS], total)
    if len(ranked) > MOST_LAYERS:
        rest = len(ranked) - MOST_LAYERS
        table += f"<details><summary>{rest} more layers</summary>"
        table += f"{_layer_table(ranked[MOST_LAYERS:], total)}</details>"
    return (
        f"<section><h2>Layers as executed</h2><p>{len(layers)} layers, {total:.2f} ms. "
        f"Share of the time: {by}.</p>{table}</section>"
    )


def engines_section(engines: Mapping[str, Sequence[Layer]]) -> str:
    """Engines for cards: the precision of every layer as the library tells it, and no times."""
    if not engines:
        return ""
    lines = []
    for file, layers in engines.items():
        cells = "".join(
            f'<tr><td class="wide">{esc(one.name)}</td><td class="text">{esc(one.type)}</td>'
            f'<td class="text">{esc(one.precision)}</td></tr>'
            for one in layers
        )
        head = "<tr><th>layer</th><th>type</th><th>precision</th></tr>"
        lines.append(
            f"<p>{esc(file)}: {esc(say_convolutions(layers))}</p><details>"
            f"<summary>{len(layers)} layers</summary>"
            f'<div class="scroll"><table class="layers">{head}{cells}</table></div></details>'
        )
    note = "A convolution's precision is what it multiplies, any other layer's what it writes."
    return f"<section><h2>Engines for NVIDIA cards</h2>{''.join(lines)}<p>{note}</p></section>"


def _layer_table(layers: Sequence[Layer], total: float) -> str:
    rows = "".join(
        f'<tr><td class="wide">{esc(layer.name)}</td><td class="text">{esc(layer.type)}</td>'
        f'<td class="text">{esc(layer.precision)}</td><td>{layer.ms:.3f}</td>'
        f'<td class="text"><span class="share" style="width:{80 * layer.ms / total:.0f}px"></span> '
        f"{100 * layer.ms / total:.1f} %</td></tr>"
        for layer in layers
    )
    names = ("layer", "type", "precision", "ms", "share")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f'<div class="scroll"><table class="layers"><tr>{head}</tr>{rows}</table></div>'


def origin_section(report: Report) -> str:
    """Where everything came from: data, calibration, net, versions."""
    parts = []
    splits: Mapping[str, Report] = report.get("splits") or {}
    if splits:
        rows = "".join(
            f"<tr><td>{esc(name)}</td><td>{esc(split.get('n', NONE))}</td>"
            f'<td class="wide"><code>{esc(split.get("digest", ""))}</code></td></tr>'
            for name, split in splits.items()
        )
        parts.append(
            "<h3>Pictures (disjoint; digest over the files' SHA-256)</h3><table>"
            f"<tr><th>split</th><th>pictures</th><th>digest</th></tr>{rows}</table>"
        )
    for key, name in (("calibration", "Calibration"), ("model", "Net"), ("versions", "Versions")):
        if report.get(key):
            parts.append(f"<h3>{name}</h3>{_pairs(report[key])}")
    here = {
        "Bundle": report.get("bundle"),
        "ndp-edge": report.get("version"),
        "Device": report.get("device"),
    }
    present = {name: value for name, value in here.items() if value}
    if present:
        parts.append(f"<h3>This bundle</h3>{_pairs(present)}")
    return f"<section><h2>Where it came from</h2>{''.join(parts)}</section>" if parts else ""


def _pairs(values: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><td>{esc(name)}</td><td class="wide">{esc(_flat(value))}</td></tr>'
        for name, value in values.items()
    )
    return f"<table>{rows}</table>"


def _flat(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_flat(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_flat(item) for item in value)
    return NONE if value is None else str(value)


def raw_section(report: Report) -> str:
    """report.json as it is, folded away."""
    return (
        "<section><details><summary>report.json, whole</summary>"
        f"<pre>{esc(json_text(report))}</pre></details></section>"
    )
