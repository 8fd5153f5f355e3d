"""What OpenVINO really executes: each layer's type, precision and time.

The Q/DQ file says what should run in int8; fusions, layouts and fall-backs decide what does.
This reads the executed graph's own counters.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from ndp_edge.engines.base import Images
from ndp_edge.errors import InputError
from ndp_edge.types import Layer

_CONVOLUTIONS = ("Convolution", "ConvolutionBackpropData", "GroupConvolution", "Deconvolution")
_PRECISIONS = {"i8": "int8", "u8": "int8", "f32": "fp32", "f16": "fp16", "bf16": "bf16"}


def executed_layers(
    model: Path, images: Images, *, precision: str, runs: int = 5, threads: int | None = None
) -> list[Layer]:
    """The layers of the executed graph in OpenVINO, slowest first.

    Args:
        model: model.onnx or model.int8.onnx.
        images: one batch, uint8 [N, H, W, 3].
        precision: "fp32" or "int8", what `model` holds.
        runs: timed runs after one to warm up; a layer's ms is their median.

    Raises:
        InputError: as `open_engine`, or `runs` below 1.
        MachineError: OpenVINO is missing.
    """
    if runs < 1:
        raise InputError(f"runs {runs}: at least 1")
    from ndp_edge.engines.openvino import OpenVinoEngine

    engine = OpenVinoEngine(model, precision, threads=threads, profile=True)
    with engine:
        engine.infer(images)
        request = engine.compiled(len(images)).create_infer_request()
        times: dict[str, list[float]] = {}
        facts: dict[str, tuple[str, str]] = {}
        for run in range(runs + 1):
            request.infer([images])
            if run:
                _note(request.profiling_info, times, facts)
    layers = [Layer(name, *facts[name], ms=median(ms)) for name, ms in times.items()]
    return sorted(layers, key=lambda layer: -layer.ms)


def _note(
    counters: Iterable[Any], times: dict[str, list[float]], facts: dict[str, tuple[str, str]]
) -> None:
    for counter in counters:
        if "EXECUTED" in str(counter.status):
            name = str(counter.node_name)
            times.setdefault(name, []).append(counter.real_time.total_seconds() * 1e3)
            kind = str(counter.exec_type).rpartition("_")[2].lower()
            facts[name] = (str(counter.node_type), _PRECISIONS.get(kind, kind))


def int8_share(layers: Iterable[Layer]) -> float:
    """Share, 0 to 1, of the (transposed) convolutions' time that runs in int8 kernels.

    Raises:
        InputError: no convolution among the layers.
    """
    convolutions = [layer for layer in layers if layer.type in _CONVOLUTIONS]
    total = sum(layer.ms for layer in convolutions)
    if total == 0:
        raise InputError("no convolution was executed")
    return sum(layer.ms for layer in convolutions if layer.precision == "int8") / total
