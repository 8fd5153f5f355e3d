"""Small questions about an inlined graph that ranges and Q/DQ insertion both ask."""

from __future__ import annotations

import onnx

CONVOLUTIONS = ("Conv", "ConvTranspose")


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Tensor name -> the node that makes it."""
    return {name: node for node in model.graph.node for name in node.output}


def quantisable(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that run in int8: every (transposed) convolution with constant weights."""
    constant = {tensor.name for tensor in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type in CONVOLUTIONS and node.input[1] in constant
    ]


def scale_groups(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> dict[str, str]:
    """Activation tensor to quantise -> the tensor that names its group; a group has one scale.

    The activations are the first inputs of `nodes`. Behind a Concat that is the Concat's
    output and, through it, every branch: with unequal scales a backend must convert a branch
    before it can join them, or falls back to float (DESIGN section 6).
    """
    made_by = producers(model)
    group: dict[str, str] = {}

    def root(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    waiting = [node.input[0] for node in nodes]
    for name in waiting:  # grows while a Concat's branches are appended
        group.setdefault(name, name)
        node = made_by.get(name)
        if node is not None and node.op_type == "Concat":
            for branch in node.input:
                group.setdefault(branch, branch)
                group[root(branch)] = root(name)
                if branch not in waiting:
                    waiting.append(branch)
    return {name: root(name) for name in group}
