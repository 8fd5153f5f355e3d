"""`bash bench/gpu/verify.sh`: the kernels built, checked, sanitized and timed on this GPU.

Each step is a process of its own with a limit of its own, so that one that hangs or crashes
costs its own results and no more, and all fits in eight minutes. `--dry-run` takes the same
steps to the host build, and writes down no time. Exit: 0 all targets met (dry run: all checks
passed), 1 a check or a target missed or not measured, 2 wrong options, 3 no GPU, nvcc or torch.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ndp_edge.bench.gpu import machine, sanitize, targets
from ndp_edge.bench.gpu.words import NOT_MEASURED
from ndp_edge.console import emit_json, run_verb, table
from ndp_edge.errors import InputError, MachineError

Row = dict[str, Any]

ALL = 465
"""Seconds for everything."""

LIMITS = {"build": 120, "checks": 120, "timing": 170, "memcheck": 90, "racecheck": 90}
"""Seconds for each step, or what is left of ALL."""


@dataclass
class Steps:
    """Runs steps one after the other against one clock."""

    dry_run: bool
    folder: Path
    log: list[Row] = field(default_factory=list)
    end: float = field(default_factory=lambda: time.monotonic() + ALL)

    def limit(self, name: str) -> float:
        """Seconds that the step may take now."""
        return max(1.0, min(LIMITS[name], self.end - time.monotonic()))

    def run(self, name: str, module: str, *options: str) -> tuple[int | None, list[Row]]:
        """A module of this folder as a process: its exit code (None: cut off), its JSON lines."""
        out = self.folder / f"{name}.jsonl"
        host = ["--host"] if self.dry_run else []
        command = [sys.executable, "-m", f"ndp_edge.bench.gpu.{module}", str(out), *host, *options]
        began = time.monotonic()
        code = run_limited(command, self.limit(name))
        self.note(name, began, "cut off" if code is None else f"exit {code}")
        lines = out.read_text().splitlines() if out.exists() else []
        return code, [json.loads(line) for line in lines if line.endswith("}")]

    def note(self, name: str, began: float, outcome: str) -> None:
        """Keeps for the report how a step ended."""
        step = {"step": name, "outcome": outcome}
        # How long a dry run took on a CPU is no figure of a GPU's.
        seconds = NOT_MEASURED if self.dry_run else round(time.monotonic() - began, 1)
        self.log.append(step | {"seconds": seconds})


def run_limited(command: Sequence[str], limit: float) -> int | None:
    """Exit code, or None for what had to be killed, its children with it."""
    process = subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)
    try:
        return process.wait(timeout=limit)
    except BaseException as error:
        os.killpg(process.pid, 9)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return None
        raise


def verify(dry_run: bool) -> Row | None:
    """All steps, and the report that they make; None when a step has said what is missing here.

    Raises:
        MachineError: something without which no step can run.
    """
    for package in ("torch", "numpy"):
        if importlib.util.find_spec(package) is None:
            raise MachineError(f"bench/gpu/verify.sh needs {package}: pip install {package}")
    with tempfile.TemporaryDirectory(prefix="ndp-verify-") as folder:
        steps = Steps(dry_run, Path(folder))
        code, _ = steps.run("build", "build")
        if code == 3:
            return None
        if code != 0:
            raise MachineError(f"the build ended with {steps.log[-1]['outcome']}: see above why")
        small = ["--small"] if dry_run else []
        checked, checks = steps.run("checks", "run_checks", *small)
        timed, timings = steps.run("timing", "run_timing")
        report = {
            **machine.describe(dry_run),
            "dry_run": dry_run,
            "checks_ended": checked in (0, 1),
            "checks": checks,
            "timing_ended": timed == 0,
            "timings": merged(timings),
            "sanitizer": sanitized(steps),
            "steps": steps.log,
        }
    return report | {"targets": targets.judge(report)}


def merged(rows: list[Row]) -> list[Row]:
    """The rows of torch.compile put into those of what they compiled."""
    found = [row for row in rows if not row["name"].startswith("compiled ")]
    for row in rows:
        for one in found:
            keys = ("channels", "side", "batch")
            same = all(one.get(key) == row.get(key) for key in keys)
            if same and row["name"] == f"compiled {one['name']}":
                one["measured"] |= row["measured"]
                if "failures" in row:
                    one["failures"] = [*one.get("failures", []), *row["failures"]]
    return found


def sanitized(steps: Steps) -> dict[str, dict[str, str]]:
    """Both tools' verdicts."""
    found = {}
    for tool in sanitize.TOOLS:
        began = time.monotonic()
        if steps.dry_run:
            said = sanitize.Verdict(NOT_MEASURED, "dry run")
        else:
            said = sanitize.check(tool, steps.limit(tool))
        steps.note(tool, began, said.status)
        found[tool] = {"status": said.status, "why": said.why}
    return found


def passed(report: Row) -> bool:
    """Every check that could run here passed, and there were some."""
    results = [check["passed"] for check in report["checks"]]
    ran = [result for result in results if result is not None]
    return bool(report["checks_ended"] and ran and all(ran))


def show(report: Row) -> None:
    """The short table."""
    failed = [check for check in report["checks"] if check["passed"] is False]
    counts = {word: sum(c["passed"] is word for c in report["checks"]) for word in (True, None)}
    print(f"{report['device']}, torch {report['torch']}, commit {report['commit']}")
    print(f"checks: {counts[True]} passed, {len(failed)} failed, {counts[None]} need a GPU")
    for check in failed:
        print(f"  FAILED {check['name']}: {check['why']}")
    if not report["checks_ended"]:
        print("  the checks did not come to their end")
    for row in report["timings"]:
        for failure in row.get("failures", []):
            print(f"  not timed: {row['name']}: {failure}")
    for lines in (targets.lines, targets.net_lines, targets.target_lines):
        print(f"\n{table(lines(report))}")


def exit_code(report: Row) -> int:
    """See the module's text: what was not measured has not been met."""
    if report["dry_run"]:
        whole = report["timing_ended"] and not any("failures" in row for row in report["timings"])
    else:
        whole = all(one["met"] for one in report["targets"])
    return 0 if passed(report) and whole else 1


def target_path(out: str | None, report: Row) -> str | None:
    """Where the JSON goes; a dry run writes none unless it is named."""
    if out == "-":
        return out
    if out is not None:
        # verify.sh starts this elsewhere than where its user stands.
        return str(Path(os.environ.get("NDP_VERIFY_FROM", ".")).absolute() / out)
    if report["dry_run"]:
        return None
    name = re.sub(r"[^a-z0-9]+", "_", report["device"].lower()).strip("_")
    return str(machine.root() / "bench" / "results" / f"gpu_{name}.json")


def run(args: argparse.Namespace) -> int:
    """Verify, show, write."""
    path = target_path(args.out, {"dry_run": True})
    if path not in (None, "-") and not Path(str(path)).parent.is_dir():
        raise InputError(f"--out {args.out}: there is no such folder")
    report = verify(args.dry_run)
    if report is None:
        return MachineError.exit_code
    path = target_path(args.out, report)
    if path != "-":
        show(report)
    emit_json(path, report)
    return exit_code(report)


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    p = argparse.ArgumentParser(prog="bench/gpu/verify.sh", description=__doc__)
    p.add_argument("--dry-run", action="store_true", help="the host build, small; no GPU, no time")
    p.add_argument("--out", metavar="FILE", help="the JSON (bench/results/gpu_<device>.json)")
    args = p.parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
