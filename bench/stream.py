"""`python -m ndp_edge.bench.stream BUNDLE`: what the pipeline costs over the bare engine.

One engine, two ways to feed it, by turns in blocks of --block frames, so that whatever else
the machine does hits both alike: a bare loop that keeps as many requests under way and throws
the maps away, and the whole pipeline with its verdicts, lines and fsync. Frames are in memory
(a camera's are, too). Both blocks fill and drain. The share is told twice: by the clock, and
by the processor time of a tile, which neighbours on the machine do not touch.

Ends with exit code 1 when a verdict is missing, doubled or out of order, when the pipeline has
less than --goal of the bare throughput by either measure, or when memory grew by more than
--growth from the second to the last quarter.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ndp_edge.bench.stream_rig import Camera, account, frame_name, growth, pictures
from ndp_edge.bundle import Bundle
from ndp_edge.console import (
    add_json_option,
    bar,
    check_targets,
    emit_json,
    info,
    run_verb,
    table,
    text_stream,
)
from ndp_edge.engines.base import Engine, Images
from ndp_edge.errors import GateError, InputError
from ndp_edge.runtime.engine import open_engine, warm_up
from ndp_edge.runtime.inspect import Judge
from ndp_edge.runtime.layout import Layout
from ndp_edge.runtime.memory import resident_bytes
from ndp_edge.runtime.observing import Control
from ndp_edge.runtime.pipeline import Pipeline
from ndp_edge.runtime.sinks import KEEPS, PictureSink
from ndp_edge.runtime.summary import Summary
from ndp_edge.runtime.work import Dropped, Work
from ndp_edge.runtime.writing import Writer

INTERRUPTED = 4.0
"""A block that takes so many times the usual was stopped from outside."""


def parser() -> argparse.ArgumentParser:
    """How many frames, in what blocks, and what counts as good enough."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.bench.stream", description=__doc__)
    p.add_argument("bundle", type=Path, metavar="BUNDLE")
    p.add_argument("--frames", type=int, default=10_000, help="through the pipeline (10000)")
    p.add_argument("--block", type=int, default=125, help="frames per turn (125)")
    p.add_argument("--in-flight", type=int, help="requests under way, in both; default: auto")
    p.add_argument("--keep", choices=KEEPS, default="none", help="pictures to write (none)")
    p.add_argument("--goal", type=float, default=0.90, help="least share of the bare throughput")
    p.add_argument("--growth", type=float, default=0.02, help="most growth of the memory")
    add_json_option(p)
    return p


def bare(engine: Engine, images: list[Images], frames: int, in_flight: int) -> None:
    """The engine alone: `frames` images, `in_flight` requests under way, the maps thrown away."""
    out = np.empty((1, *engine.size), np.float32)
    under_way: deque[int] = deque()
    for number in range(frames):
        if len(under_way) >= in_flight:
            engine.collect(under_way.popleft(), out)
        under_way.append(engine.submit(images[number % len(images)]))
    while under_way:
        engine.collect(under_way.popleft(), out)


def through(items: Iterator[Work | Dropped | None], writer: Writer, frames: int) -> None:
    """Write what comes out of the pipeline until so many frames are written."""
    left = frames
    while left:
        item = next(items)
        writer.write(item)
        left -= item is not None


def clocked(rows: dict[str, list[float]], name: str, began: tuple[float, float]) -> None:
    """Add the wall and processor seconds since `began`."""
    rows[f"{name}_seconds"].append(time.perf_counter() - began[0])
    rows[f"{name}_cpu_seconds"].append(time.process_time() - began[1])


def measure(args: argparse.Namespace, out: Path) -> dict[str, Any]:
    """All figures of the run."""
    bundle = Bundle.open(args.bundle)
    size, blocks = bundle.config.image_size, args.frames // args.block
    shown = pictures(56, 8, size)
    batches = [image[np.newaxis] for image in shown]
    camera, control = Camera(shown, blocks * args.block), Control(bundle.threshold)
    summary = Summary()
    keys = [f"{way}_{kind}" for way in ("bare", "pipeline") for kind in ("seconds", "cpu_seconds")]
    rows: dict[str, list[float]] = {key: [] for key in (*keys, "resident_mib")}
    with open_engine(bundle, args.in_flight) as engine:
        pipeline = Pipeline(
            engine, camera, Layout(size), Judge(control, bundle.hash), in_flight=args.in_flight
        )
        flight = pipeline.in_flight
        warm_up(engine, flight)
        writer = Writer(out, PictureSink(out, None, args.keep), control, summary)
        with pipeline, writer, bar(total=blocks, label="blocks") as told:
            items = iter(pipeline)
            for block in range(blocks):
                for way in ("bare", "pipeline")[:: 1 if block % 2 else -1]:
                    began = (time.perf_counter(), time.process_time())
                    if way == "bare":
                        bare(engine, batches, args.block, flight)
                    else:
                        camera.release(args.block)
                        through(items, writer, args.block)
                    clocked(rows, way, began)
                rows["resident_mib"].append(resident_bytes() / 2**20)
                told.update()
        described = engine.describe()
    return {**figures(args.block, rows), **described, "in_flight": flight, **summary.to_dict()}


def figures(block: int, rows: dict[str, list[float]]) -> dict[str, Any]:
    """Rates, their ratio, and the memory of the quarters, from the blocks.

    A pair of blocks in which either took over `INTERRUPTED` times as long as such blocks usually
    do was stopped from outside (a suspended process or machine). Its times are left out of the
    rates and it is counted; its frames, verdicts and memory count as all others do.
    """
    memory = rows["resident_mib"]
    usual = {way: statistics.median(rows[f"{way}_seconds"]) for way in ("bare", "pipeline")}
    kept = [
        index
        for index in range(len(memory))
        if all(rows[f"{way}_seconds"][index] <= INTERRUPTED * usual[way] for way in usual)
    ]
    interrupted, blocks = len(memory) - len(kept), len(kept)
    timed = {key: [rows[key][index] for index in kept] for key in rows if key != "resident_mib"}
    pairs = [a / b for a, b in zip(timed["bare_seconds"], timed["pipeline_seconds"], strict=True)]
    low, middle, high = (float(q) for q in np.percentile(pairs, [25, 50, 75]))
    return {
        "interrupted_blocks": interrupted,
        "tiles_per_second": {
            way: round(blocks * block / sum(timed[f"{way}_seconds"]), 3)
            for way in ("bare", "pipeline")
        },
        "share_of_bare": {
            "whole_run": round(sum(timed["bare_seconds"]) / sum(timed["pipeline_seconds"]), 4),
            "median_of_pairs": round(middle, 4),
            "q25": round(low, 4),
            "q75": round(high, 4),
            "by_cpu_time": round(
                sum(timed["bare_cpu_seconds"]) / sum(timed["pipeline_cpu_seconds"]), 4
            ),
        },
        "cpu_ms_per_tile": {
            way: round(1e3 * sum(timed[f"{way}_cpu_seconds"]) / (blocks * block), 3)
            for way in ("bare", "pipeline")
        },
        "resident_mib": growth(memory),
        "blocks": {key: [round(v, 3) for v in values] for key, values in rows.items()},
    }


def judge(args: argparse.Namespace, report: dict[str, Any]) -> list[str]:
    """What falls short, one line each."""
    short = []
    counts = report["account"]
    if counts["lost"] or counts["doubled"] or not counts["in_order"]:
        short.append(f"verdicts: {counts}")
    growth = report["resident_mib"]["growth"]
    for way in ("whole_run", "by_cpu_time"):
        if (share := report["share_of_bare"][way]) < args.goal:
            short.append(f"{way}: {share:.3f} of the bare throughput, goal {args.goal}")
    if growth > args.growth:
        short.append(f"memory grew by {100 * growth:.2f} %, at most {100 * args.growth:g} %")
    return short


def run(args: argparse.Namespace) -> int:
    """Measure, print a table, write the JSON."""
    if args.block < 1 or args.frames < 4 * args.block:
        raise InputError("--frames: at least four blocks, to tell the quarters apart")
    check_targets(args.json)
    with tempfile.TemporaryDirectory() as folder:
        report = measure(args, Path(folder))
        names = [frame_name(n) for n in range(args.frames // args.block * args.block)]
        found = account(Path(folder), names)
    report = {
        "date": datetime.date.today().isoformat(),
        "frames": found.offered,
        "block": args.block,
        "keep": args.keep,
        "account": vars(found),
        **{key: value for key, value in report.items() if key != "frames"},
    }
    rates, share, memory = (
        report[key] for key in ("tiles_per_second", "share_of_bare", "resident_mib")
    )
    rows: list[list[object]] = [
        ["", "bare", "pipeline"],
        ["tiles a second", rates["bare"], rates["pipeline"]],
        ["CPU ms a tile", *report["cpu_ms_per_tile"].values()],
    ]
    for stage, ms in report["latency_ms"].items():
        rows.append([f"{stage} ms p50/p95/p99", "", " ".join(f"{ms[p]:.1f}" for p in P)])
    info(f"{found}")
    out = text_stream(args.json)
    print(table(rows), file=out)
    print(f"share of the bare throughput: {share}\nresident MiB: {memory}", file=out)
    emit_json(args.json, report)
    short = judge(args, report)
    if short:
        raise GateError("; ".join(short))
    return 0


P = ("p50", "p95", "p99")


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    args = parser().parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
