"""`python -m ndp_edge.bench.soak BUNDLE --minutes 30`: does the line grow, or lose a verdict?

A camera in memory gives JPEG frames at --load of what the engine was measured to manage just
before, in bursts and pauses, for the time asked: mostly tiles of the net's size, some frames
of other sizes, some torn. The line runs with `oldest` and a deadline, writes results and drops,
and somebody turns its threshold once a minute. Memory is looked at every few seconds.

Ends with exit code 1 when a frame has no or more than one verdict or drop, when verdicts are
out of order, or when memory grew by more than --growth from the second to the last quarter.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ndp_edge import heat
from ndp_edge.bench.soak_plot import plot
from ndp_edge.bench.stream import bare
from ndp_edge.bench.stream_rig import account, capture, frame_name, growth, pictures
from ndp_edge.bundle import Bundle
from ndp_edge.console import add_json_option, bar, check_targets, emit_json, run_verb, text_stream
from ndp_edge.errors import GateError, InputError
from ndp_edge.files import write_atomic
from ndp_edge.runtime.engine import open_engine, warm_up
from ndp_edge.runtime.inspect import Judge
from ndp_edge.runtime.layout import Layout
from ndp_edge.runtime.memory import resident_bytes
from ndp_edge.runtime.observing import Control
from ndp_edge.runtime.pipeline import Pipeline
from ndp_edge.runtime.sinks import PictureSink
from ndp_edge.runtime.sources import Captured
from ndp_edge.runtime.summary import Summary
from ndp_edge.runtime.writing import Writer

SAMPLE_SECONDS = 5.0
TURN_SECONDS = 60.0
BURST_SECONDS = 20.0


def parser() -> argparse.ArgumentParser:
    """How long, how hard, and how much growth is too much."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.bench.soak", description=__doc__)
    p.add_argument("bundle", type=Path, metavar="BUNDLE")
    p.add_argument("--minutes", type=float, default=30.0)
    p.add_argument("--load", type=float, default=0.9, help="share of the engine's rate (0.9)")
    p.add_argument("--deadline-ms", type=float, default=1000.0, help="of every frame (1000)")
    p.add_argument("--growth", type=float, default=0.02, help="most growth of the memory (0.02)")
    p.add_argument("--svg", type=Path, metavar="FILE", help="draw the memory over time")
    add_json_option(p)
    return p


class Belt:
    """JPEG frames decoded as they come: one in 5 is wide, one in 50 torn; bursts and pauses.

    Every other `BURST_SECONDS` frames come twice as fast, and in between at half the rate.
    """

    live = True

    def __init__(self, size: int, per_second: float, seconds: float) -> None:
        shown = pictures(24, 8, size)
        wide = np.concatenate([*shown[:2]], axis=1)[:, : size + size // 2]
        self._files = [heat.encode(image) for image in shown]
        self._wide = heat.encode(wide)
        self._period = 1 / per_second
        self._seconds = seconds
        self.offered = 0  # a list of names would be what grows

    def __iter__(self) -> Iterator[Captured]:
        began = due = time.perf_counter()
        while (now := time.perf_counter()) - began < self._seconds:
            time.sleep(max(0.0, due - now))
            fast = int((due - began) / BURST_SECONDS) % 2
            due += self._period * (0.5 if fast else 2.0)
            yield self._frame(self.offered)

    def _frame(self, number: int) -> Captured:
        name = frame_name(number)
        self.offered += 1
        began = time.perf_counter()
        data = self._wide if number % 5 == 4 else self._files[number % len(self._files)]
        if number % 50 == 49:
            return Captured(name, time.time(), None, "the frame is torn", 0.0)
        whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert whole is not None
        image = np.ascontiguousarray(whole[:, :, ::-1], np.uint8)
        read_ms = 1e3 * (time.perf_counter() - began)
        return Captured(name, time.time(), capture(name, image).frame, None, read_ms)


class Curve:
    """Minutes, memory and counts, a sample every few seconds."""

    def __init__(self, summary: Summary) -> None:
        self._summary = summary
        self._began = self._next = time.monotonic()
        self.rows: dict[str, list[float]] = {
            key: [] for key in ("minutes", "resident_mib", "verdicts", "drops")
        }

    def look(self) -> None:
        """Take a sample if it is time."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + SAMPLE_SECONDS
        self.rows["minutes"].append(round((now - self._began) / 60, 3))
        self.rows["resident_mib"].append(round(resident_bytes() / 2**20, 2))
        self.rows["verdicts"].append(self._summary.frames)
        self.rows["drops"].append(sum(self._summary.drops.values()))


def soak(args: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Run the line and report."""
    bundle = Bundle.open(args.bundle)
    size, control, summary = bundle.config.image_size, Control(bundle.threshold), Summary()
    with open_engine(bundle, None) as engine:
        flight = engine.lanes + 1
        warm_up(engine, flight)
        blank = [np.full((1, size, size, 3), 90, np.uint8)]
        began = time.perf_counter()
        bare(engine, blank, 60, flight)
        rate = 60 / (time.perf_counter() - began)
        # One frame in five is two tiles; bursts and pauses average 1.25 times the period's rate.
        frames = args.load * rate / 1.2 / 1.25
        belt = Belt(size, frames, 60 * args.minutes)
        pipeline = Pipeline(
            engine,
            belt,
            Layout(size),
            Judge(control, bundle.hash),
            drop="oldest",
            deadline_ms=args.deadline_ms,
        )
        pictures_ = PictureSink(out, None, "none")
        writer = Writer(out, pictures_, control, summary, deadline_ms=args.deadline_ms)
        curve = Curve(summary)
        with pipeline, writer, bar(label="frames") as told:
            turned = time.monotonic()
            for item in pipeline:
                writer.write(item)
                told.update(item is not None)
                curve.look()
                if time.monotonic() - turned > TURN_SECONDS:
                    turned = time.monotonic()
                    up = control.threshold <= bundle.threshold
                    control.set_threshold(bundle.threshold + (0.01 if up else 0.0), "soak")
        described = engine.describe()
    found = account(out, [frame_name(number) for number in range(belt.offered)])
    return {
        "date": datetime.date.today().isoformat(),
        "minutes": args.minutes,
        "deadline_ms": args.deadline_ms,
        "engine_tiles_per_second": round(rate, 2),
        "offered_frames_per_second": round(frames * 1.25, 2),
        "account": vars(found),
        "exact": found.exact,
        "resident_mib": growth(curve.rows["resident_mib"]),
        **described,
        **summary.to_dict(),
        "curve": curve.rows,
    }


def run(args: argparse.Namespace) -> int:
    """Soak, tell, write the files."""
    if args.minutes * 60 < 8 * SAMPLE_SECONDS:
        raise InputError(f"--minutes {args.minutes}: at least {8 * SAMPLE_SECONDS / 60:.2f}")
    check_targets(args.json, args.svg)
    with tempfile.TemporaryDirectory() as folder:
        report = soak(args, Path(folder))
    emit_json(args.json, report)
    if args.svg is not None:
        write_atomic(args.svg, plot(report).encode())
    told = {key: report[key] for key in ("account", "drops", "late", "resident_mib")}
    total = report["latency_ms"]["total"]
    told["total_ms"] = {part: round(total[part], 1) for part in ("p50", "p95", "p99")}
    for key, value in told.items():
        print(f"{key}: {value}", file=text_stream(args.json))
    if not report["exact"]:
        raise GateError(f"verdicts and drops do not add up: {report['account']}")
    if report["resident_mib"]["growth"] > args.growth:
        raise GateError(f"memory grew: {report['resident_mib']}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    args = parser().parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
