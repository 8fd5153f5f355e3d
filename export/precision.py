"""float32 ONNX to typed FP16 ONNX: every tensor's type written down, as a strongly typed
network wants it.

FP16 is what convolutions read and write and what is stored between kernels. Arithmetic between
those (norms, softmaxes, sums, the score) is FP32: a backend fuses it into one loop whose
inputs and outputs are FP16 all the same, so that the islands cost registers and no memory.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ndp_edge.errors import InputError
from ndp_edge.export.functions import DOMAIN

FP16, FP32 = "fp16", "fp32"

TYPED_OPSET = 19
"""The first whose Q/DQ take FP16 scales; TensorRT 10.3's parser reads up to 20."""

RULES: dict[str, tuple[str, str]] = {
    "Conv": (FP16, "a convolution: FP16 in and out, FP32 sums inside the kernel"),
    "ConvTranspose": (FP16, "a convolution: FP16 in and out, FP32 sums inside the kernel"),
    "Relu": (FP16, "part of the convolution before it"),
    "Concat": (FP16, "moves values and changes none"),
    "DepthToSpace": (FP16, "moves values and changes none"),
    "Slice": (FP16, "moves values and changes none"),
    "Split": (FP16, "moves values and changes none"),
    "DequantizeLinear": (FP16, "what a convolution in int8 reads and answers"),
    "RBFRM": (FP16, "the plugin's input and output; its sums are FP32 inside"),
    "FFMSelect": (FP16, "the plugin's input and output; its softmax is FP32 inside"),
    "Cast": (FP32, "the picture, before it is scaled"),
    "Transpose": (FP32, "the picture, before it is scaled"),
    "Mul": (FP32, "a square (FP16 ends at 65504, 256 squared) or a weighted part of a sum"),
    "ReduceSum": (FP32, "a sum of many terms, of a norm or a softmax"),
    "AveragePool": (FP32, "a mean: of a norm's squares, or of the score (5x5)"),
    "Sqrt": (FP32, "a norm"),
    "Reciprocal": (FP32, "one over a norm, up to 1e12: more than FP16 holds"),
    "Max": (FP32, "a norm's floor of 1e-12, which is 0 in FP16, or a softmax's maximum"),
    "ReduceMax": (FP32, "a softmax's maximum"),
    "Sub": (FP32, "a softmax: the difference to its maximum"),
    "Exp": (FP32, "a softmax"),
    "Div": (FP32, "a softmax: over its sum"),
    "Add": (FP32, "a sum: a mean and its small correction, branches, or the maps of eq. 11"),
    "Sigmoid": (FP32, "a map or picture in [0, 1], where FP16 has steps of 0.0005"),
    "Resize": (FP32, "the score of eq. 11"),
}  # fmt: skip
"""Operator -> (precision of its float inputs and outputs, why)."""

_UNTYPED = {"QuantizeLinear": FP16, "Resize": FP32}
_KEPT = {("Resize", 2), ("RBFRM", 2)}
"""(operator, input) that stay float32 whatever the rule: Resize's scales; the plugin's vector of
norms, see `model.prepared`."""

_TYPES = {FP16: TensorProto.FLOAT16, FP32: TensorProto.FLOAT}
_TINY = np.finfo(np.float16).smallest_subnormal


def plan(model: onnx.ModelProto) -> dict[str, tuple[str, str]]:
    """Float tensor -> ("fp16" or "fp32", why): the precision it has in `to_fp16(model)`.

    A constant has that of the node that reads it; one that nodes of both kinds read is listed
    as "fp32" and stored twice.

    Args:
        model: float32, inlined or with RBFRM and FFMSelect as nodes; Q/DQ or none.

    Raises:
        InputError: an operator that no rule covers.
    """
    constants = {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
    found: dict[str, tuple[str, str]] = {}
    for node in model.graph.node:
        precision, why = _rule(node)
        for index, name in enumerate(node.input):
            if name in constants and found.get(name, (FP16, ""))[0] == FP16:
                kept = (node.op_type, index) in _KEPT
                found[name] = (FP32 if kept else precision, f"read by {node.op_type}: {why}")
        if node.op_type != "QuantizeLinear":  # its output is int8
            found.update((name, (precision, why)) for name in node.output)
    return found


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy typed as `plan` says: FP16 constants, and a Cast at each border of an island.

    Input uint8, output float32 as before. Scales of Q/DQ become FP16, and the int8 weights are
    fitted to the rounded scales. Nodes of local functions stay, without the functions: they
    are for `plugin_pass.for_plugin`, which comes after this. Inline first for a graph without.

    Args:
        model: as for `plan`.

    Raises:
        InputError: an operator that no rule covers, or a weight beyond FP16's range.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for entry in out.opset_import:
        if entry.domain == "":
            entry.version = max(entry.version, TYPED_OPSET)
    _Typing(out).run()
    # The bodies are of the float32 graph; what is not inlined here is a plugin's.
    del out.graph.value_info[:], out.functions[:]
    onnx.checker.check_model(out)
    return out


def _rule(node: onnx.NodeProto) -> tuple[str, str]:
    if node.op_type == "QuantizeLinear":
        return FP16, "quantised as it is stored"
    if node.domain not in ("", DOMAIN) or node.op_type not in RULES:
        raise InputError(
            f"no precision rule for operator {node.op_type} ({node.name}); "
            "add one to ndp_edge.export.precision"
        )
    return RULES[node.op_type]


class _Typing:
    """Types one graph in place."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.floats = {t.name: t for t in self.graph.initializer if t.data_type == _TYPES[FP32]}
        self.has: dict[str, str] = {}  # float activation -> its precision
        self.constants: dict[str, onnx.TensorProto] = {}
        self.nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        outputs = {value.name for value in self.graph.output}
        codes = _quantised_weights(self.graph)
        for node in list(self.graph.node):
            precision, _ = _rule(node)
            for index, name in enumerate(node.input):
                if (node.op_type, index) not in _KEPT:
                    node.input[index] = self._typed(name, precision)
            self.nodes.append(node)
            if node.op_type != "QuantizeLinear":
                self.has.update((name, precision) for name in node.output)
            for name in outputs & set(node.output):
                if precision != FP32:
                    raise InputError(f"the output {name} would be FP16; it has to be float32")
        kept = [codes.get(t.name, t) for t in self.graph.initializer if t.name not in self.floats]
        used = {name for node in self.nodes for name in node.input}
        floats = [t for name, t in self.floats.items() if name in used]
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend([*kept, *floats, *self.constants.values()])

    def _typed(self, name: str, precision: str) -> str:
        """The tensor `name` in that precision: itself, a constant of that type, or a Cast."""
        if name in self.floats:
            return name if precision == FP32 else self._constant(name)
        if self.has.get(name, precision) == precision:
            return name  # right already, or no float
        cast = f"{name}.{precision}"
        if cast not in self.has:
            self.has[cast] = precision
            self.nodes.append(
                helper.make_node("Cast", [name], [cast], name=cast, to=_TYPES[precision])
            )
        return cast

    def _constant(self, name: str) -> str:
        half = f"{name}.fp16"
        if half not in self.constants:
            value = numpy_helper.to_array(self.floats[name])
            narrow = _scale(value) if name.endswith(".scale") else _half(value, name)
            self.constants[half] = numpy_helper.from_array(narrow, half)
        return half


def _half(value: NDArray[np.float32], name: str) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        narrow = value.astype(np.float16)
    if not np.isfinite(narrow).all():
        raise InputError(f"the values of {name} reach beyond FP16's 65504; build with --fp32")
    return narrow


def _scale(value: NDArray[np.float32]) -> NDArray[np.float16]:
    """Scales of Q/DQ: a scale of 0 is none, so the least is FP16's smallest number."""
    narrow: NDArray[np.float16] = np.maximum(value.astype(np.float16), _TINY)
    return narrow


def _quantised_weights(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """int8 codes of each weight for its scale in FP16, by name.

    For a scale that FP16 rounds by its usual 2^-11 the codes stay as they are; below 6e-5 FP16
    has fewer bits, and the codes take up the difference.
    """
    stored = {t.name: t for t in graph.initializer}
    codes: dict[str, onnx.TensorProto] = {}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in stored:
            continue
        code, scale = (numpy_helper.to_array(stored[name]) for name in node.input[:2])
        shape = (-1, *[1] * (code.ndim - 1)) if scale.ndim else ()
        wide = code * (scale.astype(np.float64) / _scale(scale).astype(np.float64)).reshape(shape)
        again = np.clip(np.rint(wide), -127, 127).astype(np.int8)
        codes[node.input[0]] = numpy_helper.from_array(again, node.input[0])
    return codes
