"""The exported model without its local functions and with every constant folded.

This is what OpenVINO (which refuses local functions) and the calibration take.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, shape_inference
from onnx.inliner import inline_local_functions
from onnx.reference import ReferenceEvaluator

from ndp_edge.errors import InputError
from ndp_edge.export.functions import DOMAIN


def inline(model: onnx.ModelProto) -> onnx.ModelProto:
    """Inline the local functions and fold constants; the argument is left as it was.

    What depends on the reference maps alone becomes initialisers (`rbam3.k2.keys`,
    `rbam3.k2.values`, `rbam3.k2.mean`), computed in float64 and stored in float32, equal
    ones once. A tensor of a function's body is named after its call: `rbam3.k2.scores`.
    Shapes are inferred and kept in value_info; the batch stays symbolic. The same model gives
    the same bytes.

    Raises:
        InputError: the result is not a valid model (the argument was not one of ours).
    """
    try:
        flat = inline_local_functions(model)
        _rename(model, flat)
        _fold(flat)
        _share_equal_initialisers(flat)
        imports = [entry for entry in flat.opset_import if entry.domain != DOMAIN]
        del flat.opset_import[:], flat.graph.value_info[:]
        flat.opset_import.extend(imports)
        flat = shape_inference.infer_shapes(flat, strict_mode=True)
        onnx.checker.check_model(flat, full_check=True)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as error:
        line = str(error).strip().splitlines()[0]
        raise InputError(f"the ONNX model cannot be inlined: {line}; export it again") from error
    return flat


def _rename(model: onnx.ModelProto, flat: onnx.ModelProto) -> None:
    """Replace the inliner's names ("k2.scores__1_21") by the call's prefix and the body's name.

    The inliner keeps the order: where the model calls a function, its body's nodes follow.
    """
    functions = {(f.domain, f.name): f for f in model.functions}
    expanded = iter(flat.graph.node)
    kept = {name for node in model.graph.node for name in (*node.input, *node.output)}
    new_names: dict[str, str] = {}
    for call in model.graph.node:
        function = functions.get((call.domain, call.op_type))
        if function is None:
            next(expanded)
            continue
        prefix = call.name.rpartition(".")[0] or call.name
        for body in function.node:
            node = next(expanded)
            for old, new in zip(node.output, body.output, strict=True):
                new_names[old] = old if old in kept else f"{prefix}.{new}"
    for node in flat.graph.node:
        node.input[:] = [new_names.get(name, name) for name in node.input]
        node.output[:] = [new_names.get(name, name) for name in node.output]
        node.name = node.output[0]


def _fold(model: onnx.ModelProto) -> None:
    """Replace each node whose inputs are all constant by its value; drop what is then unused."""
    graph = model.graph
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    stored = {t.name: t for t in graph.initializer}
    values: dict[str, NDArray[Any]] = {}
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        if all(name in values or name in stored for name in node.input if name):
            values.update(_evaluate(node, values, stored, opsets))
        else:
            kept.append(node)
    needed = {name for node in kept for name in node.input}
    tensors = [t for t in graph.initializer if t.name in needed]
    tensors += [_store(v, name) for name, v in values.items() if name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(tensors)


def _evaluate(
    node: onnx.NodeProto,
    values: dict[str, NDArray[Any]],
    stored: dict[str, onnx.TensorProto],
    opsets: dict[str, int],
) -> dict[str, NDArray[Any]]:
    """The node's outputs by name; floats are held in float64 until they are stored."""
    feeds: dict[str, NDArray[Any]] = {}
    for name in filter(None, node.input):
        feeds[name] = (
            values[name] if name in values else _widen(numpy_helper.to_array(stored[name]))
        )
    with np.errstate(all="ignore"):  # infinities are for whoever checks the result to find
        results = ReferenceEvaluator(node, opsets=opsets).run(list(node.output), feeds)
    return {
        name: _widen(np.asarray(result)) for name, result in zip(node.output, results, strict=True)
    }


def _widen(value: NDArray[Any]) -> NDArray[Any]:
    return value.astype(np.float64) if value.dtype == np.float32 else value


def _store(value: NDArray[Any], name: str) -> onnx.TensorProto:
    narrow = value.astype(np.float32) if value.dtype == np.float64 else value
    return numpy_helper.from_array(np.array(narrow, order="C"), name)


def _share_equal_initialisers(model: onnx.ModelProto) -> None:
    """Keep the first of each group of initialisers of equal type, shape and bytes."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    same: dict[str, str] = {}
    unique: list[onnx.TensorProto] = []
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        key = (tensor.data_type, tuple(tensor.dims), value.tobytes())
        if key not in first:
            unique.append(tensor)
        same[tensor.name] = first.setdefault(key, tensor.name)
    del model.graph.initializer[:]
    model.graph.initializer.extend(unique)
    for node in model.graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
