"""CUDA behind one small interface. Importing this loads neither of the packages behind it."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from ndp_edge.errors import InputError, MachineError

if TYPE_CHECKING:
    from ndp_edge.cuda.base import Cuda

BACKENDS = ("cuda-python", "pycuda")
"""In the order `auto` prefers them: only cuda-python can capture graphs."""

INSTALL = {
    "cuda-python": "pip install 'ndp-edge[cuda]'",
    "pycuda": "pip install 'ndp-edge[pycuda]'",
}


def open_cuda(backend: str = "auto", device: int = 0) -> Cuda:
    """One CUDA device, its primary context retained; close it (it is not left current).

    Args:
        backend: "cuda-python", "pycuda", or "auto": cuda-python where it is installed,
            because it can capture graphs, else pycuda.
        device: CUDA's number of the card.

    Raises:
        InputError: no backend of that name.
        MachineError: the package, the driver or the card is missing; the line says which, and
            the install command where there is one.
    """
    name = _choose(backend)
    if name == "pycuda":
        from ndp_edge.cuda.pycuda import PyCuda

        return PyCuda(device)
    from ndp_edge.cuda.cuda_python import CudaPython

    return CudaPython(device)


def _choose(backend: str) -> str:
    if backend == "auto":
        here = [name for name in BACKENDS if _installed(name)]
        if not here:
            raise MachineError(
                "neither cuda-python nor pycuda is installed here; install one with: "
                f"{INSTALL['cuda-python']}"
            )
        return here[0]
    if backend not in BACKENDS:
        raise InputError(f"no CUDA package {backend!r}; there are auto, {', '.join(BACKENDS)}")
    if not _installed(backend):
        raise MachineError(f"{backend} is not installed here; install it with: {INSTALL[backend]}")
    return backend


def _installed(name: str) -> bool:
    try:
        if name == "pycuda":
            return importlib.util.find_spec("pycuda") is not None
        # `cuda` alone is a namespace that other packages of NVIDIA's also fill.
        return any(_has(module) for module in ("cuda.bindings.driver", "cuda.cuda"))
    except (ImportError, ValueError):  # None in sys.modules, or a package that is broken
        return False


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the parent package
        return False
