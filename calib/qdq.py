"""Static symmetric int8 as explicit QuantizeLinear / DequantizeLinear, by TensorRT's rules.

Zero-point 0 everywhere; activations one scale per tensor, and one for all branches of a
Concat; weights of a Conv one scale per output channel (axis 0), of a ConvTranspose one per
tensor (its axis 0 is the input's). Biases stay float32: every backend folds them into its
int32 accumulator itself.
"""

from __future__ import annotations

import json
from collections.abc import Collection

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ndp_edge.calib.graph import quantisable, scale_groups
from ndp_edge.calib.ranges import Ranges
from ndp_edge.engines.unsigned import UNSIGNED_KEY
from ndp_edge.errors import InputError
from ndp_edge.export.functions import DOMAIN

LIMIT = 127
"""Largest magnitude of an int8 code; -128 is never used, so that the range is symmetric."""

_ZERO = "ndp_edge.int8_zero"
_SMALLEST = 1e-8
"""Floor of a range: a tensor that is always 0 still needs a positive scale."""


def quantize(
    model: onnx.ModelProto, ranges: Ranges, *, skip: Collection[str] = ()
) -> onnx.ModelProto:
    """The model with Q/DQ pairs on every convolution's activation and weights.

    Args:
        model: inlined float32 model; left as it was.
        ranges: tensor name -> (lowest, highest), as `collect_ranges` gives for this model.
        skip: names of convolutions to leave in float.

    Raises:
        InputError: a tensor without a range, a range that is not finite, weights that are
            not finite, or a name in `skip` that is no convolution.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    nodes = quantisable(out)
    strangers = set(skip) - {node.name for node in nodes}
    if strangers:
        raise InputError(f"no convolution is named {sorted(strangers)[0]}")
    nodes = [node for node in nodes if node.name not in skip]
    groups = scale_groups(out, nodes)
    scales = _scales(groups, ranges)
    _rewire(out, nodes, scales)
    del out.graph.value_info[:]
    unsigned = sorted(name for name in scales if ranges[name][0] >= 0)
    entry = out.metadata_props.add()
    entry.key, entry.value = UNSIGNED_KEY, json.dumps(unsigned)
    onnx.checker.check_model(out)
    return out


def _scales(groups: dict[str, str], ranges: Ranges) -> dict[str, np.float32]:
    """One scale per tensor: its group's largest magnitude / 127."""
    largest: dict[str, float] = {}
    for name, group in groups.items():
        if name not in ranges:
            raise InputError(f"no range for tensor {name}; collect ranges from this very model")
        if not np.isfinite(ranges[name]).all():
            raise InputError(f"the range of tensor {name} is not finite: {ranges[name]}")
        reach = max(abs(ranges[name][0]), abs(ranges[name][1]), _SMALLEST)
        largest[group] = max(largest.get(group, 0.0), reach)
    return {name: np.float32(largest[group] / LIMIT) for name, group in groups.items()}


def _rewire(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], scales: dict[str, np.float32]
) -> None:
    """Insert the pairs right after what makes each tensor, and let every consumer read them.

    Every consumer: were one to read the float tensor beside, the convolution before it would
    have to write both. A plugin (RBFRM or FFMSelect left whole) reads it all the same: a pair is
    never fused into a plugin, so that it would run as a kernel of its own and only lose bits.
    """
    graph = model.graph
    weights = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    chosen = {node.output[0] for node in nodes}
    _add(model, _ZERO, np.zeros((), np.int8))
    rebuilt: list[onnx.NodeProto] = []
    for entry in graph.input:
        if entry.name in scales:
            rebuilt += _pair(model, entry.name, scales[entry.name])
    done: set[str] = set()
    for node in list(graph.node):
        for i, name in enumerate(node.input):
            if name in scales and node.domain != DOMAIN:
                node.input[i] = f"{name}.dequantised"
        if node.output[0] in chosen:
            name, per_channel = node.input[1], node.op_type == "Conv"
            if name not in done:
                rebuilt.append(_weights(model, name, weights[name], per_channel))
                done.add(name)
            node.input[1] = f"{name}.dequantised"
        rebuilt.append(node)
        for name in node.output:
            if name in scales:
                rebuilt += _pair(model, name, scales[name])
    used = {name for node in rebuilt for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(rebuilt)
    graph.initializer.extend(kept)


def _pair(model: onnx.ModelProto, name: str, scale: np.float32) -> list[onnx.NodeProto]:
    """QuantizeLinear and DequantizeLinear of one activation."""
    _add(model, f"{name}.scale", np.array(scale, np.float32))
    arguments = [f"{name}.scale", _ZERO]
    code = f"{name}.int8"
    return [
        helper.make_node("QuantizeLinear", [name, *arguments], [code], name=f"{name}.q"),
        helper.make_node(
            "DequantizeLinear", [code, *arguments], [f"{name}.dequantised"], name=f"{name}.dq"
        ),
    ]


def _weights(
    model: onnx.ModelProto, name: str, value: NDArray[np.float32], per_channel: bool
) -> onnx.NodeProto:
    """int8 initialisers and the DequantizeLinear that makes the float weights of them."""
    wide = value.astype(np.float64)
    if not np.isfinite(wide).all():
        raise InputError(f"weights {name} are not finite; the checkpoint is broken")
    axes = tuple(range(1, wide.ndim)) if per_channel else None
    reach = np.maximum(np.abs(wide).max(axis=axes), _SMALLEST)
    scale = (reach / LIMIT).astype(np.float32)
    step = scale.astype(np.float64).reshape(-1, *[1] * (wide.ndim - 1)) if per_channel else scale
    codes = np.clip(np.rint(wide / step), -LIMIT, LIMIT).astype(np.int8)
    _add(model, f"{name}.int8", codes)
    _add(model, f"{name}.scale", np.asarray(scale))
    _add(model, f"{name}.zero", np.zeros(scale.shape, np.int8))
    inputs = [f"{name}.{part}" for part in ("int8", "scale", "zero")]
    node = helper.make_node("DequantizeLinear", inputs, [f"{name}.dequantised"], name=f"{name}.dq")
    if per_channel:
        node.attribute.append(helper.make_attribute("axis", 0))
    return node


def _add(model: onnx.ModelProto, name: str, value: NDArray[np.generic]) -> None:
    model.graph.initializer.append(numpy_helper.from_array(value, name))
