"""The blocks of the bench report: each a table with its conditions, made from saved results.

A block knows one kind of file. The report shows all of them; the README shows those whose
markers it carries. A block without a file says that nothing was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ndp_edge.bench import paper_tables, tables
from ndp_edge.bench.charts import MEASURED, PREDICTED, Bar, bars, paper_chart
from ndp_edge.bench.published import QUOTES
from ndp_edge.bench.saved import Saved, data_name, latencies, of_kind
from ndp_edge.report_tables import show_value

NOTHING = "Nothing measured yet."
Rows = list[list[str]]

ACCURACY = ("image_auroc", "pixel_auroc", "aupro", "false_reject_rate", "miss_rate")
SHIPPED = "shipped"


@dataclass(frozen=True)
class Block:
    """One block.

    Attributes:
        name: in the README's markers.
        title: over it in the report.
        rows: the table, headings first; empty for none.
        notes: what its figures hang on, a line each.
        charts: SVG texts, in the HTML report alone.
    """

    name: str
    title: str
    rows: Rows
    notes: tuple[str, ...] = ()
    charts: tuple[str, ...] = ()

    @property
    def markdown(self) -> str:
        """Table and notes; NOTHING without rows."""
        if len(self.rows) < 2:
            return NOTHING
        table = tables.markdown_table(self.rows)
        return "\n\n".join([table, *self.notes])


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


def paper(saved: Sequence[Saved]) -> Block:
    """Every measured latency beside the paper's 28.746 ms."""
    measured = latencies(saved)
    rows = paper_tables.latency_rows(measured) if measured else []
    runs = of_kind(saved, "paper")
    pictures = (paper_chart(runs[-1].data, measured),) if runs else ()
    note = f'The paper: "{QUOTES["time"]}" "{QUOTES["machine"]}" It names neither unit nor runtime.'
    return Block("paper", "Against the paper's 28.746 ms", rows, (note,), pictures)


def predicted(saved: Sequence[Saved]) -> Block:
    """What the roofline says of devices that were not here, one line each."""
    rows: Rows = [["", "device", "net", "FP16 ms", "INT8 ms", "datasheet"]]
    notes: list[str] = []
    for one in of_kind(saved, "paper"):
        for net in one.data["nets"]:
            by_device: dict[str, dict[str, Any]] = {}
            for row in net["predictions"]:
                by_device.setdefault(row["device"], {})[row["precision"]] = row
            for device, pair in by_device.items():
                first = next(iter(pair.values()))
                sure = "as remembered" if first["datasheet_sure"] else "unsure"
                spans = [_span(pair.get(precision)) for precision in ("fp16", "int8")]
                rows.append([first["label"], device, net["preset"], *spans, sure])
        notes.append(f"{paper_tables.check_line(one.data)}. File: `{one.name}`.")
    told = (
        "No row was measured. From the datasheet's peaks and the net's operations and bytes: first "
        "at the share of a roofline that OpenVINO reaches on the CPU here, then at the share that "
        "the paper's own figure implies for its V100, the only one of a card."
    )
    return Block("predicted", "Other devices, predicted", rows, (told, *notes) if notes else ())


def _span(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    pair = (row["ms"], row["ms_at_v100_efficiency"])
    return " to ".join(f"{value:.1f}" if value >= 10 else f"{value:.2f}" for value in pair)


def roofline(saved: Sequence[Saved]) -> list[Block]:
    """Behind the predictions: calibration, the V100 under three readings, the full tables."""
    found = []
    for one in of_kind(saved, "paper"):
        found.append(
            Block(
                "calibration",
                "Share of the roofline on this CPU",
                paper_tables.calibration_rows(one.data),
                ("One thread, processor time.", f"File: `{one.name}`."),
            )
        )
        notes = (
            f"{paper_tables.check_line(one.data)}.",
            f'Its text: "{QUOTES["reference"]}" "{QUOTES["again"]}"',
        )
        rows = paper_tables.reading_rows(one.data)
        found.append(Block("v100", "The paper's V100 by the same model", rows, notes))
        for net in one.data["nets"]:
            title = f"Predictions in full: {net['preset']}"
            rows = paper_tables.predicted_rows(net)
            found.append(Block(f"predicted-{net['preset']}", title, rows))
    return found


def published(_: Sequence[Saved]) -> Block:
    """The other methods' positions, as the paper prints them."""
    notes = tuple(f'"{QUOTES[key]}"' for key in ("faster", "decent", "slower"))
    told = "MVTec AD's five textures, averages of Tables II to IV, in percent."
    rows = paper_tables.published_rows()
    return Block("published", "The paper's own comparison", rows, (told, *notes))


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
