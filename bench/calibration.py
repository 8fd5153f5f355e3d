"""How near this CPU's runtimes come to what this CPU can do, all in one interleaved run.

Each round times two kinds of work that do nothing but multiply and add, in FP32 and in int8
(the better of the two is the peak), a copy of a large array (the bandwidth) and every runtime
on the net, on one thread and by processor time: neighbours that
take the cores away change neither. Efficiency is taken round by round. What a runtime loses
between threads is not in it; a card's peak has no threads of this kind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx

from ndp_edge.bench import contenders
from ndp_edge.bench.cost import cost_of
from ndp_edge.bench.figures import spread
from ndp_edge.bench.int8_ceiling import chain
from ndp_edge.bench.roofline import Ceilings, ideal_ms
from ndp_edge.calib.qdq import quantize
from ndp_edge.engines.unsigned import to_unsigned
from ndp_edge.ov_core import cpu_request

WIDTH, SIDE = 512, 32
"""Channels and side of the multiplying work: larger or smaller ones were no faster."""

CHAINS = {"matrix product": (1, 16), "3x3 convolutions": (3, 4)}
"""Kind of work: kernel side and how many follow each other. A 1x1 convolution is the product of
[SIDE * SIDE, WIDTH] and [WIDTH, WIDTH], for which the runtime has its fastest kernels; its 3x3
convolutions are such products too, and read less for each."""

COPY_MB = 128
VISIT_S = 0.15
"""Processor time that a visit spends at least; its figure is the mean over its calls."""

ENGINES = ("torch-fp32", "openvino-fp32", "openvino-int8")


def multiplying(kind: str, precision: str) -> tuple[Callable[[], object], int]:
    """One of CHAINS ready to run in OpenVINO, and its operations (2 per multiply-add).

    Raises:
        MachineError: OpenVINO is missing.
    """
    kernel, depth = CHAINS[kind]
    model = chain(WIDTH, SIDE, kernel, depth)
    if precision == "int8":
        ranges = {f"x{i}": (0.0, 4.0) for i in range(depth + 1)}
        model = to_unsigned(quantize(model, ranges))
    request = cpu_request(model.SerializeToString(), 1)
    x = np.full((1, WIDTH, SIDE, SIDE), 0.5, np.float32)
    operations = 2 * (SIDE * WIDTH * kernel) ** 2 * depth
    return lambda: request.infer([x]), operations


def copy() -> tuple[Callable[[], object], int]:
    """A copy, and the bytes it moves: each is read once and written once."""
    source = np.ones(COPY_MB * 1_000_000 // 8)
    target = np.zeros_like(source)
    return partial(np.copyto, target, source), 2 * source.nbytes


def calibrate_roofline(preset: str, folder: Path, rounds: Iterable[int]) -> dict[str, Any]:
    """Peaks, and time and efficiency of each runtime on a preset's net; plain values.

    Args:
        preset: which net; all but `nano` need torch.
        folder: for its ONNX files.
        rounds: one per round, at least three.

    Raises:
        MachineError: OpenVINO or, for fresh weights, torch is missing.
    """
    net = contenders.net_of_preset(preset, folder)
    exported = onnx.load(net.models["fp32"])
    amounts: dict[str, int] = {}
    work: dict[str, Callable[[], object]] = {}
    for precision in ("fp32", "int8"):
        for kind in CHAINS:
            name = f"{precision} {kind}"
            work[name], amounts[name] = multiplying(kind, precision)
    work["copy"], amounts["copy"] = copy()
    with ExitStack() as stack:
        names = [n for n in contenders.usual(net, compiled=False)[0] if n in ENGINES]
        opened, notes = contenders.open_all(names, False, net, stack, 1)
        for name, (infer, _) in opened.items():
            work[name] = partial(infer, net.frames.images[:1])
        times = _take_turns(work, rounds)
    versions = {k: v for _, about in opened.values() for k, v in about["versions"].items()}
    return _figures(preset, exported, times, amounts) | {"versions": versions, "notes": notes}


def _take_turns(
    work: dict[str, Callable[[], object]], rounds: Iterable[int]
) -> dict[str, list[float]]:
    """Milliseconds of processor time per visit, forwards and backwards in turn."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for one in work.values():
        one()  # the first call compiles and allocates
    for number, _ in enumerate(rounds):
        for name in work if number % 2 else reversed(work):
            began, calls, spent = time.process_time(), 0, 0.0
            while spent < VISIT_S:
                work[name]()
                calls += 1
                spent = time.process_time() - began
            times[name].append(1e3 * spent / calls)
    return times


def _figures(
    preset: str, exported: onnx.ModelProto, times: dict[str, list[float]], amounts: dict[str, int]
) -> dict[str, Any]:
    rates = {  # 10^9 a second, one a round
        name: [amount / 1e6 / ms for ms in times[name]] for name, amount in amounts.items()
    }
    peaks = {
        precision: [
            max(pair) for pair in zip(*(rates[f"{precision} {k}"] for k in CHAINS), strict=True)
        ]
        for precision in ("fp32", "int8")
    }
    costs = {fused: cost_of(exported, fused=fused) for fused in (True, False)}
    measured = []
    for name in (name for name in times if name not in amounts):
        backend, _, precision = name.rpartition("-")
        cost = costs[backend != "torch"]
        efficiency = [
            ideal_ms(cost, Ceilings(peak / 1e3, bandwidth, precision, wide="fp32")) / ms
            for peak, bandwidth, ms in zip(
                peaks[precision], rates["copy"], times[name], strict=True
            )
        ]
        measured.append(
            {
                "name": name,
                "precision": precision,
                "cpu_ms": spread(times[name]).rounded(),
                "efficiency": spread(efficiency).rounded(),
            }
        )
    return {
        "preset": preset,
        "rounds": len(times["copy"]),
        "peaks": {
            "fp32_gflops": round(median(peaks["fp32"]), 1),
            "int8_gops": round(median(peaks["int8"]), 1),
            "copy_gb_s": round(median(rates["copy"]), 2),
        },
        "measured": measured,
    }
