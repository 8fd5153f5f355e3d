"""Is this Q/DQ graph one that TensorRT takes for what it is? Asked by looking at the graph.

TensorRT reads an illegal graph without a word and runs it in FP16, or reads uint8 as int8 and
answers wrongly (DESIGN section 6), so what may stand in a graph is checked before it is built.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ndp_edge.calib.graph import CONVOLUTIONS, producers
from ndp_edge.errors import InputError
from ndp_edge.export.functions import DOMAIN

QUANTISE, DEQUANTISE = "QuantizeLinear", "DequantizeLinear"
FUSED_AFTER = ("Relu", "BatchNormalization")
"""What a backend computes inside the convolution before it; a pair between them prevents that."""


def complaints(model: onnx.ModelProto, *, int8_plugins: bool = False) -> list[str]:
    """Everything that is illegal, one line each; empty for a legal graph (or one without Q/DQ).

    Args:
        model: float32 or typed FP16, inlined or with plugin nodes.
        int8_plugins: the plugins are meant to read int8 (Q/DQ right before them is then legal).
    """
    graph = _Graph(model)
    told: list[str] = []
    for node in model.graph.node:
        if node.op_type in (QUANTISE, DEQUANTISE):
            told += _codes(graph, node)
        if node.op_type == QUANTISE:
            told += _pair(graph, node)
        elif node.op_type in CONVOLUTIONS:
            told += _convolution(graph, node)
        elif node.op_type == "Concat":
            told += _concat(graph, node)
        elif node.op_type in FUSED_AFTER:
            told += _inside_fusion(graph, node)
        elif node.domain == DOMAIN and not int8_plugins:
            told += _before_plugin(graph, node)
    return told


def require_legal(model: onnx.ModelProto, *, int8_plugins: bool = False) -> None:
    """Refuse an illegal graph; arguments as for `complaints`.

    Raises:
        InputError: it is illegal; the line has the first complaint and their number.
    """
    told = complaints(model, int8_plugins=int8_plugins)
    if told:
        more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
        raise InputError(f"TensorRT would misread this Q/DQ graph: {told[0]}{more}")


class _Graph:
    """The graph's look-ups."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.stored = {t.name: t for t in model.graph.initializer}
        self.made_by = producers(model)
        self.read_by: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.read_by.setdefault(name, []).append(node)

    def value(self, name: str) -> NDArray[Any] | None:
        return numpy_helper.to_array(self.stored[name]) if name in self.stored else None

    def maker(self, name: str, kind: str) -> onnx.NodeProto | None:
        """The node of that kind that makes a tensor, or None."""
        node = self.made_by.get(name)
        return node if node is not None and node.op_type == kind else None

    def scale_of(self, name: str) -> float | None:
        """The scale of a dequantised activation; None of any other tensor."""
        node = self.maker(name, DEQUANTISE)
        if node is None or node.input[0] in self.stored:
            return None
        value = self.value(node.input[1])
        return float(value) if value is not None and value.ndim == 0 else None


def _codes(graph: _Graph, node: onnx.NodeProto) -> Iterator[str]:
    """Scale and zero-point of one Q or DQ."""
    scale = graph.value(node.input[1])
    zero = graph.value(node.input[2]) if len(node.input) > 2 else None
    if scale is None:
        yield f"{node.name}: its scale is no constant"
    elif not (np.isfinite(scale).all() and (scale > 0).all()):
        yield f"{node.name}: a scale that is not above 0"
    if zero is None:
        yield f"{node.name}: no constant zero-point, so that its codes would be uint8"
    elif zero.dtype != np.int8:
        yield f"{node.name}: codes of {zero.dtype}; TensorRT takes them for int8"
    elif zero.any():
        yield f"{node.name}: a zero-point other than 0"


def _pair(graph: _Graph, node: onnx.NodeProto) -> Iterator[str]:
    """An activation's Q, and the DQs behind it."""
    scale = graph.value(node.input[1])
    if scale is not None and scale.ndim:
        yield f"{node.name}: an activation with {scale.size} scales; one is allowed"
    readers = graph.read_by.get(node.output[0], [])
    if not readers:
        yield f"{node.name}: nothing reads it"
    for reader in readers:
        if reader.op_type != DEQUANTISE:
            yield f"{node.name}: {reader.name} ({reader.op_type}) reads int8 codes"
        elif not np.array_equal(graph.value(reader.input[1]), scale):  # type: ignore[arg-type]
            yield f"{node.name}: dequantised with another scale in {reader.name}"


def _convolution(graph: _Graph, node: onnx.NodeProto) -> Iterator[str]:
    weights = graph.maker(node.input[1], DEQUANTISE)
    activation = graph.maker(node.input[0], DEQUANTISE)
    if (weights is None) != (activation is None):
        yield f"{node.name}: only its {'activation' if weights is None else 'weight'} is quantised"
    if weights is None:
        return
    codes, scale = graph.value(weights.input[0]), graph.value(weights.input[1])
    if codes is None or codes.dtype != np.int8:
        yield f"{node.name}: its weights are not stored as int8"
        return
    axis = {a.name: helper.get_attribute_value(a) for a in weights.attribute}.get("axis", 1)
    if scale is None or (scale.ndim == 0 and node.op_type == "ConvTranspose"):
        return
    if axis != 0 or scale.shape != codes.shape[:1]:
        yield f"{node.name}: scales {scale.shape} on axis {axis}; wanted one a channel, on axis 0"
    if int(np.abs(codes.astype(np.int16)).max(initial=0)) > 127:
        yield f"{node.name}: a weight of -128; symmetric codes end at 127"


def _concat(graph: _Graph, node: onnx.NodeProto) -> Iterator[str]:
    scales = [graph.scale_of(name) for name in node.input]
    if any(s is not None for s in scales) and len(set(scales)) > 1:
        told = ", ".join("none" if s is None else f"{s:.6g}" for s in scales)
        yield f"{node.name}: joins branches of different scales ({told})"
    for reader in graph.read_by.get(node.output[0], []):
        after = graph.value(reader.input[1]) if reader.op_type == QUANTISE else None
        if after is not None and after.ndim == 0 and float(after) not in scales:
            yield f"{node.name}: is quantised with another scale than its branches"


def _inside_fusion(graph: _Graph, node: onnx.NodeProto) -> Iterator[str]:
    """Conv -> Q -> DQ -> Relu: the convolution would have to stop before its own ReLU."""
    dequantise = graph.maker(node.input[0], DEQUANTISE)
    quantise = graph.maker(dequantise.input[0], QUANTISE) if dequantise is not None else None
    before = graph.made_by.get(quantise.input[0]) if quantise is not None else None
    if before is not None and before.op_type in (*CONVOLUTIONS, "BatchNormalization"):
        yield f"{node.name}: a Q/DQ pair stands between {before.name} and its {node.op_type}"


def _before_plugin(graph: _Graph, node: onnx.NodeProto) -> Iterator[str]:
    for name in node.input:
        for kind in (QUANTISE, DEQUANTISE):
            if graph.maker(name, kind) is not None:
                yield f"{node.name}: a {kind} right before a plugin, which is never fused into it"
