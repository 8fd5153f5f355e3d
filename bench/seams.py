"""`python -m ndp_edge.bench.seams BUNDLE`: what tiles show of themselves, and what a frame costs.

A piece of the built-in surface larger than the frame is cut out twice, (--shift) pixels apart, so
that the same material lies differently under the tiles. Both go through the bundle's engine and
the tiler. Away from the borders the two smoothed maps should be equal: what they differ by is
what the tiles' places make of one and the same material. Where the last tiles of a row or column
leave the tiler's grid, to end with the frame, the net itself answers a little differently (see
below): that part of the frame is `mean_last` and `max_last`. Beside it, `step_one` is the mean
difference of horizontal neighbours in the map where one tile alone has its say, and `step_blend`
where tiles are blended: a seam that one can see would make the second the larger.

The shift must be a multiple of the tiler's grid. By other shifts the net itself gives another
map, also of a single tile: --alone tells by how much, per shift. Times are of whole frames, with
the engine tuned for throughput. Square pictures of one tile are what the threshold was made
for; the maximum over a frame of many tiles is higher (`score`, of a good frame).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge import engines
from ndp_edge.bundle import Bundle
from ndp_edge.console import (
    add_json_option,
    check_targets,
    emit_json,
    info,
    run_verb,
    table,
    text_stream,
)
from ndp_edge.data.surface import draw
from ndp_edge.engines.base import Engine, Images, Maps
from ndp_edge.errors import InputError
from ndp_edge.postprocess import smooth_max
from ndp_edge.runtime.tiler import GRID, Tiler

AWAY = 48
"""Pixels from the frame's borders that are left out: there only one tile has its say."""


def parser() -> argparse.ArgumentParser:
    """Which frame, which overlaps, how often it is timed."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.bench.seams", description=__doc__)
    p.add_argument("bundle", type=Path, metavar="BUNDLE")
    p.add_argument("--precision", help="fp32, fp16 or int8; the bundle's default if left out")
    p.add_argument("--frame", type=int, nargs=2, default=(1913, 2624), metavar=("H", "W"))
    p.add_argument("--overlap", type=int, nargs="+", default=[32, 64, 96], metavar="PX")
    p.add_argument("--shift", type=int, nargs=2, default=(80, 112), metavar=("DY", "DX"))
    p.add_argument("--alone", type=int, nargs="*", default=[1, 2, 4, 8, 16], metavar="PX")
    p.add_argument("--runs", type=int, default=3, help="timed runs of a frame (3)")
    add_json_option(p)
    return p


def maps_of(engine: Engine, tiles: Images, out: Maps) -> None:
    """The maps of all tiles, with as many requests under way as keep the engine busy."""
    waiting: list[tuple[int, int]] = []
    for number in range(len(tiles) + engine.lanes):
        if number < len(tiles):
            waiting.append((number, engine.submit(tiles[number : number + 1])))
        if number >= engine.lanes and waiting:
            place, ticket = waiting.pop(0)
            engine.collect(ticket, out[place : place + 1])


def blended(engine: Engine, image: NDArray[np.uint8], tiler: Tiler) -> NDArray[np.float32]:
    """The smoothed map of a frame."""
    maps = np.empty((tiler.count, tiler.tile, tiler.tile), np.float32)
    maps_of(engine, tiler.cut(image), maps)
    smoothed: NDArray[np.float32] = smooth_max(tiler.stitch(maps)[np.newaxis])[0][0]
    return smoothed


def seams(
    engine: Engine, surface: NDArray[np.uint8], tiler: Tiler, shift: tuple[int, int]
) -> dict[str, float]:
    """How two maps of one material differ, and what the first shows at its tiles' edges."""
    (height, width), (dy, dx) = tiler.frame, shift
    first = blended(engine, np.ascontiguousarray(surface[:height, :width]), tiler)
    moved = np.ascontiguousarray(surface[dy : dy + height, dx : dx + width])
    second = blended(engine, moved, tiler)
    a = first[dy + AWAY : height - AWAY, dx + AWAY : width - AWAY]
    b = second[AWAY : height - AWAY - dy, AWAY : width - AWAY - dx]
    apart = np.abs(a - b)
    rows, columns = (
        last - by - AWAY if last % GRID else size
        for last, by, size in zip(tiler.origins[-1], shift, apart.shape, strict=True)
    )
    on_grid = np.zeros(apart.shape, np.bool_)
    on_grid[: max(0, rows), : max(0, columns)] = True
    difference, last = apart[on_grid], apart[~on_grid]
    steps = np.abs(np.diff(first, axis=1)).mean(axis=0)
    cover = np.zeros(width)
    for start in {x for _, x in tiler.origins}:
        cover[start : start + tiler.tile] += 1
    blend = cover[1:] > 1
    return {
        "mean": _mean(difference),
        "p99_9": float(np.quantile(difference, 0.999)) if difference.size else 0.0,
        "max": float(difference.max(initial=0)),
        "mean_last": _mean(last),
        "max_last": float(last.max(initial=0)),
        "step_one": _mean(steps[~blend]),
        "step_blend": _mean(steps[blend]),
        "score": float(first.max()),
    }


def _mean(values: NDArray[np.float32]) -> float:
    """0 of none."""
    return float(values.mean()) if values.size else 0.0


def alone(engine: Engine, surface: NDArray[np.uint8], shift: int) -> dict[str, float]:
    """How the map of a single tile changes when the material moves by `shift` pixels."""
    size, worst = engine.size[0], (0.0, 0.0)
    for number in range(1, 4):
        y = number * (surface.shape[0] - size) // 4
        x = number * (surface.shape[1] - size - shift) // 4
        a, b = (
            engine.infer(np.ascontiguousarray(surface[np.newaxis, y : y + size, at : at + size]))[0]
            for at in (x, x + shift)
        )
        here = np.abs(a[AWAY:-AWAY, AWAY + shift : -AWAY] - b[AWAY:-AWAY, AWAY : -AWAY - shift])
        worst = max(worst[0], float(here.mean())), max(worst[1], float(here.max()))
    return {"shift": shift, "mean": worst[0], "max": worst[1]}


def timed(
    engine: Engine, image: NDArray[np.uint8], tiler: Tiler, runs: int
) -> dict[str, list[float]]:
    """Milliseconds per stage of a whole frame, one figure a run; memory is there beforehand."""
    tiles = tiler.cut(image)
    maps = np.empty((tiler.count, tiler.tile, tiler.tile), np.float32)
    whole = np.empty(tiler.frame, np.float32)
    told: dict[str, list[float]] = {"cut": [], "infer": [], "stitch": [], "judge": []}
    for _ in range(runs):
        marks = [time.perf_counter()]
        for step in (
            lambda: tiler.cut(image, tiles),
            lambda: maps_of(engine, tiles, maps),
            lambda: tiler.stitch(maps, whole),
            lambda: smooth_max(whole[np.newaxis]),
        ):
            step()
            marks.append(time.perf_counter())
        for stage, began, ended in zip(told, marks, marks[1:], strict=False):
            told[stage].append(1e3 * (ended - began))
    return told


def run(args: argparse.Namespace) -> int:
    """The bench's body."""
    check_targets(args.json)
    bundle = Bundle.open(args.bundle)
    size, (height, width), shift = bundle.config.image_size, args.frame, tuple(args.shift)
    if any(step % GRID or step < 0 for step in shift):
        raise InputError(f"--shift {shift}: multiples of {GRID}; --alone tells of others")
    if min(height - shift[0], width - shift[1]) <= 2 * AWAY + max(args.alone, default=0):
        raise InputError(f"--frame {height} {width} is too small for the shift {shift}")
    info("drawing the surface")
    surface, _, _ = draw("woven", 1, 3, size=max(height + shift[0], width + shift[1]))
    report: dict[str, Any] = {"frame": [height, width], "shift": list(shift), "overlaps": []}
    backend, precision = bundle.default
    precision = args.precision or precision
    model = bundle.engine_path(backend, precision, engines.card_sm())
    with engines.open_engine(backend, model, precision=precision, latency=False) as engine:
        report |= {"threshold": bundle.threshold, **engine.describe()}
        for overlap in args.overlap:
            info(f"overlap {overlap}")
            tiler = Tiler((height, width), size, overlap)
            found = seams(engine, surface, tiler, shift)
            image = np.ascontiguousarray(surface[:height, :width])
            ms = timed(engine, image, tiler, args.runs)
            report["overlaps"].append({"overlap": overlap, "tiles": tiler.count, **found, "ms": ms})
        report["alone"] = [alone(engine, surface, shift) for shift in args.alone]
    tell(report, args.json)
    return 0


def tell(report: dict[str, Any], json_path: str | None) -> None:
    """The tables, and the JSON."""
    rows = [["overlap", "tiles", "mean", "p99.9", "max", "last", "step", "in blends", "frame ms"]]
    for one in report["overlaps"]:
        total = sum(float(np.median(ms)) for ms in one["ms"].values())
        figures = (
            one[key] for key in ("mean", "p99_9", "max", "max_last", "step_one", "step_blend")
        )
        row = [str(one["overlap"]), str(one["tiles"]), *(f"{v:.4f}" for v in figures)]
        rows.append([*row, f"{total:.0f}"])
    single = [["one tile moved by", "mean", "max"]]
    single += [
        [str(one["shift"]), f"{one['mean']:.4f}", f"{one['max']:.4f}"] for one in report["alone"]
    ]
    emit_json(json_path, report)
    print(f"{table(rows)}\n\n{table(single)}", file=text_stream(json_path))


def main(argv: list[str] | None = None) -> int:
    """Entry point: exit 0 done, 2 wrong options or no bundle."""
    args = parser().parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
