"""The blocks of the bench report: each a table with its conditions, made from saved results.

A block knows one kind of file. The report shows all of them; the README shows those whose
markers it carries. A block without a file says that nothing was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ndp_edge.bench import tables
from ndp_edge.bench.block import Block, Rows
from ndp_edge.bench.blocks_builds import accuracy
from ndp_edge.bench.blocks_gpu import gpu_kernels, gpu_nets, gpu_targets
from ndp_edge.bench.blocks_paper import (
    paper,
    paper_short,
    predicted,
    predicted_short,
    published,
    roofline,
)
from ndp_edge.bench.blocks_training import train_speed, trainings
from ndp_edge.bench.charts import MEASURED, Bar, bars
from ndp_edge.bench.saved import Saved, of_kind


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
                    f"{100 * found['int8_share_of_convolution_time']:.1f} %",
                ]
            )
            drawn += [
                Bar(f"{found['preset']}, {name}", value, MEASURED) for name, value in ms.items()
            ]
        first = one.data["results"][0]
        notes.append(
            f"{one.on(first['device'])}; {one.data.get('date', '')}; {first['runs']} rounds taking "
            f"turns, fresh weights; int8 share: of the time of convolutions. File: `{one.name}`."
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
        told = f"{one.on('CPU')}; {one.data.get('date', '')}; {one.data['runs']} rounds"
        notes.append(f"{told}. File: `{one.name}`.")
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
    rows: Rows = [tables.TRIAL_HEAD]
    notes = []
    for one in of_kind(saved, "gate_trial"):
        rows += tables.trial_rows(one.data)
        notes.append(_trial(one))
    return Block("gate", "The regression gate on trial", rows, tuple(notes))


def _trial(one: Saved) -> str:
    """What a trial of the gate was, in a few words."""
    asked = one.data["settings"]
    loads = [run["load_average"] for run in one.data["runs"]]
    day = str(one.data.get("date", ""))[:10]
    return (
        f"{day}; `{asked['engine']}`, {100 * asked['slow']:g} % "
        f"slower planted, {100 * asked['max_regress']:g} % allowed; load average {min(loads):g} to "
        f"{max(loads):g}. Every pair: each unchanged run as the baseline of every later one, "
        f"without a second look. File: `{one.name}`."
    )


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
    gpu_kernels,
    gpu_nets,
    gpu_targets,
    train_speed,
)


def all_blocks(saved: Sequence[Saved]) -> dict[str, Block]:
    """Every block by name, in the report's order."""
    found = [*(make(saved) for make in SINGLE[:2]), *engines(saved)]
    found += [*(make(saved) for make in SINGLE[2:]), *roofline(saved), *trainings(saved)]
    return {block.name: block for block in found}


def marked_blocks(saved: Sequence[Saved]) -> dict[str, Block]:
    """What a text file's markers may name: every block, and the short forms of long ones."""
    short = [paper_short(saved), predicted_short(saved)]
    for one in of_kind(saved, "bench"):
        stem = one.name.removesuffix(".json")
        told = [note for note in one.data["notes"] if "not timed" not in note]
        notes = (*tables.about(one.data)[:2], *told, f"File: `{one.name}`.")
        short.append(Block(f"{stem}-short", stem, tables.short_rows(one.data), notes))
    return all_blocks(saved) | {block.name: block for block in short}
