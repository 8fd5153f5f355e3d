"""compute-sanitizer over a few small launches: `python -m ndp_edge.bench.gpu.sanitize` are they.

Three outcomes, never mixed up: clean, errors, not measured (no such tool, a device that it does
not support, a run that did not end).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from ndp_edge.bench.gpu.words import NOT_MEASURED
from ndp_edge.errors import MachineError
from ndp_edge.native.compile import find_nvcc

TOOLS = ("memcheck", "racecheck")
DONE = "every launch of the sanitizer's subset was made"

_SUMMARY = {
    "memcheck": re.compile(r"ERROR SUMMARY: (\d+) error"),
    "racecheck": re.compile(r"RACECHECK SUMMARY: (\d+) hazard"),
}


@dataclass(frozen=True)
class Verdict:
    """What one tool said: "clean", "errors" or NOT_MEASURED, and why it is not clean."""

    status: str
    why: str = ""


def verdict(tool: str, returncode: int | None, output: str) -> Verdict:
    """Read a run's output; `returncode` None is a run that was cut off.

    Clean is only a run that ended well, made every launch and counted no error itself.
    """
    found = _SUMMARY[tool].search(output)
    if found and int(found[1]):
        lines = [line.strip("= ") for line in output.splitlines() if line.startswith("=====")]
        said = next((x for x in lines if x and "COMPUTE-SANITIZER" not in x), "")
        return Verdict("errors", f"{found[1]}; the first: {said}"[:300])
    if re.search(r"not supported", output, re.IGNORECASE):
        line = next(x for x in output.splitlines() if "not supported" in x.lower())
        return Verdict(NOT_MEASURED, line.strip("= "))
    if returncode is None:
        return Verdict(NOT_MEASURED, "it did not end in time")
    if returncode == 0 and found and DONE in output:
        return Verdict("clean")
    last = (output.strip().splitlines() or ["it said nothing"])[-1]
    return Verdict(NOT_MEASURED, f"it ended with {returncode}: {last}"[:300])


def find_sanitizer() -> str | None:
    """compute-sanitizer: `CUDA_HOME/bin`, the PATH, beside nvcc, /usr/local/cuda*/bin."""
    folders = [Path(os.environ["CUDA_HOME"]) / "bin"] if "CUDA_HOME" in os.environ else []
    with contextlib.suppress(MachineError):
        folders.append(Path(find_nvcc()).resolve().parent)
    folders += sorted(Path("/usr/local").glob("cuda*/bin"))
    for name in ["compute-sanitizer", *(str(folder / "compute-sanitizer") for folder in folders)]:
        if found := shutil.which(name):
            return found
    return None


def check(tool: str, limit: float, command: Sequence[str] = ()) -> Verdict:
    """Run the subset (or another command) under one tool, at most `limit` seconds."""
    sanitizer = find_sanitizer()
    if sanitizer is None:
        return Verdict(NOT_MEASURED, "no compute-sanitizer here; it comes with the CUDA toolkit")
    # torch's own calls are not what is judged: memory errors are, whoever makes them.
    extra = ["--report-api-errors", "no"] if tool == "memcheck" else []
    subset = list(command) or [sys.executable, "-m", "ndp_edge.bench.gpu.sanitize"]
    process = subprocess.Popen(
        [sanitizer, "--tool", tool, *extra, *subset],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        # One cudaMalloc per tensor: torch's cache would hide a write past a tensor's end.
        env=os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
    )
    try:
        output, _ = process.communicate(timeout=limit)
        code: int | None = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output, code = process.communicate()[0], None
    return verdict(tool, code, output)


def launches() -> None:
    """Every kernel in every type and layout, small; their results are checked elsewhere."""
    import numpy as np

    from ndp_edge.bench.gpu.judge import maps
    from ndp_edge.bench.gpu.rig import cuda_rig

    rig = cuda_rig()
    for dtype, nhwc in product((np.float16, np.float32), (True, False)):
        for n, c, (h, w), (rh, rw) in (
            (1, 8, (4, 4), (4, 4)),
            (3, 24, (12, 20), (4, 28)),
            (1, 136, (16, 16), (16, 16)),
        ):
            features, reference = maps(0, (n, c, h, w), dtype), maps(1, (c, rh, rw), dtype)
            rep2, rep4, _ = rig.rbfrm(features, reference, 1.0, nhwc)
            logits = maps(2, (n, 3 * c, h, w), dtype)
            rig.ffm_select(logits, rep4, rep2, features, nhwc)
    for shape in ((1, 1, 1), (2, 33, 65)):
        rig.smooth_max(maps(3, shape, np.float32))
    rig.wait()
    print(DONE, flush=True)


if __name__ == "__main__":
    launches()
