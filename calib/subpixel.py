"""Conv-transposes as plain convolutions, so that every backend has an int8 kernel for them.

A conv-transpose of kernel 4, stride 2, padding 1 puts 2x2 kernel taps on each output pixel,
other taps for each of the 2x2 parities. So it is one 2x2 convolution with four times the
output channels, whose channels are then laid out as 2x2 blocks of pixels, and as many
multiplications as before. Along one axis, position j of the convolution sees inputs
j - 1 + r (r = 0, 1), and block element b of it is output 2 j + b - 1; tap r is therefore
kernel element b + 2 (1 - r), and the first and last output fall outside.

Two gains, measured in OpenVINO 2026.4: without AVX-512 it runs the conv-transposes of `paper`
in float (18 % of the convolution time) and these in int8; and weights get a scale per output
channel where a conv-transpose has one per tensor.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

KERNEL, STRIDE, PADDING = 4, 2, 1


def as_convolutions(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which such conv-transposes are Conv, Relu if there was one, DepthToSpace, Slice.

    The tensor behind the ReLU (or behind the conv-transpose without one) keeps its name and
    values; the convolution keeps the node's name. Others are left alone.

    Args:
        model: inlined float32 model.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    weights = {t.name: t for t in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    swallowed: set[str] = set()
    for node in graph.node:
        if node.output[0] in swallowed:
            continue
        if not _fits(node, weights):
            nodes.append(node)
            continue
        after = [n for n in graph.node if node.output[0] in n.input]
        relu = after[0] if len(after) == 1 and after[0].op_type == "Relu" else None
        if relu is not None:
            swallowed.add(relu.output[0])
        nodes += _rewrite(graph, node, relu, weights)
    used = {name for node in nodes for name in node.input}
    kept = [t for t in graph.initializer if t.name in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    return onnx.shape_inference.infer_shapes(out, strict_mode=True)


def _fits(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> bool:
    if node.op_type != "ConvTranspose" or any(n not in weights for n in node.input[1:]):
        return False
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return (
        list(weights[node.input[1]].dims[2:]) == [KERNEL] * 2
        and list(given.get("strides", [1, 1])) == [STRIDE] * 2
        and list(given.get("pads", [0] * 4)) == [PADDING] * 4
        and given.get("group", 1) == 1
        and list(given.get("dilations", [1, 1])) == [1, 1]
        and list(given.get("output_padding", [0, 0])) == [0, 0]
        and "output_shape" not in given
    )


def _rewrite(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    relu: onnx.NodeProto | None,
    weights: dict[str, onnx.TensorProto],
) -> list[onnx.NodeProto]:
    """The nodes that take the place of one conv-transpose (and its ReLU)."""
    name = node.output[0] if relu is None else relu.output[0]
    arguments = [f"{part}.subpixel" for part in node.input[1:]]
    _store(graph, arguments[0], _weights(numpy_helper.to_array(weights[node.input[1]])))
    for new, old in zip(arguments[1:], node.input[2:], strict=True):
        _store(graph, new, np.tile(numpy_helper.to_array(weights[old]), STRIDE * STRIDE))
    _store(graph, "subpixel.starts", np.array([1, 1], np.int64))
    _store(graph, "subpixel.ends", np.array([-1, -1], np.int64))
    _store(graph, "subpixel.axes", np.array([2, 3], np.int64))
    parts = f"{name}.parts"
    before = parts if relu is None else f"{parts}.linear"
    nodes = [
        helper.make_node(
            "Conv",
            [node.input[0], *arguments],
            [before],
            name=node.name,
            kernel_shape=[2, 2],
            pads=[1, 1, 1, 1],
        )
    ]
    if relu is not None:
        nodes.append(helper.make_node("Relu", [before], [parts], name=parts))
    blocks = f"{name}.blocks"
    cut = [f"subpixel.{part}" for part in ("starts", "ends", "axes")]
    return [
        *nodes,
        helper.make_node("DepthToSpace", [parts], [blocks], name=blocks, blocksize=STRIDE),
        helper.make_node("Slice", [blocks, *cut], [name], name=f"{name}.crop"),
    ]


def _weights(value: NDArray[np.float32]) -> NDArray[np.float32]:
    """[C_in, C_out, 4, 4] to [(b1, b2, C_out), C_in, 2, 2]; DepthToSpace's default order."""
    taps = np.array([[b + 2 * (1 - r) for r in range(2)] for b in range(2)])
    c_in, c_out = value.shape[:2]
    # [C_in, C_out, b1, r1, b2, r2]
    spread = value[:, :, taps[:, :, None, None], taps[None, None]]
    ordered = spread.transpose(2, 4, 1, 0, 3, 5)
    return np.ascontiguousarray(ordered.reshape(4 * c_out, c_in, 2, 2))


def _store(graph: onnx.GraphProto, name: str, value: NDArray[np.generic]) -> None:
    if all(tensor.name != name for tensor in graph.initializer):
        graph.initializer.append(numpy_helper.from_array(value, name))
