"""`python -m ndp_edge.bench.faults BUNDLE`: what becomes of the frames when something breaks.

Each fault is brought about for real on a run of its own process: torn files, a source that
changes size, a disk that is slow or full, SIGKILL, SIGTERM, more frames than the engine can
take. Afterwards the folder is read back. A row holds when every frame that was offered has
exactly one verdict or one counted drop, in order, and the exit code is the one it should be.
Ends with exit code 1 when a row does not hold. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
from pathlib import Path
from typing import Any

from ndp_edge.bench.fault_cases import CASES
from ndp_edge.bench.fault_rig import Rig, Row
from ndp_edge.console import add_json_option, check_targets, emit_json, info, run_verb, text_stream
from ndp_edge.errors import GateError, InputError


def parser() -> argparse.ArgumentParser:
    """Which faults."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.bench.faults", description=__doc__)
    p.add_argument("bundle", type=Path, metavar="BUNDLE")
    p.add_argument("--only", metavar="WORD", help="faults whose name has this word")
    add_json_option(p)
    return p


def markdown(rows: list[Row]) -> str:
    """The table."""
    head = ["fault", "offered", "verdicts", "drops", "errors", "exit", "holds", "seen"]
    lines = [head, ["---", *["---:"] * 5, "---", "---"]]
    lines += [[str(cell) for cell in row.cells()] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def run(args: argparse.Namespace) -> int:
    """Bring every fault about, print the table."""
    cases = {name: case for name, case in CASES.items() if not args.only or args.only in name}
    if not cases:
        raise InputError(f"no fault with {args.only!r} in its name; there are {', '.join(CASES)}")
    check_targets(args.json)
    rows: list[Row] = []
    for name, case in cases.items():
        info(f"{name} ...")
        with tempfile.TemporaryDirectory() as folder:
            rows += case(Rig(args.bundle.resolve(), Path(folder)))
    print(markdown(rows), file=text_stream(args.json))
    report: dict[str, Any] = {"date": datetime.date.today().isoformat()}
    emit_json(args.json, {**report, "rows": [vars(row) for row in rows]})
    broken = [row.fault for row in rows if not row.holds]
    if broken:
        raise GateError(f"does not hold: {', '.join(broken)}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    args = parser().parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
