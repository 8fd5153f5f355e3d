"""The report's block about builds: what INT8 cost in accuracy.

A build's latency is not here: it is a by-product, beside whatever else ran, and stands in the
block "paper".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ndp_edge.bench.block import Block, Rows
from ndp_edge.bench.charts import MEASURED, PREDICTED, Bar, bars
from ndp_edge.bench.saved import Saved, data_name, of_kind
from ndp_edge.calib.gate import AREAS, RATES
from ndp_edge.model.config import PRESETS
from ndp_edge.report_tables import show_value

SHIPPED = "shipped"
BUILT_IN = "surface-"
"""How the built-in surface's folder begins."""


def accuracy(saved: Sequence[Saved]) -> Block:
    """FP32 and INT8 of every build, with the gate's intervals of how much worse INT8 is."""
    head = ["net and data (command)", "", "image AUROC", "pixel AUROC", "AUPRO"]
    rows: Rows = [[*head, "false rejects", "misses"]]
    drawn: list[Bar] = []
    builds = sorted(of_kind(saved, "build"), key=_place)
    machines = _once(one.on(one.data.get("device")) for one in builds)
    for one in builds:
        name = f"{one.data['model'].get('preset', '?')} on {data_name(one.data)}"
        apart = f", {one.on(one.data.get('device'))}" if len(machines) > 1 else ""
        for i, (precision, found) in enumerate(one.data["metrics"].items()):
            first = f"{name}{apart}" if i == 0 else f"`{_command(one.data)}`" if i == 1 else ""
            failed = (one.data.get("gate") or {}).get("passed") is False and precision != "fp32"
            label = f"{precision.upper()}, refused" if failed else precision.upper()
            rows.append([first, label, *_cells(one.data, precision)])
            if found.get("image_auroc") is not None:
                colour = PREDICTED if precision == "fp32" else MEASURED
                label = f"{name}, {precision.upper()}"
                told = show_value("image_auroc", found["image_auroc"])
                drawn.append(Bar(label, found["image_auroc"], colour, told=told))
    notes = [_conditions(builds, machines)] if builds else []
    pictures = (bars(drawn, "image AUROC (0.5 is guessing)"),) if drawn else ()
    return Block("accuracy", "Accuracy of builds", rows, tuple(notes), pictures)


def _place(one: Saved) -> tuple[bool, str, int, str]:
    """The built-in surface comes first; nets on the same data stand together, small ones first."""
    data, sizes = data_name(one.data), [*reversed(PRESETS)]
    preset = one.data["model"].get("preset")
    size = sizes.index(preset) if preset in sizes else len(sizes)
    return (not data.startswith(BUILT_IN), data, size, one.name)


def _command(data: dict[str, Any]) -> str:
    """What makes this build again; the photographs' folder without its path."""
    model = data["model"]
    source, photos = model.get("source", SHIPPED), str(model.get("data") or "")
    words = ["build"]
    if source != SHIPPED:
        words.append(f"--checkpoint runs/{source}")
    if photos and not photos.startswith(BUILT_IN):
        words.append(f"--data …/{photos}")
    return " ".join([*words, "--int8"])


def _cells(data: dict[str, Any], precision: str) -> list[str]:
    """Areas, and rates at FP32's threshold; the gate's interval behind a lower precision's."""
    own, frozen = data["metrics"][precision], (data.get("frozen_metrics") or {}).get(precision, {})
    if precision == "fp32":  # whose own threshold is the frozen one
        frozen = own | frozen
    gate = (data.get("gate") or {}).get("rows", [])
    # "on": judged on artificial defects, which are not the test pictures of this table.
    judged = {row["metric"]: row for row in gate if precision in row and not row.get("on")}
    cells = []
    for key in (*AREAS, *RATES):
        value = (own if key in AREAS else frozen).get(key)
        worse = "" if value is None or precision == "fp32" else _worse(key, judged.get(key, {}))
        cells.append(show_value(key, value) + worse)
    return cells


def _worse(key: str, row: dict[str, Any]) -> str:
    """The interval in brackets, a rate's in percent."""
    low, high = row.get("low"), row.get("high")
    if low is None or high is None:
        return ""
    if key in RATES:
        return f" ({100 * low + 0.0:.1f} to {100 * high + 0.0:.1f})"
    return f" ({low + 0.0:.4f} to {high + 0.0:.4f})"


def _conditions(builds: Sequence[Saved], machines: Sequence[str]) -> str:
    """Device, versions, dates, thresholds and files of the builds, each value once."""
    versions = _once(
        f"{name} {version}"
        for one in builds
        for name, version in (one.data.get("versions") or {}).items()
    )
    dates = sorted(_once(str(one.data.get("created", ""))[:10] for one in builds))
    targets = _once(
        f"{100 * one.data['threshold']['target']:g} %"
        for one in builds
        if (one.data.get("threshold") or {}).get("target") is not None
    )
    names = ", ".join(f"`{one.name}`" for one in builds)
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return (
        f"{'; '.join(machines)}; {', '.join(versions)}; {when}. In "
        "brackets how much worse INT8 is on other pictures like these, from and to "
        "(paired bootstrap, each end holds with 95 %; of rates in percentage points). False "
        "rejects and misses are at FP32's conformal threshold, promised rate "
        f"{', '.join(targets)}. Files: {names}."
    )


def _once(values: Iterable[Any]) -> list[str]:
    return [str(value) for value in dict.fromkeys(values) if value]
