"""`python -m ndp_edge.bench.accuracy PLAN`: a whole table of trainings from one command.

Every cell of the plan (surface, preset, recipe, seed) is trained, exported and built by the
package's own verbs, each in a process of its own, and its figures are kept in its folder. Started
again it goes on where it was stopped, within a training too. Recipes are to be compared on the
tune set, good pictures and artificial defects that nothing else has seen; the test folder's
figures stand beside it and choose nothing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ndp_edge import checkpoint
from ndp_edge.bench.accuracy_plan import Cell, read_plan
from ndp_edge.bench.accuracy_table import group, markdown
from ndp_edge.console import (
    add_json_option,
    check_targets,
    emit_json,
    info,
    json_text,
    run_verb,
    text_stream,
)
from ndp_edge.errors import InputError, NdpError
from ndp_edge.files import write_atomic
from ndp_edge.training.options import STATE_NAME

RECORD = "record.json"
PLANS = Path(__file__).parent / "plans"


def parser() -> argparse.ArgumentParser:
    """The plan, where the data are, how many trainings at once."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.bench.accuracy", description=__doc__)
    plans = ", ".join(sorted(path.stem for path in PLANS.glob("*.json")))
    p.add_argument("plan", metavar="PLAN", help=f"a plan's file, or one of: {plans}")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder per cell")
    p.add_argument("--data-root", type=Path, metavar="DIR",
                   help="where the real surfaces are; default: NDP_EDGE_DATA")  # fmt: skip
    p.add_argument("--only", metavar="WORD", help="cells whose folder has this word in its name")
    p.add_argument("--lanes", type=int, default=1, metavar="N", help="trainings at once (1)")
    p.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there, too")
    add_json_option(p)
    return p


def cells_of(args: argparse.Namespace) -> list[Cell]:
    """What is to be done.

    Raises:
        InputError: no such plan, data or cell.
    """
    named = PLANS / f"{args.plan}.json"
    told = os.environ.get("NDP_EDGE_DATA")
    root = args.data_root or (Path(told) if told else None)
    cells = read_plan(named if named.is_file() else Path(args.plan), root)
    wanted = [cell for cell in cells if not args.only or args.only in cell.name]
    if not wanted:
        raise InputError(f"--only {args.only}: no such cell; there are {cells[0].name}, …")
    return wanted


def do(cell: Cell, out: Path) -> dict[str, Any]:
    """One cell's record, from its folder where it is done already.

    Raises:
        InputError: the folder holds the record of other options.
        NdpError: a verb failed.
    """
    folder = out / cell.name
    record = folder / RECORD
    if record.is_file():
        kept: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        if kept["options"] != list(cell.options):
            raise InputError(f"{folder} was trained with other options; choose another --out")
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    info(f"{cell.name} ...")
    minutes = train(cell, folder)
    verb(folder, "export", "--checkpoint", str(folder / "run"), "--out", str(folder / "net.onnx"))
    report = build(cell, folder)
    found = {
        **{key: getattr(cell, key) for key in ("surface", "preset", "recipe", "seed")},
        "options": list(cell.options),
        "minutes": minutes,
        "gate_passed": report["gate"]["passed"],
        "gate_reason": report["gate"]["reason"],
        "test": report["metrics"],
        "tune": {"fp32": tune_figures(cell, folder / "net.onnx")},
    }
    write_atomic(record, json_text(found).encode())
    return found


def train(cell: Cell, folder: Path) -> float:
    """Train, or go on with it; minutes of wall clock, the tries before included."""
    run, clock = folder / "run", folder / "minutes.txt"
    before = float(clock.read_text()) if clock.is_file() else 0.0
    if (run / checkpoint.CHECKPOINT_NAME).is_file() and checkpoint.load(run).training["finished"]:
        return before
    again = ["--resume"] if (run / STATE_NAME).is_file() else []
    began = time.monotonic()
    try:
        verb(folder, "train", *cell.where(), "--out", str(run), *cell.options, *again)
    finally:
        minutes = before + (time.monotonic() - began) / 60
        write_atomic(clock, f"{minutes:.3f}".encode())
    return minutes


def build(cell: Cell, folder: Path) -> dict[str, Any]:
    """`build --int8`'s report; a gate that fails is a result, too."""
    told = folder / "report.json"
    words = ["--checkpoint", str(folder / "net.onnx"), *cell.where(), "--int8", "--force"]
    verb(folder, "build", *words, "--out", str(folder / "bundle"), "--json", str(told), fine=(0, 1))
    report: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
    return report


def verb(folder: Path, name: str, *words: str, fine: tuple[int, ...] = (0,)) -> None:
    """One of the package's verbs; what it says goes to a log in the cell's folder.

    Raises:
        NdpError: it ended with another code than those of `fine`.
    """
    log = folder / f"{name}.log"
    with log.open("ab") as sink:
        command = [sys.executable, "-m", f"ndp_edge.{name}", *words]
        code = subprocess.run(command, stdout=sink, stderr=sink, check=False).returncode
    if code not in fine:
        raise NdpError(f"{name} ended with exit code {code}; {log} says why")


def tune_figures(cell: Cell, model: Path) -> dict[str, float]:
    """FP32 on the tune set: image_auroc, pixel_auroc, aupro."""
    from ndp_edge.build_calibrate import tune_set
    from ndp_edge.build_inputs import load_dataset
    from ndp_edge.calib.artificial import TuneJudge
    from ndp_edge.data.splits import split
    from ndp_edge.engines import choose_on_cpu, open_engine
    from ndp_edge.export.exporter import read_config

    config, training = read_config(model)
    splits = split(load_dataset(cell.data), seed=training.get("split_seed", 0))
    with open_engine(choose_on_cpu(), model, precision="fp32") as engine:
        return TuneJudge(tune_set(splits, config.image_size), engine).fp32


def run(args: argparse.Namespace) -> int:
    """Everything of the plan, then the table."""
    if args.lanes < 1:
        raise InputError(f"--lanes {args.lanes}: at least 1")
    check_targets(args.json, args.markdown)
    cells = cells_of(args)
    with ThreadPoolExecutor(args.lanes) as lanes:
        futures = [lanes.submit(do, cell, args.out) for cell in cells]
        try:
            records = [future.result() for future in futures]
        except BaseException:
            lanes.shutdown(wait=False, cancel_futures=True)
            raise
    rows = group(records)
    text = markdown(rows)
    print(text, file=text_stream(args.json))
    if args.markdown is not None:
        write_atomic(args.markdown, text.encode())
    today = datetime.date.today().isoformat()
    emit_json(args.json, {"date": today, "rows": rows, "cells": records})
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point: exit 0 done, 1 a verb failed, 2 bad input."""
    args = parser().parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
