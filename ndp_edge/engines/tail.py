"""The end of the net as matrix products, for OpenVINO on a CPU.

Eq. 11 and the mean after it are linear in the three maps, and work on rows and columns apart:
bilinear enlargement of a map M is A M A^T, the 5x5 mean of it P A M A^T P^T. OpenVINO's CPU
plugin lays maps of one channel out for sixteen and runs Resize and AveragePool on fifteen
empty ones; a product with a constant matrix it runs at full speed. Measured on AVX-512 VNNI:
4 % of the whole of `nano` INT8 (bench/results/speed_work.md). The answers move by less than
1e-6. The file in the bundle keeps Resize and AveragePool.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


class _Term(NamedTuple):
    """One map of the sum: its tensor, its weight, how many times it is enlarged."""

    name: str
    weight: float
    factor: int


def with_products(model: onnx.ModelProto, size: tuple[int, int]) -> None:
    """Replace the weighted sum of enlarged maps and the mean over it, in place.

    Args:
        model: inlined; one that does not end as `export` lets it end is left as it is.
        size: (height, width) in pixels of its input and of its output.
    """
    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    last = made_by.get(graph.output[0].name)
    window = _mean_window(last)
    if last is None or not window:
        return
    dead = {last.output[0]}
    terms = _terms(last.input[0], made_by, values, dead)
    outside = {n for node in graph.node if node.output[0] not in dead for n in node.input}
    if terms is None or dead & outside:
        return
    if any(side % term.factor for side in size for term in terms):
        return
    nodes, output = [], last.output[0]
    means = [mean_matrix(side, window) for side in size]
    sums: list[str] = []
    for i, term in enumerate(terms):
        rows, columns = (
            mean @ enlarge_matrix(side // term.factor, term.factor)
            for mean, side in zip(means, size, strict=True)
        )
        name = f"{output}.part{i}"
        constants = {f"{name}.rows": term.weight * rows, f"{name}.columns": columns.T}
        for key, value in constants.items():
            array = np.ascontiguousarray(value, np.float32)
            graph.initializer.append(numpy_helper.from_array(array, key))
        wide = f"{name}.wide"
        nodes += [_node("MatMul", [term.name, f"{name}.columns"], wide)]
        nodes += [_node("MatMul", [f"{name}.rows", wide], name)]
        sums.append(name)
    total = sums[0]
    for i, name in enumerate(sums[1:], 1):
        result = output if i == len(sums) - 1 else f"{output}.sum{i}"
        nodes.append(_node("Add", [total, name], result))
        total = result
    kept = [node for node in graph.node if node.output[0] not in dead]
    del graph.node[:]
    graph.node.extend([*kept, *nodes])


def enlarge_matrix(side: int, factor: int) -> NDArray[np.float64]:
    """[side * factor, side]: bilinear enlargement along one axis, as ONNX's Resize (half_pixel).

    Output i lies at (i + 0.5) / factor - 0.5; beyond the first and last input it is theirs.
    """
    at = np.clip((np.arange(side * factor) + 0.5) / factor - 0.5, 0, side - 1)
    low = np.minimum(at.astype(np.int64), max(side - 2, 0))
    out = np.zeros((len(at), side))
    rows = np.arange(len(at))
    np.add.at(out, (rows, low), 1 - (at - low))
    np.add.at(out, (rows, np.minimum(low + 1, side - 1)), at - low)
    return out


def mean_matrix(side: int, window: int) -> NDArray[np.float64]:
    """[side, side]: mean of the `window` (odd) around each place, of those inside the edge."""
    places = np.arange(side)
    near = np.abs(places[:, None] - places) <= window // 2
    means: NDArray[np.float64] = near / near.sum(axis=1, keepdims=True)
    return means


def _node(kind: str, inputs: list[str], output: str) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=output)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _mean_window(node: onnx.NodeProto | None) -> int:
    """The side of the square mean that `node` takes at every pixel; 0 where it is another."""
    if node is None or node.op_type != "AveragePool":
        return 0
    given = _attributes(node)
    side = int(given["kernel_shape"][0])
    plain = {
        "kernel_shape": [side] * 2,
        "strides": [1, 1],
        "pads": [side // 2] * 4,
        "count_include_pad": 0,
    }
    return side if side % 2 and given == plain else 0


def _terms(
    name: str,
    made_by: dict[str, onnx.NodeProto],
    values: dict[str, NDArray[Any]],
    dead: set[str],
) -> list[_Term] | None:
    """What the tensor is the sum of; None where it is something else. Fills `dead`."""
    node = made_by.get(name)
    if node is None:
        return None
    dead.add(name)
    if node.op_type == "Add":
        parts = [_terms(side, made_by, values, dead) for side in node.input]
        if any(part is None for part in parts):
            return None
        return [term for part in parts if part for term in part]
    factor = 1
    if node.op_type == "Resize":
        factor = _factor(node, values)
        node = made_by.get(node.input[0])
        if node is None or not factor:
            return None
        dead.add(node.output[0])
    if node.op_type != "Mul" or node.input[1] not in values or values[node.input[1]].size != 1:
        return None
    return [_Term(node.input[0], float(values[node.input[1]]), factor)]


def _factor(node: onnx.NodeProto, values: dict[str, NDArray[Any]]) -> int:
    """By how much a bilinear Resize enlarges both sides; 0 where it does something else."""
    plain = {"mode": b"linear", "coordinate_transformation_mode": b"half_pixel"}
    scales = values.get(node.input[2]) if len(node.input) == 3 else None
    if _attributes(node) != plain or scales is None or scales.shape != (4,):
        return 0
    factor = int(scales[2])
    return factor if factor >= 1 and list(scales) == [1, 1, factor, factor] else 0
