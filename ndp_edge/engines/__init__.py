"""Backends behind one interface. Importing this loads none of them."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from ndp_edge.engines import trt_compat
from ndp_edge.errors import InputError, MachineError

if TYPE_CHECKING:
    from ndp_edge.engines.base import Engine

_PACKAGES = {"openvino": ("openvino",), "onnxruntime": ("onnxruntime",), **trt_compat.MODULES}
BACKENDS = tuple(_PACKAGES)
"""Every backend there is a name for."""

RUNNABLE = ("openvino", "onnxruntime")
"""Backends that take an ONNX file as it is, in the order `auto` prefers them."""

PLANNED = ("tensorrt", "tensorrt-rtx")
"""Backends that take a plan, built for one kind of NVIDIA card."""


def available() -> dict[str, str | None]:
    """Version of each backend's package on this machine, None where it is not installed."""
    return {name: _version(name) for name in _PACKAGES}


def install(backend: str) -> str:
    """The command that installs a backend on this platform."""
    return trt_compat.install(backend) if backend in PLANNED else f"pip install {backend}"


def choose(backend: str = "auto") -> tuple[str, str]:
    """(backend, why): the one named, or for "auto" the fastest that this machine has.

    Raises:
        InputError: no backend of that name.
        MachineError: it is not installed here; the message has the install command.
    """
    if backend == "auto":
        here = available()
        if here["tensorrt"] is not None and cards():
            return "tensorrt", f"auto: tensorrt {here['tensorrt']}, an NVIDIA card answers"
        for name in RUNNABLE:
            if here[name] is not None:
                why = "the fastest on a CPU" if name == RUNNABLE[0] else "openvino is missing"
                return name, f"auto: {name} {here[name]}, {why}"
        raise MachineError(f"no backend is installed here; {install('openvino')}")
    if backend not in BACKENDS:
        raise InputError(f"no backend {backend!r}; there are auto, {', '.join(BACKENDS)}")
    if _version(backend) is None:
        raise MachineError(f"{backend} is not installed here; install it with: {install(backend)}")
    return backend, "asked for"


def choose_on_cpu() -> str:
    """The backend that `auto` would take if there were no card.

    Raises:
        MachineError: none is installed.
    """
    for name in RUNNABLE:
        if _version(name) is not None:
            return name
    raise MachineError(f"no backend for a CPU is installed here; {install('openvino')}")


def cards() -> int:
    """NVIDIA cards that the driver shows; 0 without a driver. Asks no Python package."""
    driver = _driver()
    count = ctypes.c_int(0)
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def card_sm() -> str | None:
    """The first card's architecture ("sm86"); None without a card."""
    driver, found = _driver(), []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int(0)
        if driver is None or driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0) != 0:
            return None
        found.append(value.value)
    return f"sm{found[0]}{found[1]}"


_MAJOR, _MINOR = 75, 76
"""CUdevice_attribute's numbers for the two halves of the compute capability."""


def _driver() -> ctypes.CDLL | None:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return driver if driver.cuInit(0) == 0 else None


def open_engine(
    backend: str,
    model: Path,
    *,
    precision: str,
    threads: int | None = None,
    latency: bool = True,
) -> Engine:
    """A running engine for one file; use it in a `with` block.

    Args:
        backend: "auto" or one of `BACKENDS`.
        model: for a CPU model.onnx, model.fp16.onnx or model.int8.onnx as the build writes
            them; for a card a plan with its sidecar beside it.
        precision: "fp32", "fp16" or "int8"; must be what the file holds.
        threads: CPU threads; None leaves it to the backend.
        latency: tune for one batch at a time; False for many requests in flight.

    Raises:
        InputError: no such backend or precision, or the file is not such a model.
        MachineError: the backend is not installed, or the card that it needs is not here.
    """
    of_onnx = backend == "auto" and model.suffix == ".onnx"
    name = choose_on_cpu() if of_onnx else choose(backend)[0]
    if name in PLANNED:
        from ndp_edge.engines.tensorrt_engine import TensorRtEngine

        return TensorRtEngine(model, precision, backend=name)
    if name == "openvino":
        from ndp_edge.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(model, precision, threads=threads, latency=latency)
    from ndp_edge.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(model, precision, threads=threads)


def _version(backend: str) -> str | None:
    """The installed version; "unknown" where there is a module without metadata."""
    modules = [m for m in _PACKAGES[backend] if importlib.util.find_spec(m) is not None]
    if not modules:
        return None
    try:
        return importlib.metadata.version(modules[0])
    except importlib.metadata.PackageNotFoundError:  # a distribution of another name
        named = importlib.metadata.packages_distributions().get(modules[0])
        return importlib.metadata.version(named[0]) if named else "unknown"
