"""Work that is not ours and never changes: the measure of how fast the machine is just now.

A shared machine runs at a third of its speed for minutes on end. So every timed call of an
engine stands beside one of this work, and the regression gate compares ratios. For the ratio
to stay when neighbours come and go, the work must suffer from them as an engine does: many
short parallel steps in the engine's own runtime, int8 convolutions at several sizes and one
FP32 attention. Measured with neighbours of five kinds, the ratio of `nano` INT8 to this moved
by a tenth while both times trebled; to FP32 convolutions in ONNX Runtime by a third, to a
matrix product by more. Without OpenVINO the same graph runs in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ndp_edge.engines.base import missing
from ndp_edge.errors import MachineError
from ndp_edge.ov_core import cpu_request, import_openvino

SIDE = 256
LEVELS = ((16, 2), (32, 4), (64, 6), (96, 6))
"""(channels, convolutions) at full, half, quarter and eighth size."""

ATTENTION_AT = 2
"""The level after which every 2x2 patch attends to fixed others of their kind."""

PATCH = 2
RANGE = 4.0
"""Largest activation that the uint8 scale can hold; what lies above is cut off."""

NAME = "int8 pyramid with attention, 1"
"""Changes when the work does: figures against another work do not compare."""


class _Graph:
    """Collects nodes and constants; every method returns the name of what it made."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)

    def constant(self, value: NDArray[Any]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        out = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attributes))
        return out

    def convolution(self, x: str, inside: int, outside: int, stride: int) -> str:
        """3x3 on uint8 activations with int8 weights, then ReLU."""
        scale = self.constant(np.float32(RANGE / 255))
        zero = self.constant(np.uint8(0))
        quantised = self.node("QuantizeLinear", x, scale, zero)
        x = self.node("DequantizeLinear", quantised, scale, zero)
        weights = self.rng.integers(-127, 128, (outside, inside, 3, 3)).astype(np.int8)
        # Uniform in +-127 has a deviation of 73: this keeps the activations' size (He).
        step = np.full(outside, (2 / (9 * inside)) ** 0.5 / 73, np.float32)
        zeros = self.constant(np.zeros(outside, np.int8))
        kernel = self.node(
            "DequantizeLinear", self.constant(weights), self.constant(step), zeros, axis=0
        )
        return self.node("Relu", self.node("Conv", x, kernel, pads=[1] * 4, strides=[stride] * 2))

    def attention(self, x: str, channels: int, side: int) -> str:
        """Softmax over fixed patches, which are then summed by weight; the shape stays."""
        count, width = (side // PATCH) ** 2, channels * PATCH * PATCH
        shape = self.constant(np.array([1, count, width], np.int64))
        fixed = self.rng.normal(0, width**-0.5, (count, width)).astype(np.float32)
        dots = self.node(
            "MatMul", self.node("Reshape", x, shape), self.constant(np.ascontiguousarray(fixed.T))
        )
        weights = self.node("Softmax", dots, axis=-1)
        mixed = self.node("MatMul", weights, self.constant(fixed))
        back = self.constant(np.array([1, channels, side, side], np.int64))
        return self.node("Add", self.node("Reshape", mixed, back), x)


def graph() -> onnx.ModelProto:
    """The work on float32 [1, 3, SIDE, SIDE]; its weights are fixed."""
    made = _Graph()
    x, channels = "image", 3
    for level, (wide, count) in enumerate(LEVELS):
        for i in range(count):
            x = made.convolution(x, channels, wide, 2 if level and i == 0 else 1)
            channels = wide
        if level == ATTENTION_AT:
            x = made.attention(x, channels, SIDE >> level)
    side = SIDE >> (len(LEVELS) - 1)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    out = helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, channels, side, side])
    proto = helper.make_graph(made.nodes, "reference", [image], [out], made.constants)
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


class ReferenceWork:
    """The work, ready to run.

    Attributes:
        about: its name, the runtime and its version; part of every result's key.
    """

    def __init__(self) -> None:
        """Compile it for as many threads as the runtime takes by itself.

        Raises:
            MachineError: there is neither OpenVINO nor ONNX Runtime.
        """
        image = np.full((1, 3, SIDE, SIDE), 0.5, np.float32)
        run, runtime = _openvino(image) or _onnxruntime(image)
        self.about = {"work": NAME} | runtime
        self._run = run

    def __call__(self) -> None:
        """Do it once."""
        self._run()


Ready = tuple[Callable[[], Any], dict[str, str]]


def _openvino(image: NDArray[np.float32]) -> Ready | None:
    try:
        ov = import_openvino()
    except MachineError:
        return None
    request = cpu_request(graph().SerializeToString())
    return lambda: request.infer([image]), {"openvino": str(ov.__version__)}


def _onnxruntime(image: NDArray[np.float32]) -> Ready:
    try:
        import onnxruntime as ort  # type: ignore[import-untyped]
    except ImportError as error:
        raise missing("onnxruntime", "pip install onnxruntime") from error
    options = ort.SessionOptions()
    # Threads that spin after their work would eat into the engine's time behind it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session: Any = ort.InferenceSession(
        graph().SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"image": image}), {"onnxruntime": str(ort.__version__)}
