"""`python -m ndp_edge.bench.gpu.run_timing OUT.json [--host]`: all timings, a JSON line each.

What matters most comes first (the kernels, then the net, then torch.compile, which takes its
time), so that a run that is cut short has it. Numbers stand under "measured"; one that was not
measured says so there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ndp_edge.bench.gpu import work
from ndp_edge.bench.gpu.checks import LEVELS, SMALL_LEVELS
from ndp_edge.bench.gpu.net import nets
from ndp_edge.bench.gpu.rig import Rig, cuda_rig, host_rig
from ndp_edge.bench.gpu.timer import Attempts, CudaTimer, NoTimer, Timer, copy_rate, matmul_rate
from ndp_edge.bench.gpu.words import NOT_MEASURED, number, over
from ndp_edge.console import info, run_verb

Row = dict[str, Any]


def works(rig: Rig) -> Iterator[work.Work]:
    """Every kernel at every size, batch 1 and 8 where the batch matters."""
    levels = LEVELS if rig.real else SMALL_LEVELS
    for channels, side in levels:
        yield work.rbfrm(rig, channels, side)
    for channels, side in levels:
        yield work.ffm_select(rig, channels, side)
    yield work.ffm_select(rig, *levels[0], batch=8)
    for batch in (1, 8):
        yield work.smooth_max(rig, 256 if rig.real else 16, batch)


def rates(rig: Rig, timer: Timer) -> tuple[Row, float | None, float | None]:
    """The row of what this device can do, bytes per us, operations per us."""
    copied = copy_rate(timer, rig.device, 512 if rig.real else 1)
    product = matmul_rate(timer, rig.device, 8192 if rig.real else 64)
    measured = {
        "copy_gb_per_s": number(copied, 1e-3),
        "matmul_tflop_per_s": number(product, 1e-6),
    }
    return {"name": "rates", "measured": measured}, copied, product


def measure(one: work.Work, timer: Timer, copied: float | None, product: float | None) -> Row:
    """All but torch.compile of one row."""
    tries = Attempts(timer)
    kernel = tries.graph("kernel", one.kernel)
    by_layout = {k: tries.graph(f"decomposed {k}", calls) for k, calls in one.decomposed.items()}
    graph = min((t for t in by_layout.values() if t is not None), default=None)
    eager = tries.eager("eager", next(iter(one.decomposed.values())))
    floor = max(one.bytes / copied, one.operations / product) if copied and product else None
    measured = {
        "kernel_us": number(kernel),
        "decomposed_eager_us": number(eager),
        "decomposed_graph_us": number(graph),
        "decomposed_graph_us_by_layout": {k: number(v) for k, v in by_layout.items()},
        "decomposed_graph_reference_prepared_us": number(tries.graph("prepared", one.prepared)),
        "compiled_us": NOT_MEASURED,
        "floor_us": number(floor),
        "copy_of_as_many_bytes_us": number(tries.graph("copy", one.copies)),
        "times_faster_than_graph": over(graph, kernel),
        "times_the_floor": over(kernel, floor),
        "share_of_copy_bandwidth": over(one.bytes / copied if copied else None, kernel),
    }
    limit = {"bytes": one.bytes, "operations": one.operations, "input_sets": one.sets}
    return {"name": one.name, **one.what, **limit, "measured": measured, **tries.report()}


def compiled(one: work.Work, timer: Timer) -> Row:
    """torch.compile in its default mode, captured in a graph like the others; or why not."""
    torch.compiler.reset()
    function, given = one.compiled
    made = torch.compile(function, dynamic=False)
    tries = Attempts(timer)
    taken = tries.graph("torch.compile", [partial(made, *a) for a in given])
    measured = {"compiled_us": number(taken)}
    return {"name": f"compiled {one.name}", **one.what, "measured": measured, **tries.report()}


def run(args: argparse.Namespace) -> int:
    """Rates, kernels, nets, then torch.compile's times as rows of their own."""
    rig = host_rig() if args.host else cuda_rig()
    timer: Timer = CudaTimer() if rig.real else NoTimer()
    torch.manual_seed(0)
    with args.out.open("a") as out, torch.no_grad():

        def write(row: Row) -> None:
            out.write(json.dumps(row) + "\n")
            out.flush()
            done = "timed" if rig.real else "went through"
            info(f"{done} {' '.join(f'{k} {v}' for k, v in row.items() if k != 'measured')}")

        row, copied, product = rates(rig, timer)
        write(row)
        for one in works(rig):
            write(measure(one, timer, copied, product))
        for row in nets(rig, timer):
            write(row)
        if rig.real:  # on a host it would compile other code than the GPU's
            for one in works(rig):
                write(compiled(one, timer))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.bench.gpu.run_timing", description=__doc__)
    p.add_argument("out", type=Path, help="a file of JSON lines, appended to")
    p.add_argument("--host", action="store_true", help="the host build: no time is written down")
    args = p.parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
