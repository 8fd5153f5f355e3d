"""What each layer of an exported net costs: operations, and bytes to and from memory.

The ONNX is inlined, its batch fixed at 1 and its shapes inferred. Layers are groups: an
element-wise node joins the group of what it reads, as inference engines fuse it, so that what
is between them never reaches memory. A group reads each tensor from outside once and writes
what others read; no cache keeps whole maps. Eager frameworks fuse nothing: there each node is
a group, and so is the batch norm that the export folded into a convolution.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import onnx

from ndp_edge.calib.graph import quantisable, scale_groups
from ndp_edge.errors import InputError
from ndp_edge.export.inline import inline

MATRIX = ("Conv", "ConvTranspose", "MatMul", "Gemm")
"""Nodes whose work is multiply-adds: what a roofline's peak is quoted for."""

JOINS = (
    "Relu", "Sigmoid", "Mul", "Add", "Sub", "Div", "Exp", "Max", "Sqrt", "Reciprocal", "Cast",
    "QuantizeLinear", "DequantizeLinear",
)  # fmt: skip
"""Element-wise nodes: they run in the loop of the node before them."""

FREE = ("Reshape", "Identity", "Unsqueeze", "Squeeze", "Flatten")
"""Nodes that move nothing."""

BYTES = {"fp32": 4, "fp16": 2, "int8": 1}

_REFERENCE = re.compile(r"^rbam\d\.k\d\.(keys|values|mean)$")
"""Constants made of the reference image's maps, not trained."""


@dataclass(frozen=True)
class Group:
    """One layer as a backend runs it, at batch 1.

    Attributes:
        name: the node that begins it.
        nodes: operator types, in order.
        flops: 2 per multiply-add of its matrix nodes.
        vector_ops: 1 per output element of its other nodes.
        weights: numbers held in constants that it reads.
        narrow: elements read and written of tensors that the INT8 graph quantises.
        wide: the same of the others, which stay in floating point.
    """

    name: str
    nodes: tuple[str, ...]
    flops: int
    vector_ops: int
    weights: int
    narrow: int
    wide: int

    @property
    def matrix(self) -> bool:
        """Whether it holds multiply-adds."""
        return self.flops > 0

    def traffic(self, precision: str, wide: str = "fp16") -> int:
        """Bytes to and from memory.

        Args:
            precision: "fp32", "fp16" or "int8".
            wide: for "int8": what the tensors outside the quantised part are in.
        """
        other = BYTES[wide if precision == "int8" else precision]
        constants = BYTES[precision] if self.matrix else other
        return BYTES[precision] * self.narrow + other * self.wide + constants * self.weights


@dataclass(frozen=True)
class Cost:
    """A whole net.

    Attributes:
        groups: its layers in the graph's order.
        parameters: trained numbers (batch norms folded); the reference's maps are no part.
    """

    groups: tuple[Group, ...]
    parameters: int

    @property
    def flops(self) -> int:
        """2 per multiply-add."""
        return sum(group.flops for group in self.groups)

    def traffic(self, precision: str, wide: str = "fp16") -> int:
        """Bytes, as `Group.traffic`."""
        return sum(group.traffic(precision, wide) for group in self.groups)


def cost_of(model: onnx.ModelProto, *, fused: bool = True) -> Cost:
    """Operations and traffic of an exported FP32 net.

    Args:
        fused: as inference engines run it; False: as eager frameworks do.

    Raises:
        InputError: not an exported net, or a node whose shape cannot be inferred.
    """
    flat = _fixed(inline(model) if model.functions else model)
    facts = _Facts(flat)
    members = _groups(flat) if fused else _one_by_one(flat)
    readers: dict[str, set[int]] = {}
    for index, nodes in enumerate(members):
        for node in nodes:
            for name in node.input:
                readers.setdefault(name, set()).add(index)
    groups = []
    for index, nodes in enumerate(members):
        groups.append(_group(nodes, index, readers, facts))
        if not fused and nodes[0].op_type in MATRIX and _feeds_relu(nodes[0], members):
            groups.append(_batch_norm(nodes[0], facts))
    trained = {n for node in flat.graph.node if node.op_type in MATRIX for n in node.input[1:]}
    sizes = facts.constants.items()
    parameters = sum(s for n, s in sizes if n in trained and not _REFERENCE.match(n))
    return Cost(tuple(groups), parameters)


class _Facts:
    """Sizes and shapes by tensor name, and which tensors INT8 quantises."""

    def __init__(self, flat: onnx.ModelProto) -> None:
        self.sizes = _sizes(flat)
        self.narrow = set(scale_groups(flat, quantisable(flat)))
        self.outputs = {entry.name for entry in flat.graph.output}
        self.shapes = {t.name: list(t.dims) for t in flat.graph.initializer}
        self.constants = {name: math.prod(dims) for name, dims in self.shapes.items()}


def _group(
    nodes: list[onnx.NodeProto], index: int, readers: dict[str, set[int]], facts: _Facts
) -> Group:
    sizes, constants = facts.sizes, facts.constants
    made = {name for node in nodes for name in node.output}
    taken = {name for node in nodes for name in node.input if name} - made
    leaves = {n for n in made if readers.get(n, set()) - {index} or n in facts.outputs}
    moved = (taken - constants.keys()) | leaves
    narrow = sum(sizes[name] for name in moved & facts.narrow)
    return Group(
        name=nodes[0].name or nodes[0].output[0],
        nodes=tuple(node.op_type for node in nodes),
        flops=sum(_flops(node, sizes, facts.shapes) for node in nodes),
        vector_ops=sum(sizes[n.output[0]] for n in nodes if n.op_type not in MATRIX),
        weights=sum(constants[name] for name in taken & constants.keys()),
        narrow=narrow,
        wide=sum(sizes[name] for name in moved) - narrow,
    )


def _batch_norm(node: onnx.NodeProto, facts: _Facts) -> Group:
    """The pass over a convolution's output that an eager framework makes for its batch norm."""
    size = facts.sizes[node.output[0]]
    name = f"{node.name}.norm"
    return Group(name, ("BatchNormalization",), 0, size, 0, narrow=0, wide=2 * size)


def _feeds_relu(node: onnx.NodeProto, members: list[list[onnx.NodeProto]]) -> bool:
    """Every convolution before a ReLU had a batch norm between (export/builder.py)."""
    return any(n.op_type == "Relu" and node.output[0] in n.input for one in members for n in one)


def _one_by_one(model: onnx.ModelProto) -> list[list[onnx.NodeProto]]:
    return [[node] for node in model.graph.node if node.op_type not in FREE]


def _fixed(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy at batch 1 with every shape known."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for entry in (*out.graph.input, *out.graph.output):
        entry.type.tensor_type.shape.dim[0].dim_value = 1
    del out.graph.value_info[:]
    try:
        return onnx.shape_inference.infer_shapes(out, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        line = str(error).strip().splitlines()[0]
        raise InputError(f"the shapes of this net cannot be inferred: {line}") from error


def _sizes(model: onnx.ModelProto) -> dict[str, int]:
    """Elements of every activation."""
    graph = model.graph
    found = {}
    for entry in (*graph.value_info, *graph.input, *graph.output):
        dims = entry.type.tensor_type.shape.dim
        if not all(d.dim_value for d in dims):
            raise InputError(f"{entry.name} has no fixed shape; export the net with ndp-edge")
        found[entry.name] = math.prod(d.dim_value for d in dims)
    missing = {n for node in graph.node for n in node.output if n} - found.keys()
    if missing:
        raise InputError(f"the shape of {min(missing)} is unknown; export the net with ndp-edge")
    return found


def _groups(model: onnx.ModelProto) -> list[list[onnx.NodeProto]]:
    """Nodes in the groups they run in, in the graph's order."""
    groups: list[list[onnx.NodeProto]] = []
    made_in: dict[str, int] = {}
    for node in model.graph.node:
        before = [made_in[name] for name in node.input if name in made_in]
        joins = (node.op_type in JOINS or node.op_type in FREE) and before
        if joins:
            # The last of them: by then everything else that the node reads has been made.
            index = max(before)
        else:
            index = len(groups)
            groups.append([])
        groups[index].append(node)
        made_in.update(dict.fromkeys(node.output, index))
    return groups


def _flops(node: onnx.NodeProto, sizes: dict[str, int], shapes: dict[str, list[int]]) -> int:
    """2 per multiply-add; 0 for nodes that are not made of them."""
    if node.op_type not in MATRIX:
        return 0
    weights = shapes.get(node.input[1])
    if weights is None:
        raise InputError(f"{node.name} multiplies two activations; only constants are counted")
    if node.op_type == "Conv":  # [O, I, k, k]: every output element sums I k k products
        return 2 * sizes[node.output[0]] * math.prod(weights[1:])
    if node.op_type == "ConvTranspose":  # [I, O, k, k]: every input element makes O k k
        return 2 * sizes[node.input[0]] * math.prod(weights[1:])
    return 2 * sizes[node.output[0]] * weights[-2]
