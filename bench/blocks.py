"""The blocks of the bench report: each a table with its conditions, made from saved results.

A block knows one kind of file. The report shows all of them; the README shows those whose
markers it carries. A block without a file says that nothing was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ndp_edge.bench import tables
from ndp_edge.bench.block import Block, Rows
from ndp_edge.bench.blocks_paper import paper, predicted, published, roofline
from ndp_edge.bench.charts import MEASURED, PREDICTED, Bar, bars
from ndp_edge.bench.saved import Saved, data_name, of_kind
from ndp_edge.report_tables import show_value

ACCURACY = ("image_auroc", "pixel_auroc", "aupro", "false_reject_rate", "miss_rate")
SHIPPED = "shipped"


def accuracy(saved: Sequence[Saved]) -> Block:
    """FP32 and INT8 of every build: accuracy at its own threshold, and latency."""
    head = ["net and data", "", "image AUROC", "pixel AUROC", "AUPRO", "false rejects", "misses"]
    rows: Rows = [[*head, "ms p50"]]
    drawn: list[Bar] = []
    builds = of_kind(saved, "build")
    # What the package ships comes first.
    builds.sort(key=lambda one: (one.data["model"].get("source") != SHIPPED, one.name))
    for one in builds:
        name = f"{one.data['model'].get('preset', '?')} on {data_name(one.data)}"
        metrics: dict[str, Any] = one.data["metrics"]
        slow = (metrics.get("fp32", {}).get("latency_ms") or {}).get("p50")
        for i, (precision, found) in enumerate(metrics.items()):
            values = [show_value(key, found.get(key)) for key in ACCURACY]
            ms = (found.get("latency_ms") or {}).get("p50")
            rows.append([name if i == 0 else "", precision.upper(), *values, _ms(ms, slow, i)])
            if found.get("image_auroc") is not None:
                colour = PREDICTED if precision == "fp32" else MEASURED
                label = f"{name}, {precision.upper()}"
                drawn.append(Bar(label, found["image_auroc"], colour, told=values[0]))
    notes = [_conditions(builds)] if builds else []
    pictures = (bars(drawn, "image AUROC (0.5 is guessing)"),) if drawn else ()
    return Block("accuracy", "Accuracy and latency of builds", rows, tuple(notes), pictures)


def _ms(ms: float | None, slow: float | None, place: int) -> str:
    if ms is None:
        return "-"
    return f"{ms:.1f} ({slow / ms:.2f} x)" if place and slow else f"{ms:.1f}"


def _conditions(builds: Sequence[Saved]) -> str:
    """Device, versions, dates, thresholds and files of the builds, each value once."""
    devices = _once(one.data.get("device") for one in builds)
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
        f"{', '.join(devices)}; {', '.join(versions)}; {when}; batch 1, FP32 and INT8 taking "
        "turns. False rejects and misses are at each engine's own conformal threshold, promised "
        f"rate {', '.join(targets)}. Files: {names}."
    )


def _once(values: Iterable[Any]) -> list[str]:
    return [str(value) for value in dict.fromkeys(values) if value]


def int8(saved: Sequence[Saved]) -> Block:
    """What INT8 gains over FP32 in OpenVINO."""
    rows: Rows = [["net", "FP32 ms", "INT8 ms", "gain", "quartiles", "NNCF's gain", "int8 share"]]
    notes, drawn = [], []
    for one in of_kind(saved, "int8_speed"):
        for found in one.data["results"]:
            ms, gain = found["ms_p50"], found["speed_over_fp32"]
            nncf = gain.get("nncf", {}).get("median")
            rows.append(
                [
                    found["preset"],
                    f"{ms['fp32']:.1f}",
                    f"{ms['int8']:.1f}",
                    f"{gain['int8']['median']:.2f} x",
                    f"{gain['int8']['q25']:.2f} to {gain['int8']['q75']:.2f}",
                    "-" if nncf is None else f"{nncf:.2f} x",
                    f"{100 * found['int8_share_of_convolution_time']:.0f} %",
                ]
            )
            drawn += [
                Bar(f"{found['preset']}, {name}", value, MEASURED) for name, value in ms.items()
            ]
        first = one.data["results"][0]
        notes.append(
            f"{first['device']}; {one.data.get('date', '')}; {first['runs']} rounds taking turns, "
            f"fresh weights; int8 share: of the time of convolutions. File: `{one.name}`."
        )
    pictures = (bars(drawn, "ms, median"),) if drawn else ()
    return Block("int8", "INT8 over FP32 in OpenVINO", rows, tuple(notes), pictures)


def ceiling(saved: Sequence[Saved]) -> Block:
    """The most that INT8 gains on chains of convolutions and nothing else."""
    rows: Rows = [["channels", "side", "FP32 GOP/s", "INT8 GOP/s", "gain", "quartiles"]]
    notes = []
    for one in of_kind(saved, "int8_ceiling"):
        for found in one.data["results"]:
            gain, rate = found["int8_over_fp32"], found["gops"]
            rows.append(
                [
                    str(found["channels"]),
                    str(found["side"]),
                    f"{rate['fp32']:.0f}",
                    f"{rate['int8']:.0f}",
                    f"{gain['median']:.2f} x",
                    f"{gain['q25']:.2f} to {gain['q75']:.2f}",
                ]
            )
        notes.append(f"{one.data.get('date', '')}; {one.data['runs']} rounds. File: `{one.name}`.")
    return Block("ceiling", "Chains of 3x3 convolutions alone", rows, tuple(notes))


def engines(saved: Sequence[Saved]) -> list[Block]:
    """One block for each `python -m ndp_edge.bench` run, named after its file."""
    found = []
    for one in of_kind(saved, "bench"):
        drawn = [
            Bar(row["label"], row["latency_ms"]["p50"], MEASURED, row["ms_interval"]["low"],
                row["ms_interval"]["high"])
            for row in one.data["rows"]
        ]  # fmt: skip
        stem = one.name.removesuffix(".json")
        notes = (*tables.about(one.data), *one.data["notes"], f"File: `{one.name}`.")
        title = f"Engines side by side: {one.data['net']['preset']} ({one.name})"
        picture = bars(drawn, "ms per call, decoded frame to verdict; the line is 95 %")
        found.append(Block(stem, title, tables.rows(one.data), notes, (picture,)))
    return found


def gate(saved: Sequence[Saved]) -> Block:
    """The regression gate's false alarms, and the planted slow-downs it found."""
    rows: Rows = [["", "unchanged", "false alarms", "planted", "found"]]
    keys = ("unchanged", "false_alarms", "planted", "found")
    notes = []
    for one in of_kind(saved, "gate_trial"):
        for name, found in (
            ("against one baseline", one.data),
            ("every pair", one.data["all_pairs"]),
        ):
            rows.append([name, *(str(found[key]) for key in keys)])
        notes.append(f"{str(one.data.get('date', ''))[:10]}. File: `{one.name}`.")
    return Block("gate", "The regression gate on trial", rows, tuple(notes))


def speed(saved: Sequence[Saved]) -> Block:
    """What each step and setting brings in OpenVINO."""
    rows: Rows = [["net", "variant", "ms", "time over the engine's own", "95 %", "map moves by"]]
    notes = []
    for one in of_kind(saved, "speed"):
        for found in one.data["rows"]:
            factor = found["time_over_own"]
            rows.append(
                [
                    one.data["preset"],
                    found["variant"],
                    f"{found['ms']['point']:.2f}",
                    f"{factor['point']:.3f}",
                    f"{factor['low']:.3f} to {factor['high']:.3f}",
                    f"{found['difference']:.0e}",
                ]
            )
        told = f"{one.data['time']}; {one.data['rounds']} rounds; {one.data['date']}"
        notes.append(f"{told}. File: `{one.name}`.")
    return Block("speed", "Steps and settings in OpenVINO, INT8", rows, tuple(notes))


SINGLE: tuple[Callable[[Sequence[Saved]], Block], ...] = (
    accuracy,
    int8,
    ceiling,
    speed,
    gate,
    paper,
    predicted,
    published,
)


def all_blocks(saved: Sequence[Saved]) -> dict[str, Block]:
    """Every block by name, in the report's order."""
    found = [*(make(saved) for make in SINGLE[:2]), *engines(saved)]
    found += [*(make(saved) for make in SINGLE[2:]), *roofline(saved)]
    return {block.name: block for block in found}
