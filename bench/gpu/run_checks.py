"""`python -m ndp_edge.bench.gpu.run_checks OUT.json [--host] [--small]`: all checks, no pytest.

One JSON line per check is appended to OUT as it ends, so that a run that is cut short still
says how far it came.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from pathlib import Path
from typing import Any

from ndp_edge.bench.gpu.checks import Case, cases
from ndp_edge.bench.gpu.rig import Rig, WrongError, cuda_rig, host_rig
from ndp_edge.console import info, run_verb


def run_case(case: Case, rig: Rig) -> dict[str, Any]:
    """One check's line: name, passed (None where it cannot run on this rig), why, figures."""
    if case.cuda_only and not rig.real:
        return {"name": case.name, "passed": None, "why": "needs a GPU"}
    try:
        figures = case.run(rig)
    except WrongError as error:
        return {"name": case.name, "passed": False, "why": str(error)}
    except Exception as error:
        # A check that breaks has failed, and the others are still worth running.
        info(traceback.format_exc(limit=-3))
        return {"name": case.name, "passed": False, "why": f"{type(error).__name__}: {error}"}
    # The dry run's errors are the host build's: no figure of a GPU, so none is written.
    return {"name": case.name, "passed": True, "figures": figures if rig.real else "not measured"}


def run(args: argparse.Namespace) -> int:
    """Every check; exit code 1 when one failed."""
    rig = host_rig() if args.host else cuda_rig()
    failed = 0
    with args.out.open("a") as out:
        for case in cases(args.small):
            began = time.monotonic()
            line = run_case(case, rig)
            out.write(json.dumps(line) + "\n")
            out.flush()
            failed += line["passed"] is False
            word = {None: "not run", True: "ok", False: "FAILED"}[line["passed"]]
            why = f": {line['why']}" if "why" in line else ""
            took = f" ({time.monotonic() - began:.1f} s)" if rig.real else ""
            info(f"{word} {case.name}{why}{took}")
    return 1 if failed else 0


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.bench.gpu.run_checks", description=__doc__)
    p.add_argument("out", type=Path, help="a file of JSON lines, appended to")
    p.add_argument("--host", action="store_true", help="the host build, no GPU")
    p.add_argument("--small", action="store_true", help="small levels only")
    args = p.parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
