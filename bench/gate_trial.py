"""`python -m ndp_edge.bench.gate_trial BUNDLE`: how often the regression gate is wrong, counted.

Saves one baseline, then runs the real command against it again and again, each time in a
process of its own: unchanged (every alarm is a false one), and in between with a slow-down
planted in the engine's call (every pass is a miss). Whatever else the machine is doing goes on
meanwhile; the load average stands beside each run.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ndp_edge.bench import __main__ as command
from ndp_edge.bench import regression, tables
from ndp_edge.bench.result import machine
from ndp_edge.bench.torch_side import Infer
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
from ndp_edge.ov_core import cpu_request

CALIBRATION = 30
"""Calls of the engine that a planted share of work is measured by."""

BASELINE = 3
"""The baseline gets this many times the rounds of a run that is held against it."""

CHILD = "child"
"""First word of the command line of the processes that measure."""


def parser() -> argparse.ArgumentParser:
    """How many repeats, and how slow the planted ones are."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.bench.gate_trial", description=__doc__)
    p.add_argument("bundle", type=Path, metavar="BUNDLE")
    p.add_argument("--repeats", type=int, default=50, help="unchanged runs")
    p.add_argument("--planted", type=int, default=10, help="slowed runs")
    p.add_argument("--slow", type=float, default=0.25, metavar="S", help="planted slow-down")
    p.add_argument(
        "--plant", choices=PLANTS, default="work", help="more work, or one thread that spins"
    )
    p.add_argument("--engine", default="openvino-int8")
    p.add_argument("--rounds", type=int, default=10)
    p.add_argument("--runs", type=int, default=8)
    p.add_argument("--every", type=float, default=4.0, metavar="S")
    p.add_argument("--max-regress", type=float, default=0.10, metavar="R")
    add_json_option(p)
    return p


def waiting(infer: Infer, share: float) -> Infer:
    """The same answers after `share` more time, in which one thread spins."""

    def call(images: Any) -> Any:
        began = time.perf_counter()
        maps = infer(images)
        end = time.perf_counter() + share * (time.perf_counter() - began)
        while time.perf_counter() < end:
            pass
        return maps

    return call


def working(infer: Infer, share: float) -> Infer:
    """The same answers after `share` more work of the engine's own kind, as added layers are.

    The work is small convolutions on all threads; how many of them make up the share is
    measured beforehand, both taking turns.
    """
    unit, count = small_work(), -1

    def call(images: Any) -> Any:
        nonlocal count
        if count < 0:
            count = round(share * in_units(lambda: infer(images), unit))
        maps = infer(images)
        for _ in range(count):
            unit()
        return maps

    return call


def in_units(work: Callable[[], object], unit: Callable[[], object], many: int = 20) -> float:
    """How many units take as long as the work, the two taking turns."""
    work()
    logs = []
    for _ in range(CALIBRATION):
        began = time.perf_counter()
        work()
        worked = time.perf_counter()
        for _ in range(many):
            unit()
        logs.append(math.log(many * (worked - began) / (time.perf_counter() - worked)))
    return math.exp(statistics.mean(logs))


def small_work() -> Callable[[], object]:
    """About a hundredth of an engine's call: a few small convolutions in OpenVINO."""
    from ndp_edge.bench.int8_ceiling import chain

    request = cpu_request(chain(16, 32).SerializeToString())
    image = np.zeros((1, 16, 32, 32), np.float32)
    return lambda: request.infer([image])


PLANTS = {"work": working, "wait": waiting}


def order(repeats: int, planted: int) -> list[bool]:
    """Which run is planted: spread evenly, so that both kinds meet the same hours."""
    total = repeats + planted
    return [(i + 1) * planted // total > i * planted // total for i in range(total)]


def child(words: list[str]) -> int:
    """One run of the real command, slowed as words[0] by words[1]; the rest are its options."""
    plants, share = PLANTS[words[0]], float(words[1])
    args = command.parser().parse_args(words[2:])
    plant: Callable[[Infer], Infer] | None = (lambda i: plants(i, share)) if share else None
    return run_verb(lambda: command.run_bench(args, plant))


def one_run(args: argparse.Namespace, share: float, out: Path, baseline: Path | None) -> int:
    """Measures in a process of its own and returns its exit code: 0 or 1.

    Raises:
        MachineError: it ended otherwise.
    """
    words = [str(args.bundle), "--engines", args.engine, "--json", str(out)]
    rounds = args.rounds if baseline else BASELINE * args.rounds
    words += ["--rounds", str(rounds), "--runs", str(args.runs)]
    words += ["--every", str(args.every), "--max-regress", str(args.max_regress)]
    words += ["--baseline", str(baseline)] if baseline else []
    program = [sys.executable, "-m", "ndp_edge.bench.gate_trial", CHILD, args.plant]
    program += [str(share), *words]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or not out.is_file():
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise MachineError(f"a run ended with exit code {done.returncode}: {lines[-1]}")
    return done.returncode


def trial(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every run, and the counts."""
    baseline = folder / "baseline.json"
    one_run(args, 0.0, baseline, None)
    runs = []
    saved: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    plan = order(args.repeats, args.planted)
    for i, planted in enumerate(plan):
        out = folder / f"{i}.json"
        code = one_run(args, args.slow if planted else 0.0, out, baseline)
        report = json.loads(out.read_text(encoding="utf-8"))
        saved[planted].append(report)
        (speed,) = report["baseline"]["speed"]
        runs.append(
            {"planted": planted, "alarm": code == 1, "load_average": report["load_average"]}
            | {"rounds": [[one["ratio"], one["cpu_ratio"]] for one in report["rows"][0]["rounds"]]}
            | {
                key: speed[key]
                for key in ("now_ms", "factor", "cpu_factor", "allowance", "verdict")
            }
        )
        told = f"factor {speed['factor']['point']} (at least {speed['factor']['low']}), "
        told += f"CPU time {speed['cpu_factor']['point']} ({speed['cpu_factor']['low']}), "
        told += f"waited {speed['waited']:.2f}"
        kind = "planted" if planted else "unchanged"
        info(f"{i + 1} of {len(plan)}, {kind}: {told}, {speed['verdict']}")
    clean = [json.loads(baseline.read_text(encoding="utf-8")), *saved[False]]
    return counts(runs) | {
        "all_pairs": all_pairs(clean, saved[True], args.max_regress),
        "runs": runs,
    }


def counts(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Alarms among the unchanged and among the planted runs."""
    return {
        "unchanged": sum(not run["planted"] for run in runs),
        "false_alarms": sum(run["alarm"] and not run["planted"] for run in runs),
        "planted": sum(run["planted"] for run in runs),
        "found": sum(run["alarm"] and run["planted"] for run in runs),
    }


def all_pairs(
    clean: list[dict[str, Any]], planted: list[dict[str, Any]], max_regress: float
) -> dict[str, int]:
    """Every earlier unchanged run as the baseline of every later one, and of the planted ones.

    These comparisons share runs, so they are not independent; but no single lucky baseline
    decides them.
    """

    def alarm(before: dict[str, Any], now: dict[str, Any]) -> bool:
        compared = regression.compare(before, now, max_regress=max_regress, max_drop=1.0)
        return not compared.passed

    pairs = list(itertools.combinations(clean, 2))
    crossed = list(itertools.product(clean, planted))
    return {
        "unchanged": len(pairs),
        "false_alarms": sum(alarm(a, b) for a, b in pairs),
        "planted": len(crossed),
        "found": sum(alarm(a, b) for a, b in crossed),
    }


def run(args: argparse.Namespace) -> int:
    """Run the trial, print its counts, write the JSON."""
    if args.repeats < 1 or args.planted < 0 or not args.slow > 0:
        raise InputError("--repeats at least 1, --planted at least 0, --slow above 0")
    check_targets(args.json)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ndp-edge-trial-") as folder:
        found = trial(args, Path(folder))
    settings = ("engine", "rounds", "runs", "every", "plant", "slow", "max_regress")
    report = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "load_average": round(os.getloadavg()[0], 2),
        "seconds": round(time.monotonic() - began),
        "settings": {name: getattr(args, name) for name in settings},
        **found,
    }
    print(table([tables.TRIAL_HEAD, *tables.trial_rows(found)]), file=text_stream(args.json))
    emit_json(args.json, report)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == [CHILD]:
        return child(words[1:])
    args = parser().parse_args(words)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
