"""OpenVINO without its telemetry, and one Core of it for the whole process.

On import OpenVINO's Python package reports the import to a server of its makers, where the
package openvino_telemetry is installed (it always is): from a thread that forks. While another
thread is within a matrix product of NumPy's, that fork waits for OpenBLAS's threads with the GIL
held, and the process stands still for ever (seen once in a few hundred starts). A camera should
do neither; OpenVINO has a stand-in of its own for where that package is missing.

Each Core's CPU plugin gives its thread a signal stack of its own and puts the one before back
when it goes. Of two Cores that go in another order than the reverse of their making, the second
puts back a stack that is freed already (2026.4), and the next signal, a Ctrl-C or SIGTERM, kills
the process by SIGSEGV. One Core that never goes has no such order.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from ndp_edge.errors import MachineError

SETTINGS = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
"""What everything compiled here has unless it says otherwise: never bf16 behind the user's back,
where a CPU has it, and no comparison of things that were compiled differently."""

_TELEMETRY = "openvino_telemetry"

_LOCK = threading.Lock()
_made: list[Any] = []


def import_openvino() -> Any:
    """The module openvino, imported as if openvino_telemetry were not installed.

    Raises:
        MachineError: OpenVINO is missing.
    """
    kept = sys.modules.pop(_TELEMETRY, None)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino  # type: ignore[import-untyped]
    except ImportError as error:
        raise MachineError(
            "openvino is not installed here; install it with: pip install openvino"
        ) from error
    finally:
        del sys.modules[_TELEMETRY]
        if kept is not None:
            sys.modules[_TELEMETRY] = kept
    return openvino


def shared_core() -> Any:
    """The process's openvino.Core; may be called from any thread.

    Raises:
        MachineError: OpenVINO is missing.
    """
    with _LOCK:
        if not _made:
            _made.append(import_openvino().Core())
        return _made[0]


def cpu_request(model: Any, threads: int | None = None, **more: Any) -> Any:
    """An openvino.InferRequest of a model compiled with `SETTINGS` for the CPU.

    Args:
        model: an openvino.Model, or an ONNX file's bytes.
        threads: None leaves them to OpenVINO.
        more: settings beside `SETTINGS`, or in their place.

    Raises:
        MachineError: OpenVINO is missing.
    """
    core = shared_core()
    read = core.read_model(model) if isinstance(model, bytes) else model
    given = {**SETTINGS, **more}
    if threads:
        given["INFERENCE_NUM_THREADS"] = threads
    return core.compile_model(read, "CPU", given).create_infer_request()
