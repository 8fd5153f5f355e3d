"""TensorRT-RTX's half of running a plan: kernels compiled on the card, kept in the bundle.

An RTX plan holds no machine code for the card: the library compiles it when a context first
runs, seconds of work that its runtime cache saves the next time. Written against the names of
the bindings and run against a fake: no development machine had the card.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ndp_edge.engines.trt_compat import find, is_rtx
from ndp_edge.files import write_atomic
from ndp_edge.manifest import MANIFEST

FOLDER = "cache"


class Jit:
    """How contexts are made, and the cache of what was compiled for them.

    Attributes:
        config: the IRuntimeConfig for `create_execution_context`.
        told: what became of the cache, for `Engine.describe`.
    """

    def __init__(self, trt: Any, engine: Any, file: Path | None) -> None:
        """Read the cache at `file` where there is one; None keeps none. Needs the context."""
        self.config: Any = engine.create_runtime_config()
        self.config.set_execution_context_allocation_strategy(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        # Compile for the batch at hand before it runs, not behind the first frames' back.
        self.config.dynamic_shapes_kernel_specialization_strategy = find(
            trt, "DynamicShapesKernelSpecializationStrategy.EAGER"
        )
        # The library knows when its kernels may be captured; capturing it from outside takes
        # engines that were built for that.
        self.config.cuda_graph_strategy = find(trt, "CudaGraphStrategy.WHOLE_GRAPH_CAPTURE")
        self._cache: Any = self.config.create_runtime_cache()
        self._file = file
        self._read = b""
        self.told = "none kept: the plan is in no bundle" if file is None else "new"
        if file is not None and file.is_file():
            self._read = file.read_bytes()
            fits = self._cache.deserialize(self._read)
            self.told = "read" if fits else "of another card or version: made anew"
        self.config.set_runtime_cache(self._cache)

    @classmethod
    def of(cls, trt: Any, engine: Any, plan: Path) -> Jit | None:
        """The part for a plan of TensorRT-RTX; None for TensorRT, which compiles nothing."""
        return cls(trt, engine, cache_file(plan)) if is_rtx(trt) else None

    def keep(self) -> None:
        """Write the cache if anything was compiled. A bundle that is read-only stays as it is."""
        if self._file is None:
            return
        data = bytes(self._cache.serialize())
        if data in (b"", self._read):
            return
        try:
            self._file.parent.mkdir(exist_ok=True)
            write_atomic(self._file, data)
        except OSError as error:
            self.told += f", not written ({error.strerror})"
        else:
            self._read = data
            self.told += f", {len(data)} bytes written"


def cache_file(plan: Path) -> Path | None:
    """Where the cache of a plan in a bundle is: cache/<plan's name>.jit.

    None for a plan elsewhere. A bundle still being written has no manifest; a cache in it would
    be sealed with the bundle, and the next run would then seem to have changed the bundle.
    """
    bundle = plan.resolve().parent.parent
    return bundle / FOLDER / f"{plan.stem}.jit" if (bundle / MANIFEST).is_file() else None
