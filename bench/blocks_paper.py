"""The report's blocks about the paper: its figure, its table, and other devices predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ndp_edge.bench import paper_tables
from ndp_edge.bench.block import Block, Rows
from ndp_edge.bench.charts import paper_chart
from ndp_edge.bench.published import QUOTES
from ndp_edge.bench.saved import Saved, latencies, of_kind
from ndp_edge.model.config import PRESETS

QUOTED = f'The paper: "{QUOTES["time"]}" "{QUOTES["machine"]}" It names neither unit nor runtime.'

PRECISIONS = ("fp16", "int8")

SHOWN = (
    "Jetson Orin Nano 8 GB (Super)",
    "Jetson AGX Orin 64 GB",
    "T4",
    "RTX 4000 Ada",
    "V100 (SXM2)",
)
"""The devices of the short table."""


def paper(saved: Sequence[Saved]) -> Block:
    """Every measured latency beside the paper's 28.746 ms."""
    measured = latencies(saved)
    rows = paper_tables.latency_rows(measured) if measured else []
    runs = of_kind(saved, "paper")
    pictures = (paper_chart(runs[-1].data, measured),) if runs else ()
    return Block("paper", "Against the paper's 28.746 ms", rows, (QUOTED,), pictures)


def paper_short(saved: Sequence[Saved]) -> Block:
    """The same without builds and other papers' nets."""
    measured = [one for one in latencies(saved) if one.net in PRESETS]
    rows = paper_tables.latency_rows(measured) if measured else []
    return Block("paper-short", "Against the paper's 28.746 ms", rows, (QUOTED,))


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
                spans = [_span(pair.get(precision)) for precision in PRECISIONS]
                rows.append([first["label"], device, net["preset"], *spans, sure])
        notes.append(f"{paper_tables.check_line(one.data)}. File: `{one.name}`.")
    told = (
        "No row was measured. From the datasheet's peaks and the net's operations and bytes: first "
        "at the share of a roofline that OpenVINO reaches on the CPU here, then at the share that "
        "the paper's own figure implies for its V100, the only one of a card."
    )
    return Block("predicted", "Other devices, predicted", rows, (told, *notes) if notes else ())


def predicted_short(saved: Sequence[Saved]) -> Block:
    """A few devices, one line each, with every net; and the check against the paper's V100."""
    rows: Rows = []
    notes: list[str] = []
    for one in of_kind(saved, "paper"):
        nets = one.data["nets"]
        names = [f"`{net['preset']}` {p.upper()} ms" for net in nets for p in PRECISIONS]
        found = {
            (net["preset"], row["device"], row["precision"]): row
            for net in nets
            for row in net["predictions"]
        }
        rows = [["", "device", *names]]
        for device in SHOWN:
            spans = [
                _span(found.get((net["preset"], device, p))) for net in nets for p in PRECISIONS
            ]
            rows.append(["prediction", device, *spans])
        notes.append(f"{paper_tables.check_line(one.data)}. File: `{one.name}`.")
    return Block("predicted-short", "Other devices, predicted", rows, tuple(notes))


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
