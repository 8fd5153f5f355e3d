"""The OpenVINO realisation of the symmetric int8 model: uint8 codes, same scales, zero-point 0.

x86 CPUs multiply uint8 by int8. Given int8 activations, OpenVINO adds 128 to make them uint8;
without VNNI the kernel's 16-bit sums of two products (vpmaddubsw) then saturate at weights of
8 bits, and the answer is wrong (measured on AVX2: up to ten times quantisation's own error).
After a ReLU no code is negative, so uint8 with the same scale has the same codes 0 to 127,
and 127 * 127 * 2 fits 16 bits: nothing saturates.

A value beyond the calibrated range has a code of 128 to 255 here, where int8 clamps it to 127.
Its products may saturate at 32767, but that is still nearer the truth than the clamped sum,
which is at most 127 * 127 * 2 = 32258. So out of range, too, this answers no worse.
"""

from __future__ import annotations

import json

import numpy as np
import onnx
from onnx import numpy_helper

from ndp_edge.errors import InputError

UNSIGNED_KEY = "ndp_edge.unsigned"
"""metadata_props entry: JSON list of activation tensors that calibration saw no negative in."""

_ZERO = "ndp_edge.uint8_zero"


def to_unsigned(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose never-negative activations are quantised to uint8, zero-point 0, same scale.

    Which these are, `calib.qdq.quantize` recorded in the model. Never write the result where
    TensorRT could read it: it takes uint8 for int8 with only a warning (DESIGN section 6).

    Raises:
        InputError: the model has no such record (it was not made by `calibrate`).
    """
    recorded = {entry.key: entry.value for entry in model.metadata_props}.get(UNSIGNED_KEY)
    if recorded is None:
        raise InputError("this int8 model was not made by ndp-edge; build it again")
    names = set(json.loads(recorded))
    out = onnx.ModelProto()
    out.CopyFrom(model)
    codes: set[str] = set()
    for node in out.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in names:
            node.input[2] = _ZERO
            codes.add(node.output[0])
        elif node.op_type == "DequantizeLinear" and node.input[0] in codes:
            node.input[2] = _ZERO
    if codes:
        out.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.uint8), _ZERO))
    return out
