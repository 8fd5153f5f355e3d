"""Backends behind one interface. Importing this loads none of them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from ndp_edge.errors import InputError, MachineError

if TYPE_CHECKING:
    from ndp_edge.engines.base import Engine

_PACKAGES = {
    "openvino": "openvino",
    "onnxruntime": "onnxruntime",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt_rtx",
}
_INSTALL = {
    "openvino": "pip install openvino",
    "onnxruntime": "pip install onnxruntime",
    "tensorrt": "pip install 'ndp-edge[tensorrt]'",
    "tensorrt-rtx": "pip install 'ndp-edge[rtx]'",
}
BACKENDS = tuple(_PACKAGES)
"""Every backend there is a name for, in the order `auto` prefers those that run here."""

RUNNABLE = ("openvino", "onnxruntime")
"""Backends this version can open."""


def available() -> dict[str, str | None]:
    """Version of each backend's package on this machine, None where it is not installed."""
    return {name: _version(package) for name, package in _PACKAGES.items()}


def choose(backend: str = "auto") -> tuple[str, str]:
    """(backend, why): the one named, or for "auto" the first that this machine has.

    Raises:
        InputError: no backend of that name.
        MachineError: it cannot run here; the message has the install command.
    """
    if backend == "auto":
        here = available()
        for name in RUNNABLE:
            if here[name] is not None:
                why = "the fastest on a CPU" if name == RUNNABLE[0] else "openvino is missing"
                return name, f"auto: {name} {here[name]}, {why}"
        raise MachineError(f"no backend is installed here; {_INSTALL['openvino']}")
    _check(backend)
    return backend, "asked for"


def open_engine(
    backend: str,
    model: Path,
    *,
    precision: str,
    threads: int | None = None,
    latency: bool = True,
) -> Engine:
    """A running engine for one ONNX file; use it in a `with` block.

    Args:
        backend: "auto", "openvino" or "onnxruntime".
        model: model.onnx (fp32) or model.int8.onnx (int8) as export and calib write them.
        precision: "fp32" or "int8"; must be what the file holds.
        threads: CPU threads; None leaves it to the backend.
        latency: tune for one batch at a time; False for many requests in flight.

    Raises:
        InputError: no such backend or precision, or the file is not such a model.
        MachineError: the backend is not installed; the message has the command.
    """
    name, _ = choose(backend)
    if name == "openvino":
        from ndp_edge.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(model, precision, threads=threads, latency=latency)
    from ndp_edge.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(model, precision, threads=threads)


def _check(backend: str) -> None:
    if backend not in BACKENDS:
        raise InputError(f"no backend {backend!r}; there are auto, {', '.join(BACKENDS)}")
    if _version(_PACKAGES[backend]) is None:
        raise MachineError(f"{backend} is not installed here; install it with: {_INSTALL[backend]}")
    if backend not in RUNNABLE:
        raise MachineError(
            f"this version of ndp-edge cannot run {backend} yet; take openvino: "
            f"{_INSTALL['openvino']}"
        )


def _version(package: str) -> str | None:
    if importlib.util.find_spec(package) is None:
        return None
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
