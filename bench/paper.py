"""`python -m ndp_edge.bench.paper`: the paper's 28.746 ms against this machine and others.

Takes from this CPU how near each runtime comes to a roofline (torch eager, OpenVINO FP32 and
INT8, beside the CPU's own peaks), and predicts other devices from their datasheets. Every row
of another device is a prediction and says so. The check: the same model on the paper's own
V100, against the paper's own figure. With --results the latencies that were measured (the JSON
files in bench/results) stand beside it.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
from pathlib import Path
from typing import Any

import onnx

from ndp_edge.bench import charts, paper_tables
from ndp_edge.bench.calibration import calibrate_roofline
from ndp_edge.bench.cost import Cost, cost_of
from ndp_edge.bench.devices import DEVICES, V100
from ndp_edge.bench.layers import preset_model, summary
from ndp_edge.bench.published import NDP_MS, QUOTES
from ndp_edge.bench.readings import as_described, with_wide_heads
from ndp_edge.bench.result import machine
from ndp_edge.bench.roofline import ideal_ms, of_device, shares
from ndp_edge.bench.saved import latencies, read_results
from ndp_edge.console import (
    add_json_option,
    check_targets,
    emit_json,
    info,
    progress,
    run_verb,
    table,
    text_stream,
)
from ndp_edge.errors import InputError
from ndp_edge.files import write_atomic
from ndp_edge.model.config import PRESETS, preset

KIND = "ndp-edge-paper-1"
GOAL = 0.30
"""How far the V100 row may lie from the paper's figure, as a share of it."""

PREDICTION = "prediction"

LIKE = {"fp16": "openvino-fp32", "int8": "openvino-int8"}
"""Whose efficiency a card's engine is given: optimised runtimes of the same kind."""


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.bench.paper", description=__doc__)
    p.add_argument(
        "--preset", action="append", choices=PRESETS, help="repeat it; default: paper (needs torch)"
    )
    p.add_argument("--rounds", type=int, default=9, help="default: 9")
    p.add_argument("--results", type=Path, metavar="DIR", help="measured latencies beside it")
    p.add_argument("--chart", type=Path, metavar="SVG", help="draw the paper, this CPU and others")
    add_json_option(p)
    return p


def v100_check(model: onnx.ModelProto, efficiency: dict[str, float]) -> dict[str, Any]:
    """The V100 in FP32 by the model, against 28.746 ms, for three readings of the paper.

    Args:
        model: the exported `paper` net.
        efficiency: of each runtime measured on the CPU, 0 to 1.

    Returns:
        readings (name, gflop, runtime, ideal_ms, ms, error as a share of 28.746), the one that
        counts first; its ms and error again, within_goal, and implied_efficiency: what the
        paper's figure makes of its V100 under that reading. ms is None without that runtime.
    """
    config, ceilings = preset("paper"), of_device(V100, "fp32")
    eager, fused = (
        with_wide_heads(cost_of(model, fused=f), config, fused=f) for f in (False, True)
    )
    readings: list[dict[str, Any]] = []
    for name, cost, runtime in (
        ("as its text runs it, eager", as_described(eager), "torch-fp32"),
        ("nothing computed twice, eager", eager, "torch-fp32"),
        ("nothing computed twice, an inference engine", fused, "openvino-fp32"),
    ):
        ideal = ideal_ms(cost, ceilings)
        ms = ideal / efficiency[runtime] if runtime in efficiency else None
        readings.append(
            {
                "name": name,
                "label": PREDICTION,
                "gflop": round(cost.flops / 1e9, 1),
                "runtime": runtime,
                "ideal_ms": round(ideal, 2),
                "ms": None if ms is None else round(ms, 2),
                "error": None if ms is None else round(ms / NDP_MS - 1, 4),
            }
        )
    first = readings[0]
    return {
        "device": V100.name,
        "precision": "fp32",
        "paper_ms": NDP_MS,
        "ms": first["ms"],
        "error": first["error"],
        "goal": GOAL,
        "within_goal": None if first["error"] is None else abs(first["error"]) <= GOAL,
        "implied_efficiency": round(first["ideal_ms"] / NDP_MS, 4),
        "readings": readings,
    }


def predict(cost: Cost, efficiency: dict[str, float], v100: float) -> list[dict[str, Any]]:
    """One row for each device and precision.

    Args:
        cost: the net as we export it.
        efficiency: of each runtime measured on the CPU, 0 to 1.
        v100: the efficiency that the paper's own figure implies, the only one of a card.
    """
    rows = []
    for device in DEVICES:
        for precision, runtime in LIKE.items():
            if runtime not in efficiency:
                continue
            ceilings = of_device(device, precision)
            ideal = ideal_ms(cost, ceilings)
            rows.append(
                {
                    "label": PREDICTION,
                    "device": device.name,
                    "precision": precision,
                    "ms": round(ideal / efficiency[runtime], 3),
                    "ms_at_v100_efficiency": round(ideal / v100, 3),
                    "held_by": {k: round(v, 3) for k, v in shares(cost, ceilings).items()},
                    "datasheet_sure": device.sure,
                    "note": device.note,
                }
            )
    return rows


def report(args: argparse.Namespace) -> dict[str, Any]:
    """Measure and predict; plain values.

    Raises:
        InputError: too few rounds.
        MachineError: torch or OpenVINO is missing.
    """
    if args.rounds < 3:
        raise InputError(f"--rounds {args.rounds}: at least 3")
    nets = []
    for name in args.preset or ["paper"]:
        info(f"{name}: exporting, calibrating, timing {args.rounds} rounds")
        with tempfile.TemporaryDirectory(prefix="ndp-edge-paper-") as folder:
            rounds = progress(range(args.rounds), total=args.rounds, label=name)
            nets.append(calibrate_roofline(name, Path(folder), rounds))
    efficiency = {net["preset"]: _efficiencies(net) for net in nets}
    model = preset_model("paper")
    check = v100_check(model, efficiency.get("paper") or next(iter(efficiency.values())))
    for net in nets:
        cost = cost_of(model if net["preset"] == "paper" else preset_model(net["preset"]))
        net["cost"] = summary(cost)
        net["predictions"] = predict(cost, efficiency[net["preset"]], check["implied_efficiency"])
    wide = with_wide_heads(cost_of(model), preset("paper"))
    return {
        "kind": KIND,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "paper": {"ms": NDP_MS, "device": "V100", "quotes": QUOTES, "cost": summary(wide)},
        "v100": check,
        "nets": nets,
    }


def _efficiencies(net: dict[str, Any]) -> dict[str, float]:
    """Per runtime; caches can lift one above the memory's roofline, and then 1 is taken."""
    return {m["name"]: min(1.0, m["efficiency"]["point"]) for m in net["measured"]}


def run(args: argparse.Namespace) -> int:
    """Print the tables, write JSON and chart."""
    check_targets(args.json, args.chart)
    measured = latencies(read_results(args.results)) if args.results else []
    found = report(args)
    out = text_stream(args.json)
    if measured:
        print(table(paper_tables.latency_rows(measured)) + "\n", file=out)
    print(table(paper_tables.calibration_rows(found)) + "\n", file=out)
    print(table(paper_tables.reading_rows(found)), file=out)
    print(paper_tables.check_line(found), file=out)
    for net in found["nets"]:
        print(f"\n{net['preset']}, batch 1; no row of this table was measured", file=out)
        print(table(paper_tables.predicted_rows(net)), file=out)
    emit_json(args.json, found)
    if args.chart:
        write_atomic(args.chart, charts.paper_chart(found, measured).encode())
        info(f"chart: {args.chart}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point: exit 0 done, 2 a bad option, 3 torch or OpenVINO is missing."""
    args = parser().parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
