"""`python -m ndp_edge.bench.accuracy PLAN`: a whole table of trainings from one command.

Every cell of the plan (surface, preset, recipe, seed) is trained, exported and built by the
package's own verbs, each in a process of its own, and its figures are kept in its folder. With
`--judge torch` nothing is exported or built: FP32 alone is judged (`bench.torch_judge`), which
needs no backend; nets that lack a part (`--ablate`, `bench.ablated`) cannot be judged otherwise.
Started again it goes on where it was stopped, within a training too. Recipes are to be compared
on the tune set, good pictures and artificial defects that nothing else has seen; the test folder's
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
from ndp_edge.bench.accuracy_plan import ABLATE, Cell, read_plan
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
JUDGES = ("build", "torch")
LONG = ("pictures", "threshold_scores")
"""Of a record what stays in its folder."""

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
    p.add_argument("--table", action="store_true", help="no training: the table of what is done")
    p.add_argument("--judge", choices=JUDGES, default=JUDGES[0],
                   help="build: FP32 and INT8; torch: FP32, on a GPU if any")  # fmt: skip
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
    cells = read_plan(named if named.is_file() else Path(args.plan), root, args.out)
    wanted = [cell for cell in cells if not args.only or args.only in cell.name]
    if not wanted:
        raise InputError(f"--only {args.only}: no such cell; there are {cells[0].name}, …")
    return wanted


def done(cell: Cell, out: Path, judge: str) -> dict[str, Any] | None:
    """A cell's record where its folder has one.

    Raises:
        InputError: the folder holds the record of other options, or of the other judge.
    """
    record = out / cell.name / RECORD
    if not record.is_file():
        return None
    kept: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    if kept["options"] != list(cell.told):
        raise InputError(f"{record.parent} was trained with other options; choose another --out")
    if kept.get("judge", JUDGES[0]) != judge:
        raise InputError(
            f"{record.parent} was judged otherwise; delete {record}, or change --judge"
        )
    return kept


def do(cell: Cell, out: Path, judge: str) -> dict[str, Any]:
    """One cell's record, from its folder where it is done already.

    Raises:
        InputError: the folder holds the record of other options, or of the other judge.
        NdpError: a verb failed.
    """
    folder = out / cell.name
    record = folder / RECORD
    if (kept := done(cell, out, judge)) is not None:
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    info(f"{cell.name} ...")
    minutes = train(cell, folder)
    found = {
        **{key: getattr(cell, key) for key in ("surface", "preset", "recipe", "seed")},
        "options": list(cell.told),
        "minutes": minutes,
        "judge": judge,
        **(by_torch(cell, folder) if judge == "torch" else by_build(cell, folder)),
    }
    write_atomic(record, json_text(found).encode())
    return found


def by_build(cell: Cell, folder: Path) -> dict[str, Any]:
    """The gate's verdict and the figures of the net as it ships, INT8's among them."""
    verb(folder, "export", "--checkpoint", str(folder / "run"), "--out", str(folder / "net.onnx"))
    report = build(cell, folder)
    return {
        "gate_passed": report["gate"]["passed"],
        "gate_reason": report["gate"]["reason"],
        "test": report["metrics"],
        "tune": {"fp32": tune_figures(cell, folder / "net.onnx")},
    }


def by_torch(cell: Cell, folder: Path) -> dict[str, Any]:
    """`bench.torch_judge`'s report; there is no INT8 and so no gate."""
    told = folder / "judged.json"
    words = [str(folder / "run"), *cell.where(), *cell.device(), "--json", str(told)]
    verb(folder, "bench.torch_judge", *words)
    report: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
    return {"gate_passed": None, "gate_reason": "FP32 alone was judged", **report}


def train(cell: Cell, folder: Path) -> float:
    """Train, or go on with it; minutes of wall clock, the tries before included."""
    run, clock = folder / "run", folder / "minutes.txt"
    before = float(clock.read_text()) if clock.is_file() else 0.0
    if (run / checkpoint.CHECKPOINT_NAME).is_file() and checkpoint.load(run).training["finished"]:
        return before
    again = ["--resume"] if (run / STATE_NAME).is_file() else []
    began = time.monotonic()
    try:
        name = "bench.ablated" if cell.option(ABLATE) else "train"
        verb(folder, name, *cell.where(), "--out", str(run), *cell.options, *again)
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


def do_all(
    cells: list[Cell], args: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[NdpError]]:
    """Every cell, some at a time: the records of those that ended well, the others' errors."""
    records, failed = [], []
    with ThreadPoolExecutor(args.lanes) as lanes:
        futures = [lanes.submit(do, cell, args.out, args.judge) for cell in cells]
        try:
            for future in futures:
                try:
                    records.append(future.result())
                except NdpError as error:
                    info(f"error: {error}")
                    failed.append(error)
        except BaseException:
            lanes.shutdown(wait=False, cancel_futures=True)
            raise
    return records, failed


def run(args: argparse.Namespace) -> int:
    """Everything of the plan, then the table."""
    if args.lanes < 1:
        raise InputError(f"--lanes {args.lanes}: at least 1")
    check_targets(args.json, args.markdown)
    cells = cells_of(args)
    if args.judge == "build" and any(cell.option(ABLATE) not in (None, "none") for cell in cells):
        raise InputError(f"{args.plan} leaves parts of nets out; add --judge torch")
    records = [
        kept for kept in (done(cell, args.out, args.judge) for cell in cells) if kept is not None
    ]
    failed: list[NdpError] = []
    if not args.table:
        records, failed = do_all(cells, args)
    rows = group(records)
    text = markdown(rows)
    print(text, file=text_stream(args.json))
    if args.markdown is not None:
        write_atomic(args.markdown, text.encode())
    today = datetime.date.today().isoformat()
    told = [{k: v for k, v in one.items() if k not in LONG} for one in records]
    emit_json(args.json, {"date": today, "rows": rows, "cells": told})
    if failed:  # the others' work is not lost
        raise failed[0]
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point: exit 0 done, 1 a verb failed, 2 bad input."""
    args = parser().parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
