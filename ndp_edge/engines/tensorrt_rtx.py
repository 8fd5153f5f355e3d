"""Engines for cards that are not here: TensorRT-RTX builds without a GPU and without a driver.

The build runs in a process of its own. The library can end its process (registering a Python
plugin and parsing aborts it), and what it does to a build must not be done to ours.

As a program: `python -m ndp_edge.engines.tensorrt_rtx FOLDER` reads graph.onnx and options.json
there and writes engine.plan and told.json.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from ndp_edge.engines import trt_compat as compat
from ndp_edge.engines.trt_builder import BuildOptions, BuiltPlan, build_plan
from ndp_edge.errors import InputError, MachineError, NdpError
from ndp_edge.types import Layer

LONGEST = 1800
"""Seconds after which a build counts as hung; `paper` takes some tens."""

_GRAPH, _OPTIONS, _PLAN, _TOLD = "graph.onnx", "options.json", "engine.plan", "told.json"


def parse_targets(text: str) -> tuple[str, ...]:
    """ "sm86,sm120" to ("sm86", "sm120"), each once, in the order given.

    Raises:
        InputError: a card that TensorRT-RTX does not build for.
    """
    found = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",")))
    for one in found:
        if one not in compat.TARGETS:
            raise InputError(
                f"--target {text}: no {one or 'card'} there; give some of "
                f"{','.join(compat.TARGETS)} (a Jetson and a Hopper card build for themselves "
                "with --engine tensorrt)"
            )
    return found


def build_apart(
    onnx_bytes: bytes,
    options: BuildOptions,
    *,
    seconds: float = LONGEST,
    program: tuple[str, ...] = (sys.executable, "-m", "ndp_edge.engines.tensorrt_rtx"),
) -> BuiltPlan:
    """`trt_builder.build_plan` in a process of its own.

    Args:
        onnx_bytes, options: as for `build_plan`; options of TensorRT-RTX have no cache or scales.
        seconds: after this the process is ended.
        program: what to start, for tests.

    Raises:
        InputError, MachineError: as `build_plan`; MachineError also when the process crashes or
            hangs.
    """
    with tempfile.TemporaryDirectory(prefix="ndp-edge-rtx-") as name:
        folder = Path(name)
        (folder / _GRAPH).write_bytes(onnx_bytes)
        told = {**asdict(options), "cache": None, "scales": {}}
        (folder / _OPTIONS).write_text(json.dumps(told), encoding="utf-8")
        try:
            done = subprocess.run(
                [*program, name], capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            raise MachineError(
                f"{_what(options)} did not end within {seconds:.0f} s and was ended; "
                f"{compat.install(options.backend)}"
            ) from None
        return _result(folder, options, done)


def _what(options: BuildOptions) -> str:
    return f"{options.backend} building {options.precision} for {options.target}"


def _result(
    folder: Path, options: BuildOptions, done: subprocess.CompletedProcess[str]
) -> BuiltPlan:
    told = folder / _TOLD
    content = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {}
    if "error" in content:
        kind = InputError if content["exit_code"] == InputError.exit_code else MachineError
        raise kind(content["error"])
    if done.returncode or not content:
        raise MachineError(
            f"{_what(options)} {_end(done.returncode)}: {_last_line(done.stderr)}; try another "
            f"version: {compat.install(options.backend)} --upgrade"
        )
    layers = [Layer(**layer) for layer in content["layers"]]
    return BuiltPlan((folder / _PLAN).read_bytes(), layers, None, content["about"])


def _end(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "it said nothing"


def main(folder: Path) -> int:
    """The process's body: what it finds out stands in told.json, whatever happens."""
    try:
        content = json.loads((folder / _OPTIONS).read_text(encoding="utf-8"))
        options = BuildOptions(**{**content, "batches": tuple(content["batches"])})
        built = build_plan((folder / _GRAPH).read_bytes(), options)
    except NdpError as error:
        failure = {"error": str(error), "exit_code": error.exit_code}
        (folder / _TOLD).write_text(json.dumps(failure), encoding="utf-8")
        return error.exit_code
    (folder / _PLAN).write_bytes(built.plan)
    told = {"layers": [asdict(layer) for layer in built.layers], "about": built.about}
    (folder / _TOLD).write_text(json.dumps(told), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
