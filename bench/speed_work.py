"""`python -m ndp_edge.bench.speed_work`: what each step on OpenVINO's side brings, in one run.

The INT8 net as the engine compiles it, the same with one step taken back, and the same with
one setting of OpenVINO's changed, in random order round by round. The time is processor time
on one thread, which neighbours that take the cores away do not change, and with --wall
the clock's on all threads. `difference` is the largest change of the anomaly map: a step is
kept only where that is rounding.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ndp_edge.bench import contenders
from ndp_edge.bench.figures import spread
from ndp_edge.bench.result import machine
from ndp_edge.console import (
    add_json_option,
    emit_json,
    info,
    progress,
    run_verb,
    table,
    text_stream,
)
from ndp_edge.engines.base import image_size
from ndp_edge.engines.tail import with_products
from ndp_edge.engines.unsigned import to_unsigned
from ndp_edge.errors import InputError
from ndp_edge.model.config import PRESETS
from ndp_edge.ov_core import cpu_request, shared_core

NOW = "as the engine runs it"

STEPS = {
    NOW: ("biases", "products"),
    "Resize and AveragePool at the end": ("biases",),
    "biases shared by both encoder passes": ("products",),
}
"""What is done to the file: all steps, or all but one."""

SETTINGS: dict[str, dict[str, Any]] = {
    "threads not pinned": {"ENABLE_CPU_PINNING": False},
    "throughput hint, one stream": {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": "1"},
    "bf16 allowed": {"INFERENCE_PRECISION_HINT": "bf16"},
}

Request = Any


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.bench.speed_work", description=__doc__)
    p.add_argument("--preset", choices=PRESETS, default="nano", help="default: nano")
    p.add_argument("--rounds", type=int, default=60, help="default: 60")
    p.add_argument("--wall", action="store_true", help="by the clock, on all threads")
    add_json_option(p)
    return p


def compiled(
    int8: onnx.ModelProto, steps: tuple[str, ...], options: dict[str, Any], threads: int | None
) -> Request:
    """A request of the net with some of the engine's steps, at batch 1.

    Raises:
        MachineError: OpenVINO is missing.
    """
    from ndp_edge.engines.openvino import unshare_biases

    model, size = to_unsigned(int8), image_size(int8)
    if "biases" in steps:
        unshare_biases(model)
    if "products" in steps:
        with_products(model, size)
    read = shared_core().read_model(model.SerializeToString())
    read.reshape([1, *size, 3])
    return cpu_request(read, threads, **options)


def variants(int8: onnx.ModelProto, threads: int | None) -> dict[str, Request]:
    """Every variant by name, the engine's own first."""
    found = {name: compiled(int8, steps, {}, threads) for name, steps in STEPS.items()}
    for name, options in SETTINGS.items():
        found[name] = compiled(int8, STEPS[NOW], options, threads)
    return found


def measure(
    requests: dict[str, Request], images: NDArray[np.uint8], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Milliseconds of each variant, one call a round behind one that nobody times."""
    times: dict[str, list[float]] = {name: [] for name in requests}
    rng = np.random.default_rng(0)
    for number in progress(range(rounds), total=rounds, label="timing"):
        image = images[number % len(images)][None]
        for name in rng.permutation(list(requests)):
            requests[name].infer([image])
            began = clock()
            requests[name].infer([image])
            times[name].append(1e3 * (clock() - began))
    return times


def differences(requests: dict[str, Request], images: NDArray[np.uint8]) -> dict[str, float]:
    """Largest absolute change of the anomaly map against the engine's own."""
    maps: dict[str, list[NDArray[np.float32]]] = {name: [] for name in requests}
    for image in images:
        for name, request in requests.items():
            request.infer([image[None]])
            maps[name].append(np.array(request.get_output_tensor(0).data))
    own = np.stack(maps[NOW])
    return {name: float(np.abs(np.stack(found) - own).max()) for name, found in maps.items()}


def run(args: argparse.Namespace) -> int:
    """Measure, print a table, write the JSON."""
    if args.rounds < 3:
        raise InputError(f"--rounds {args.rounds}: at least 3")
    info(f"{args.preset}: calibrating and compiling")
    with tempfile.TemporaryDirectory(prefix="ndp-edge-speed-") as folder:
        net = contenders.net_of_preset(args.preset, Path(folder))
        int8 = onnx.load(net.models["int8"])
    images = net.frames.images
    requests = variants(int8, None if args.wall else 1)
    clock = time.perf_counter if args.wall else time.process_time
    times = measure(requests, images, args.rounds, clock)
    changed = differences(requests, images)
    rows: list[dict[str, Any]] = [
        {
            "variant": name,
            "ms": spread(times[name]).rounded(),
            # Above 1: the engine's own way is faster than this variant, by so much.
            "time_over_own": spread(
                [a / b for a, b in zip(times[name], times[NOW], strict=True)]
            ).rounded(),
            "difference": changed[name],
        }
        for name in requests
    ]
    shown: list[list[object]] = [["variant", "ms", "time x", "95 %", "map moves by"]]
    for row in rows:
        factor = row["time_over_own"]
        span = f"{factor['low']:.3f} to {factor['high']:.3f}"
        ms = f"{row['ms']['point']:.2f}"
        shown.append(
            [row["variant"], ms, f"{factor['point']:.3f}", span, f"{row['difference']:.1e}"]
        )
    print(table(shown), file=text_stream(args.json))
    report = {
        "kind": "ndp-edge-speed-1",
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "preset": args.preset,
        "rounds": args.rounds,
        "time": "clock, all threads" if args.wall else "processor time, one thread",
        "rows": rows,
    }
    emit_json(args.json, report)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point: exit 0 done, 2 a bad option, 3 no OpenVINO (or no torch for a fresh net)."""
    args = parser().parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
