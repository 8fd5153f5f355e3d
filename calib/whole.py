"""The int8 graph for a fused plugin: RBFRM and FFMSelect stay whole, on the same ranges.

The bundle's int8 ONNX is inlined: a backend without the plugin runs it as it stands. Its scales
name the same tensors as the exported graph does, so that the variant needs no new calibration,
and can be made from a bundle alone.
"""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from ndp_edge.calib.qdq import LIMIT, quantize
from ndp_edge.calib.ranges import Ranges
from ndp_edge.calib.subpixel import as_convolutions
from ndp_edge.errors import InputError


def activation_scales(int8: onnx.ModelProto) -> dict[str, float]:
    """Tensor -> scale of every quantised activation in an int8 graph of ours.

    Raises:
        InputError: there is none: the graph is not int8.
    """
    stored = {t.name: t for t in int8.graph.initializer}
    found = {
        node.input[0]: float(numpy_helper.to_array(stored[node.input[1]]))
        for node in int8.graph.node
        if node.op_type == "QuantizeLinear"
    }
    if not found:
        raise InputError("this graph has no quantised activation; build with --int8 first")
    return found


def quantize_whole(exported: onnx.ModelProto, int8: onnx.ModelProto) -> onnx.ModelProto:
    """The exported graph in int8 with its functions as nodes, float32 otherwise.

    Args:
        exported: model.onnx of a bundle, local functions and all.
        int8: its model.int8.onnx, for the scales.

    Raises:
        InputError: the two do not belong together.
    """
    scales = activation_scales(int8)
    ranges: Ranges = {name: (-LIMIT * scale, LIMIT * scale) for name, scale in scales.items()}
    return quantize(as_convolutions(exported), ranges)
