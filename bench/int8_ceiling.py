"""`python -m ndp_edge.bench.int8_ceiling`: the most that INT8 can gain in OpenVINO on this CPU.

A chain of 3x3 convolutions and nothing else, FP32 against int8 (uint8 activations, int8
weights: what x86 is made for), taking turns. No network of such convolutions gains more than
this; what one gains less is the price of everything between them.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ndp_edge.bench.int8_speed import interleave, ratio
from ndp_edge.calib.qdq import quantize
from ndp_edge.console import add_json_option, emit_json, run_verb, table, text_stream
from ndp_edge.doctor import isa
from ndp_edge.engines.unsigned import to_unsigned
from ndp_edge.ov_core import cpu_request

DEPTH = 8
SHAPES = ((32, 128), (64, 64), (128, 64), (256, 64), (512, 32))
"""(channels, side) of the chains: what nano's and paper's stages look like."""


def parser() -> argparse.ArgumentParser:
    """Number of runs."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.bench.int8_ceiling", description=__doc__)
    p.add_argument("--runs", type=int, default=15, help="timed rounds per chain")
    p.add_argument("--threads", type=int, help="default: OpenVINO's choice")
    add_json_option(p)
    return p


def chain(channels: int, side: int, kernel: int = 3, depth: int = DEPTH) -> onnx.ModelProto:
    """`depth` convolutions with ReLU on float32 [1, channels, side, side]; `kernel` is odd."""
    rng = np.random.default_rng(0)
    nodes, weights, x = [], [], "x0"
    pads = [kernel // 2] * 4
    for i in range(depth):
        shape = (channels, channels, kernel, kernel)
        values = rng.normal(0, (2 / (kernel**2 * channels)) ** 0.5, shape)
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"w{i}"))
        nodes += [
            helper.make_node("Conv", [x, f"w{i}"], [f"c{i}"], name=f"conv{i}", pads=pads),
            helper.make_node("Relu", [f"c{i}"], [f"x{i + 1}"], name=f"relu{i}"),
        ]
        x = f"x{i + 1}"
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, channels, side, side])
        for n in ("x0", x)
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def measure(channels: int, side: int, args: argparse.Namespace) -> dict[str, Any]:
    """FP32 and int8 of one chain, side by side."""
    model = chain(channels, side)
    ranges = {f"x{i}": (0.0, 4.0) for i in range(DEPTH + 1)}
    models = {"fp32": model, "int8": to_unsigned(quantize(model, ranges))}
    image = np.ones((1, channels, side, side), np.float32)
    contenders: dict[str, Callable[[], object]] = {}
    for name, proto in models.items():
        request = cpu_request(proto.SerializeToString(), args.threads)
        contenders[name] = lambda r=request: r.infer([image])  # type: ignore[misc]
    times = interleave(contenders, args.runs)
    giga = 2e-9 * DEPTH * channels * channels * 9 * side * side
    return {
        "channels": channels,
        "side": side,
        "gops": {k: round(1e3 * giga / statistics.median(v), 1) for k, v in times.items()},
        "int8_over_fp32": ratio(times, "int8"),
    }


def run(args: argparse.Namespace) -> int:
    """Measure every chain, print a table, write the JSON."""
    found = [measure(c, s, args) for c, s in SHAPES]
    rows: list[list[object]] = [["3x3 chain", "FP32 GFLOP/s", "INT8 GOP/s", "ratio"]]
    for f in found:
        name, gops = f"{f['channels']} x {f['side']}x{f['side']}", f["gops"]
        rows.append([name, gops["fp32"], gops["int8"], f["int8_over_fp32"]["median"]])
    print(table(rows), file=text_stream(args.json))
    host = {
        "machine": platform.machine(),
        "isa": isa(),
        "date": datetime.date.today().isoformat(),
    }
    emit_json(args.json, {**host, "runs": args.runs, "results": found})
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    args = parser().parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
