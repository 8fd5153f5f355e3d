"""TensorRT and TensorRT-RTX: a plan on an NVIDIA card, two batches under way at once.

One file for both, because their modules share the names. Everything on the card goes through
`ndp_edge.cuda`; everything that TensorRT versions do differently is in `engines.trt_compat`.
"""

from __future__ import annotations

import contextlib
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ndp_edge.cuda import open_cuda
from ndp_edge.cuda.base import Cuda, CudaError
from ndp_edge.engines.base import Engine, Images, Maps
from ndp_edge.engines.sidecar import Sidecar, check_fits, read_sidecar
from ndp_edge.engines.trt_compat import load
from ndp_edge.engines.trt_plan import Plan
from ndp_edge.engines.trt_slot import Part, Slot
from ndp_edge.errors import InputError
from ndp_edge.native import plugin

SLOTS = 2


@dataclass
class _Request:
    """One submitted batch: its maps, float32 [N, H, W], and the parts that fill them."""

    maps: Maps
    parts: list[Part]


class TensorRtEngine(Engine):
    """Runs the batch sizes that the plan was built for; others are split, the rest padded.

    `submit` never refuses for want of a slot: it first waits for the oldest batch under way
    and keeps its maps until they are collected. What fails on the card fails in the `collect`
    of the batch that it happened to. A kernel that crashes takes the whole CUDA context with
    it; later batches then fail too, and the engine must be opened again.
    """

    def __init__(
        self,
        model: Path,
        precision: str,
        *,
        backend: str = "tensorrt",
        trt: Any = None,
        cuda: Cuda | None = None,
        slots: int = SLOTS,
    ) -> None:
        """Load a plan, allocate everything and run each batch size once.

        Args:
            model: the .plan file, its sidecar beside it.
            precision: "fp32", "fp16" or "int8"; must be what the sidecar says.
            backend: "tensorrt" or "tensorrt-rtx".
            trt: the library's module; None imports the backend's.
            cuda: the device, which the engine closes; None opens the first.
            slots: batches under way at once.

        Raises:
            InputError: no plan, no sidecar, or of another precision or backend.
            MachineError: library, CUDA package, driver or card is missing, or the plan was
                built for others; the line has the command that mends it.
        """
        self.name = backend
        self._sidecar = _read(model, backend, precision)
        self._trt = load(backend) if trt is None else trt
        self._cuda = open_cuda() if cuda is None else cuda
        self._plan: Plan | None = None
        self._slots: list[Slot] = []
        self._next = 0
        self._failed = False
        try:
            with self._cuda.current():
                size = self._start(model, slots)
        except BaseException as error:
            self._failed = True
            with contextlib.suppress(CudaError), self._cuda.current():
                # The traceback's frames hold contexts and plan; they must not outlive the card.
                traceback.clear_frames(error.__traceback__)
            self._free()
            raise
        super().__init__(precision, size)
        self.lanes, self.batch = slots, max(self._sidecar.batches)

    def _start(self, model: Path, slots: int) -> tuple[int, int]:
        """Plan, then slots, each run once; returns the images' (height, width)."""
        self._device = self._cuda.describe()
        self._plan = plan = self._open(model, self._sidecar)
        for _ in range(slots):
            self._slots.append(Slot(self._cuda, plan, self._sidecar.batches))
            self._slots[-1].prepare()
        if plan.jit is not None:
            plan.jit.keep()
        return plan.size

    def _open(self, model: Path, sidecar: Sidecar) -> Plan:
        """Compare the plan with this machine before the library sees it, then deserialise it."""
        bundle = model.resolve().parent.parent
        rebuild = f"python -m ndp_edge.build --rebuild {bundle}"
        here: dict[str, Any] = {"version": str(self._trt.__version__)}
        if sidecar.sm is not None:
            here["sm"] = f"sm{self._device['sm']}"
        if sidecar.variant == "plugin":
            here["plugin"] = plugin.plugin_hash()
        check_fits(model, sidecar, here, rebuild)
        if sidecar.variant == "plugin":
            library = plugin.plugin_library(here["version"], self._device["sm"])
            plugin.load_plugin(self._trt, library)
        return Plan(self._trt, model, rebuild)

    def _infer(self, images: Images) -> Maps:
        return self._collect(self._submit(images))

    def _submit(self, images: Images) -> _Request:
        maps: Maps = np.empty((len(images), *self.size), np.float32)
        parts = []
        with self._cuda.current():
            for first, count, batch in split(len(images), self._sidecar.batches):
                slot, self._next = self._slots[self._next], (self._next + 1) % len(self._slots)
                slot.settle()
                part = Part(maps[first : first + count])
                slot.start(images[first : first + count], batch, part)
                parts.append(part)
        return _Request(maps, parts)

    def _collect(self, handle: _Request) -> Maps:
        with self._cuda.current():
            for part in handle.parts:
                if part.slot is not None:
                    part.slot.settle()
        for part in handle.parts:
            if part.error is not None:
                self._failed = True
                raise part.error
        return handle.maps

    def _describe(self) -> dict[str, Any]:
        assert self._plan is not None
        card, sidecar, jit = self._device, self._sidecar, self._plan.jit
        return {
            "device": card["device"],
            "threads": 0,
            "versions": {
                self.name: str(self._trt.__version__),
                card["package"]: card["version"],
                "driver": card["driver"],
            },
            "sm": f"sm{card['sm']}",
            "batches": list(sidecar.batches),
            "variant": sidecar.variant,
            "graphs": self._slots[0].graphs(),
            **({"jit_cache": jit.told} if jit is not None else {}),
        }

    def _close(self, pending: list[_Request]) -> None:
        self._free()

    def _free(self) -> None:
        """Free everything, newest first.

        After a failure the driver refuses to free, too; its complaint about that must not
        take the place of the error that is already on its way.
        """
        try:
            with self._cuda.current():
                for slot in self._slots:
                    slot.close()
                self._slots.clear()
                if self._plan is not None:
                    self._plan.close()
            self._cuda.close()
        except CudaError:
            self._slots.clear()
            self._plan = None
            with contextlib.suppress(CudaError):
                self._cuda.close()
            if not self._failed:
                raise


def split(count: int, batches: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """How `count` images go through a plan: (first image, images, batch size) per run.

    The largest batch that is full, as often as it goes; what is left of the smallest is padded.
    """
    runs, first = [], 0
    for batch in sorted(batches, reverse=True):
        while count - first >= batch:
            runs.append((first, batch, batch))
            first += batch
    if first < count:
        runs.append((first, count - first, min(batches)))
    return runs


def _read(model: Path, backend: str, precision: str) -> Sidecar:
    if not model.is_file():
        raise InputError(f"no engine at {model}")
    sidecar = read_sidecar(model)
    asked = (backend, precision)
    if (sidecar.backend, sidecar.precision) != asked:
        raise InputError(
            f"{model.name} is a {sidecar.backend} {sidecar.precision} engine, but "
            f"{backend} {precision} was asked for"
        )
    return sidecar
