"""Small questions about an inlined graph that ranges and Q/DQ insertion both ask."""

from __future__ import annotations

import onnx

CONVOLUTIONS = ("Conv", "ConvTranspose")

MOVERS = ("Concat", "DepthToSpace", "Slice")
"""Nodes that move values about and change none: in and out share one scale."""


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Tensor name -> the node that makes it."""
    return {name: node for node in model.graph.node for name in node.output}


IMAGE = "image01"
"""The camera's image in [0, 1], as the exporter names it."""


def quantisable(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that run in int8: every (transposed) convolution with constant weights but one.

    The convolution that reads the camera's image stays in float. Symmetric int8 has 128 codes
    for a picture's 256 levels: on a net trained on KolektorSDD that rounding alone brought 38 %
    of the maps' squared error, and most of AUPRO's drop of 0.010 on artificial defects. In
    float it takes no longer: three channels do not fill an int8 dot product.
    """
    constant = {tensor.name for tensor in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type in CONVOLUTIONS and node.input[1] in constant and node.input[0] != IMAGE
    ]


def float_convolutions(int8: onnx.ModelProto) -> int:
    """How many convolutions of an int8 model of ours are left in float: weights not dequantised."""
    constant = {tensor.name for tensor in int8.graph.initializer}
    return sum(n.op_type in CONVOLUTIONS and n.input[1] in constant for n in int8.graph.node)


def scale_groups(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> dict[str, str]:
    """Activation tensor to quantise -> the tensor that names its group; a group has one scale.

    The activations are the first inputs of `nodes`. Where a Concat makes one, its branches
    join the group: with unequal scales a backend must convert a branch before it can join
    them, or falls back to float (DESIGN section 6). Likewise the inputs of other MOVERS, so
    that these move int8 codes.
    """
    made_by = producers(model)
    group: dict[str, str] = {}

    def root(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    waiting = [node.input[0] for node in nodes]
    for name in waiting:  # grows while a mover's inputs are appended
        group.setdefault(name, name)
        node = made_by.get(name)
        if node is not None and node.op_type in MOVERS:
            moved = node.input if node.op_type == "Concat" else node.input[:1]
            for branch in moved:
                group.setdefault(branch, branch)
                group[root(branch)] = root(name)
                if branch not in waiting:
                    waiting.append(branch)
    return {name: root(name) for name in group}
