"""`python -m ndp_edge.bench.layers [MODEL.onnx] [--preset paper]`: what each layer costs.

Operations and bytes to and from memory at batch 1, the most expensive layers first; how they
are counted stands in cost.py.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import onnx

from ndp_edge.bench.cost import BYTES, Cost, Group, cost_of
from ndp_edge.console import add_json_option, emit_json, run_verb, table, text_stream
from ndp_edge.model.config import PRESETS


def preset_model(name: str) -> onnx.ModelProto:
    """The exported ONNX of a preset with fresh weights (which needs torch, but for `nano`).

    Raises:
        MachineError: torch is missing.
    """
    from ndp_edge.bench.int8_speed import fresh_onnx
    from ndp_edge.build_inputs import SHIPPED

    if name == "nano":
        return onnx.load(SHIPPED)
    with tempfile.TemporaryDirectory(prefix="ndp-edge-layers-") as folder:
        return onnx.load(fresh_onnx(name, Path(folder) / "net.onnx"))


def rows(groups: Iterable[Group]) -> list[list[object]]:
    """Headings and one line per group."""
    head = ["layer", "operators", "GFLOP", "MB fp32", "MB fp16", "MB int8", "FLOP per byte fp16"]
    found: list[list[object]] = [[*head]]
    for group in groups:
        kinds = list(dict.fromkeys(group.nodes))
        short = " ".join(kinds[:4]) + (f" +{len(kinds) - 4}" if len(kinds) > 4 else "")
        mb = [f"{group.traffic(p) / 1e6:.2f}" for p in BYTES]
        work = (group.flops + group.vector_ops) / max(1, group.traffic("fp16"))
        found.append([group.name, short, f"{group.flops / 1e9:.3f}", *mb, f"{work:.1f}"])
    return found


def summary(cost: Cost) -> dict[str, Any]:
    """Totals: gflop, parameters_m, mb per precision."""
    return {
        "gflop": round(cost.flops / 1e9, 3),
        "parameters_m": round(cost.parameters / 1e6, 3),
        "mb": {p: round(cost.traffic(p) / 1e6, 1) for p in BYTES},
    }


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.bench.layers", description=__doc__)
    p.add_argument("model", type=Path, nargs="?", metavar="MODEL", help="default: a preset's net")
    p.add_argument("--preset", choices=PRESETS, default="paper", help="default: paper")
    p.add_argument("--top", type=int, default=20, help="layers to show; 0 shows all")
    add_json_option(p)
    return p


def run(args: argparse.Namespace) -> int:
    """Print the layers and their sum.

    Raises:
        InputError: no such file, or not an exported net in FP32.
    """
    from ndp_edge.engines.base import read_model

    model = read_model(args.model, "fp32") if args.model else preset_model(args.preset)
    cost = cost_of(model)
    ranked: Sequence[Group] = sorted(cost.groups, key=lambda g: -(g.flops + g.traffic("fp16")))
    out = text_stream(args.json)
    print(table(rows(ranked[: args.top] if args.top else ranked)), file=out)
    totals = summary(cost)
    print(
        f"{len(cost.groups)} layers, {totals['gflop']} GFLOP (2 per multiply-add), "
        f"{totals['parameters_m']} M parameters, MB to and from memory: "
        + ", ".join(f"{p} {mb}" for p, mb in totals["mb"].items()),
        file=out,
    )
    every = [
        dict(zip(("name", "flops", "weights"), (g.name, g.flops, g.weights), strict=True))
        | {"bytes": {p: g.traffic(p) for p in BYTES}}
        for g in cost.groups
    ]
    emit_json(args.json, totals | {"layers": every})
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point: exit 0 done, 2 bad input, 3 no torch for a fresh preset."""
    args = parser().parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
