"""`python -m ndp_edge.bench.pipeline_share`: where a frame's time goes, from file to verdict.

Every frame of a folder goes through what `run` does with it, once with each precision of a bundle,
the precisions taking turns frame by frame, one stage after the other in one thread: read and
decode, shrink to the net's size, infer, 5x5 median and maximum, defect regions, write (map,
overlay, line of results). A share is a stage's median over the sum of the medians. The source's
folder is read from the system's cache after the first round: a camera or a cold disk takes what it
takes.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ndp_edge.bundle import Bundle
from ndp_edge.console import add_json_option, emit_json, info, run_verb, table, text_stream
from ndp_edge.engines import card_sm, open_engine
from ndp_edge.engines.base import Engine
from ndp_edge.errors import InputError
from ndp_edge.image import to_square
from ndp_edge.postprocess import find_defects, smooth_max
from ndp_edge.runtime.linelog import LineLog
from ndp_edge.runtime.sinks import RESULTS, PictureSink, to_line
from ndp_edge.runtime.sources import Captured, FolderSource
from ndp_edge.types import Result

STAGES = ("read", "shrink", "infer", "median", "regions", "write")
WARM_UP = 3
"""Frames that are not counted: first calls allocate, and the files come into the cache."""

Times = dict[str, list[float]]


def parser() -> argparse.ArgumentParser:
    """The bundle, the frames, how many of them."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.bench.pipeline_share", description=__doc__)
    p.add_argument("bundle", type=Path, metavar="BUNDLE")
    p.add_argument(
        "--source", type=Path, required=True, metavar="FOLDER", help="pictures, in sorted order"
    )
    p.add_argument(
        "--frames", type=int, default=60, metavar="N", help="timed; a smaller folder is repeated"
    )
    add_json_option(p)
    return p


class Line:
    """One precision's whole way of a frame; its stages' milliseconds gather in `times`."""

    def __init__(self, engine: Engine, bundle: Bundle, out: Path, names: list[str] | None) -> None:
        out.mkdir()
        self.times: Times = {stage: [] for stage in STAGES}
        self._engine = engine
        self._bundle = bundle
        self._size = bundle.config.image_size
        self._pictures = PictureSink(out, names)
        self._log = LineLog(out / RESULTS)

    def __enter__(self) -> Line:
        self._log.__enter__()
        return self

    def __exit__(self, *why: object) -> None:
        self._log.__exit__(*why)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.times[stage].append(1e3 * (time.perf_counter() - began))

    def take(self, captured: Captured) -> None:
        """Judge one frame and write it down.

        Raises:
            InputError: it cannot be read, or does not fit the net.
        """
        frame, threshold = captured.frame, self._bundle.threshold
        if frame is None:
            raise InputError(str(captured.error))
        self.times["read"].append(captured.read_ms)
        with self._timed("shrink"):
            image = to_square(frame.image, self._size)
        with self._timed("infer"):
            maps = self._engine.infer(image[np.newaxis])
        with self._timed("median"):
            smoothed, scores = smooth_max(maps)
        with self._timed("regions"):
            defects = tuple(find_defects(smoothed[0], threshold))
        with self._timed("write"):
            score = float(scores[0])
            result = Result(
                frame.name,
                frame.time,
                score,
                threshold,
                "reject" if score > threshold else "ok",
                defects,
                {},
                self._bundle.hash,
            )
            self._pictures.write(frame.name, frame.image, smoothed[0], result)
            self._log.append(to_line(result))


def measure(bundle: Bundle, folder: Path, frames: int) -> dict[str, Any]:
    """Every precision of the bundle's backend over the same frames.

    Returns:
        device, versions, backend, frames, image_size, source_size (the first frame's height and
        width), and precisions: name -> {stages: stage -> {p50, share}, total_ms: p50 of the
        whole frame}; shares in [0, 1] that sum to 1, times in milliseconds.

    Raises:
        InputError: a frame that cannot be read or judged.
        MachineError: the backend is missing.
    """
    backend, shipped = bundle.default
    names = sorted(set(bundle.precisions(backend)), key=["fp32", "fp16", "int8"].index)
    source = FolderSource(folder)
    first = next(iter(source)).frame
    with ExitStack() as stack:
        out = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ndp-edge-share-")))
        engines, lines = {}, {}
        for name in names:
            model = bundle.engine_path(backend, name, card_sm())
            engines[name] = stack.enter_context(open_engine(backend, model, precision=name))
            line = Line(engines[name], bundle, out / name, source.names)
            lines[name] = stack.enter_context(line)
        info(f"{frames} frames through {' and '.join(names)} of {backend}")
        turns = {name: itertools.chain.from_iterable(itertools.repeat(source)) for name in names}
        for index in range(WARM_UP + frames):
            for name in names if index % 2 == 0 else reversed(names):
                lines[name].take(next(turns[name]))
        described = engines[shipped].describe()
    return {
        "backend": backend,
        "device": described.get("device"),
        "versions": described.get("versions"),
        "frames": frames,
        "image_size": bundle.config.image_size,
        "source_size": list(first.image.shape[:2]) if first is not None else None,
        "precisions": {name: _figures(line.times) for name, line in lines.items()},
    }


def _figures(times: Times) -> dict[str, Any]:
    counted = {stage: ms[WARM_UP:] for stage, ms in times.items()}
    middle = {stage: float(np.median(ms)) for stage, ms in counted.items()}
    total = sum(middle.values())
    whole = np.sum([counted[stage] for stage in STAGES], axis=0)
    return {
        "stages": {
            stage: {"p50": round(ms, 3), "share": round(ms / total, 4)}
            for stage, ms in middle.items()
        },
        "total_ms": round(float(np.median(whole)), 3),
    }


def show(found: dict[str, Any]) -> str:
    """The table for a terminal: milliseconds and share of each stage, per precision."""
    told = found["precisions"]
    rows = [["stage", *itertools.chain(*([f"{name.upper()} ms", "share"] for name in told))]]
    for stage in STAGES:
        cells = [figures["stages"][stage] for figures in told.values()]
        shown = ([f"{cell['p50']:.2f}", f"{100 * cell['share']:.1f} %"] for cell in cells)
        rows.append([stage, *itertools.chain(*shown)])
    totals = ([f"{figures['total_ms']:.2f}", ""] for figures in told.values())
    rows.append(["whole frame", *itertools.chain(*totals)])
    text = table(rows)
    if {"fp32", "int8"} <= set(told):
        gain = told["fp32"]["total_ms"] / told["int8"]["total_ms"]
        infer = [told[name]["stages"]["infer"]["p50"] for name in ("fp32", "int8")]
        text += (
            f"\nINT8: {infer[0] / infer[1]:.2f} x in infer, {gain:.2f} x over the whole frame "
            f"({found['device']})"
        )
    return text


def run(args: argparse.Namespace) -> int:
    """Measure, print the table, write the JSON."""
    if args.frames < 5:
        raise InputError(f"--frames {args.frames}: at least 5, for a median that means something")
    found = measure(Bundle.open(args.bundle), args.source, args.frames)
    print(show(found), file=text_stream(args.json))
    emit_json(args.json, {"date": datetime.date.today().isoformat(), **found})
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point: exit 0 done, 2 bad input, 3 no backend."""
    args = parser().parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
