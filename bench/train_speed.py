"""`python -m ndp_edge.bench.train_speed`: how many images a second a training gets through.

Real steps of the real loop, batches made beside it, on noise of the surface's size. The ways
(float32 or bfloat16; on CUDA steps launched one by one or replayed as a graph, with torch.compile
where it is asked for) take turns, and a way's figure is the median over all its steps of a phase.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ndp_edge.bench.result import machine
from ndp_edge.console import (
    add_json_option,
    check_targets,
    emit_json,
    info,
    run_verb,
    table,
    text_stream,
)
from ndp_edge.errors import InputError, MachineError
from ndp_edge.model.config import PRESETS
from ndp_edge.training.command import choose_device

WARM_UP = 8
"""Steps of a phase that do not count: kernels are chosen and the graph is captured in them."""

PICTURES, SIDE = 16, 256


@dataclass(frozen=True)
class Way:
    """How steps are made."""

    name: str
    amp: str
    capture: bool
    compile: bool = False


def ways(device: str, *, compiled: bool) -> list[Way]:
    """What is compared on a device."""
    if device == "cpu":
        return [Way("float32", "none", False), Way("bfloat16", "bf16", False)]
    found = [
        Way("float32, one by one", "none", False),
        Way("bfloat16, one by one", "bf16", False),
        Way("float32, graph", "none", True),
        Way("bfloat16, graph", "bf16", True),
    ]
    return [*found, Way("bfloat16, graph, compiled", "bf16", True, True)] if compiled else found


def seconds(way: Way, preset: str, device: str, args: argparse.Namespace) -> list[list[float]]:
    """Seconds of each counted step, phase by phase."""
    from ndp_edge.model.config import preset as config_of
    from ndp_edge.training.batches import Batches
    from ndp_edge.training.loop import Run, Trainer
    from ndp_edge.training.options import TrainOptions

    total = WARM_UP + args.steps
    options = TrainOptions(
        steps=(total, total), batch_size=args.batch_size, crop=args.crop, amp=way.amp,
        opacity=(0.3, 1.0), structural=0.3, save_every=10**9, sample_every=10**9,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (PICTURES, SIDE, SIDE, 3), dtype=np.uint8)
    clock: list[float] = []

    def tick() -> bool:
        clock.append(time.perf_counter())
        return False

    with tempfile.TemporaryDirectory(prefix="ndp-speed-") as folder:
        out = Path(folder)
        (out / "samples").mkdir()
        run = Run(
            out, config_of(preset), options, Batches(images, [], options, gray=True), images[0],
            None, "", {}, device, workers=args.workers, compile=way.compile,
        )  # fmt: skip
        trainer = Trainer(run, resume=False)
        trainer.capture = way.capture
        trainer.train(tick)
    phases = [clock[:total], clock[total:]]
    # The last step of a phase saves.
    return [list(np.diff(one[WARM_UP - 1 : -1])) for one in phases]


def measured(preset: str, device: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every way of one preset, `--rounds` times in turns: images a second in both phases."""
    taken: dict[Way, list[list[float]]] = {}
    for _ in range(args.rounds):
        for way in ways(device, compiled=args.compile):
            for phase, found in enumerate(seconds(way, preset, device, args)):
                taken.setdefault(way, [[], []])[phase] += found
    rows = []
    for way, phases in taken.items():
        rates = [args.batch_size / float(np.median(one)) for one in phases]
        info(f"{preset}, {way.name}: {rates[0]:.0f} and {rates[1]:.0f} images/s")
        rows.append({"preset": preset, "way": way.name, "images_per_s": rates})
    return rows


def run(args: argparse.Namespace) -> int:
    """All presets; the table and the report."""
    try:
        import torch
    except ImportError as error:
        raise MachineError('training needs torch: pip install "ndp-edge[train]"') from error
    if min(args.steps, args.rounds) < 1:
        raise InputError("--steps and --rounds must be at least 1")
    check_targets(args.json)
    device = choose_device(args.device, torch.cuda.is_available())
    if args.threads:
        torch.set_num_threads(args.threads)
    presets = args.preset or ["nano"]
    rows = [row for name in presets for row in measured(name, device, args)]
    lines = [
        [row["preset"], row["way"], *(f"{rate:.0f}" for rate in row["images_per_s"])]
        for row in rows
    ]
    head = ["preset", "way", "phase 1, images/s", "phase 2, images/s"]
    print(table([head, *lines]), file=text_stream(args.json))
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "device": torch.cuda.get_device_name(0) if device == "cuda" else "CPU",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **{key: getattr(args, key) for key in ("batch_size", "crop", "steps", "rounds", "workers")},
        "rows": rows,
    }
    emit_json(args.json, report)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    p = argparse.ArgumentParser(
        prog="python -m ndp_edge.bench.train_speed", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("--preset", action="append", choices=PRESETS, help="may be repeated (nano)")
    p.add_argument("--batch-size", type=int, default=4)
    p.add_argument("--crop", type=int, default=128)
    p.add_argument("--steps", type=int, default=20, help="counted steps per phase and round")
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--workers", type=int, default=0, help="processes that make batches")
    p.add_argument("--threads", type=int)
    p.add_argument("--compile", action="store_true", help="torch.compile, too (minutes)")
    p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add_json_option(p)
    args = p.parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
