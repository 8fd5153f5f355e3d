"""OpenVINO on the CPU: the default engine of a machine without an NVIDIA card."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ndp_edge.engines.base import (
    Engine,
    Images,
    Maps,
    check_threads,
    image_size,
    read_model,
)
from ndp_edge.engines.tail import with_products
from ndp_edge.engines.unsigned import to_unsigned
from ndp_edge.export.inline import inline
from ndp_edge.ov_core import import_openvino, shared_core

ov = import_openvino()

MOST_SHAPES = 4
"""Batch sizes kept compiled at once; the one unused for longest goes first."""


@dataclass
class _Compiled:
    """The net compiled for one batch size, and its idle requests."""

    model: Any
    batch: int
    idle: list[Any] = field(default_factory=list)

    def request(self) -> Any:
        return self.idle.pop() if self.idle else self.model.create_infer_request()


class OpenVinoEngine(Engine):
    """Compiles once per batch size (static shapes run faster) and keeps the latest few.

    The int8 model's activations are realised as uint8 where calibration saw no negative
    value (see `engines.unsigned`): the numbers are the same, and x86 kernels are made for it.
    """

    name = "openvino"

    def __init__(
        self,
        model: Path,
        precision: str,
        *,
        threads: int | None = None,
        latency: bool = True,
        profile: bool = False,
    ) -> None:
        """Load `model` and compile it for batch 1 (raises InputError, see `open_engine`).

        Args:
            profile: count the time of each layer, for `engines.executed`; costs a little.
        """
        proto = read_model(model, precision)
        super().__init__(precision, image_size(proto))
        self._threads = check_threads(threads)
        self._options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY" if latency else "THROUGHPUT",
            # Never bf16 behind the user's back, where a CPU has it.
            "INFERENCE_PRECISION_HINT": "f32",
            "PERF_COUNT": profile,
        }
        if self._threads:
            self._options["INFERENCE_NUM_THREADS"] = self._threads
        self._core: Any = shared_core()
        self._model: Any = self._core.read_model(_for_openvino(proto, precision, self.size))
        self._compiled: OrderedDict[int, _Compiled] = OrderedDict()
        self._device = str(self._core.get_property("CPU", "FULL_DEVICE_NAME")).strip()
        self.lanes = int(self.compiled(1).get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))

    def compiled(self, batch: int) -> Any:
        """OpenVINO's CompiledModel for a batch size."""
        return self._for(batch).model

    def _for(self, batch: int) -> _Compiled:
        if batch not in self._compiled:
            shaped = self._model.clone()
            shaped.reshape([batch, *self.size, 3])
            model = self._core.compile_model(shaped, "CPU", self._options)
            self._compiled[batch] = _Compiled(model, batch)
            while len(self._compiled) > MOST_SHAPES:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(batch)
        return self._compiled[batch]

    def _infer(self, images: Images) -> Maps:
        return self._collect(self._submit(images))

    def _submit(self, images: Images) -> tuple[_Compiled, Any]:
        compiled = self._for(len(images))
        request = compiled.request()
        # The request's own buffer, so that the caller may reuse the images at once.
        request.get_input_tensor(0).data[:] = images
        request.start_async()
        return compiled, request

    def _collect(self, handle: Any) -> Maps:
        maps: Maps = np.empty((handle[0].batch, *self.size), np.float32)
        self._collect_into(handle, maps)
        return maps

    def _collect_into(self, handle: Any, out: Maps) -> None:
        compiled, request = handle
        request.wait()
        out[:] = request.get_output_tensor(0).data[:, 0]
        compiled.idle.append(request)

    def _done(self, handle: Any) -> bool:
        return bool(handle[1].wait_for(0))

    def _describe(self) -> dict[str, Any]:
        return {
            "device": self._device,
            "threads": self._threads,
            "versions": {"openvino": ov.__version__},
        }

    def _close(self, pending: list[Any]) -> None:
        for _, request in pending:
            request.wait()
        self._compiled.clear()
        self._model = self._core = None


def _for_openvino(model: onnx.ModelProto, precision: str, size: tuple[int, int]) -> bytes:
    """The file as OpenVINO takes it and runs it fastest; the numbers stay to rounding.

    No local functions, uint8 activations, biases not shared, the last steps as products.
    """
    flat = inline(model) if model.functions else model
    flat = to_unsigned(flat) if precision == "int8" else flat
    unshare_biases(flat)
    with_products(flat, size)
    data: bytes = flat.SerializeToString()
    return data


def unshare_biases(model: onnx.ModelProto) -> None:
    """Give every convolution a bias of its own.

    The encoder runs twice on one set of weights. OpenVINO's CPU plugin fuses a bias (and then
    the ReLU and the quantisation behind it) only when nothing else reads it; shared, each of
    these convolutions drags an extra pass over its output behind it (measured in 2026.4).
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    seen: set[str] = set()
    for node in model.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose") or len(node.input) < 3:
            continue
        name = node.input[2]
        if name in seen and name in tensors:
            copy = model.graph.initializer.add()
            copy.CopyFrom(tensors[name])
            copy.name = node.input[2] = f"{node.name}.own_bias"
        seen.add(name)
