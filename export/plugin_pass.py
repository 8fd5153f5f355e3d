"""One exported model, two files for TensorRT: with the fused plugin, or in standard operators.

Which of the two TensorRT takes when a graph has both, functions and a plugin of the same name,
hangs on its version (DESIGN section 4). So the choice is made here, in the file.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ndp_edge.errors import InputError
from ndp_edge.export.functions import DOMAIN
from ndp_edge.export.inline import inline
from ndp_edge.model.prepared import prepare_reference

SCALE_LIMIT = 64.0
"""The largest softmax_scale that the kernels take (kernels/src/ndp_kernels.h)."""


def for_plugin(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model for a build with the plugin; the argument is left as it was.

    The local functions are gone, so that a TensorRT without the plugin fails at once, whatever
    its version. Each RBFRM gets a third input, the float32 vector of `prepare_reference`, and
    the attribute `half`: 1 where its reference is FP16, which decides how the vector is made.
    The reference becomes an initialiser of the type that the node reads (a Cast of one is
    folded, so that the vector is made of the rounded numbers). Everything else stays.

    Run this last, after a pass that changes types: it starts anew from the reference that it
    finds, also on its own result.

    Args:
        model: with RBFRM and FFMSelect as nodes; float32 or typed FP16, Q/DQ or none.

    Raises:
        InputError: no such node (the model is inlined already), or one that the kernels do not
            take: a reference that is no constant, channels not a multiple of 8, sides not of 4,
            a softmax_scale above 64.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    calls = [n for n in out.graph.node if n.domain == DOMAIN and n.op_type == "RBFRM"]
    if not calls:
        raise InputError(
            "the model has no RBFRM node for the plugin; take model.onnx as export wrote it"
        )
    del out.functions[:]
    for call in calls:
        _prepare(out.graph, call)
    _drop_unused(out.graph)
    return out


def for_native(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model for a build without the plugin: standard operators only.

    Args:
        model: as `export` writes it, or inlined already (then this is a copy).

    Raises:
        InputError: plugin nodes whose functions are gone, or a model that is not one of ours.
    """
    known = {function.name for function in model.functions if function.domain == DOMAIN}
    called = {node.op_type for node in model.graph.node if node.domain == DOMAIN}
    if called - known:
        raise InputError(
            f"{', '.join(sorted(called - known))}: a plugin's node without its function; "
            "take model.onnx as export wrote it"
        )
    if called:
        return inline(model)
    out = onnx.ModelProto()
    out.CopyFrom(model)
    return out


def _prepare(graph: onnx.GraphProto, call: onnx.NodeProto) -> None:
    """Give one RBFRM node its typed reference, its vector and `half`."""
    prefix = call.name.rpartition(".")[0] or call.name
    attributes = {a.name: helper.get_attribute_value(a) for a in call.attribute}
    scale = attributes.get("softmax_scale", 0.0)
    if not 0 < scale <= SCALE_LIMIT:
        raise InputError(
            f"{call.name}: the plugin takes a softmax_scale above 0 and at most "
            f"{SCALE_LIMIT:.0f}, not {scale}; build without it"
        )
    name, reference = _constant(graph, call, call.input[1])
    if reference.ndim != 4 or reference.shape[0] != 1 or reference.shape[1] % 8:
        raise InputError(
            f"{call.name}: the plugin takes a reference [1, C, h, w], C a multiple of 8, not "
            f"{list(reference.shape)}; build without it"
        )
    _store(graph, name, reference)
    vector = f"{prefix}.prepared"
    _store(graph, vector, prepare_reference(reference[0]))
    call.input[:] = [call.input[0], name, vector]
    kept = [attribute for attribute in call.attribute if attribute.name != "half"]
    half = helper.make_attribute("half", int(reference.dtype == np.float16))
    del call.attribute[:]
    call.attribute.extend([*kept, half])


def _constant(
    graph: onnx.GraphProto, call: onnx.NodeProto, name: str
) -> tuple[str, NDArray[np.generic]]:
    """The array behind an initialiser or a Cast of one, and the name of that initialiser to be."""
    for tensor in graph.initializer:
        if tensor.name == name:
            return name, numpy_helper.to_array(tensor)
    for node in graph.node:
        if node.op_type == "Cast" and node.output[0] == name:
            _, value = _constant(graph, call, node.input[0])
            to = helper.get_attribute_value(node.attribute[0])
            if to in (TensorProto.FLOAT, TensorProto.FLOAT16):
                with np.errstate(over="ignore"):  # prepare_reference refuses an infinity
                    return f"{name}.folded", value.astype(helper.tensor_dtype_to_np_dtype(to))
    raise InputError(
        f"{call.name}: its reference {name} is no constant of float32 or float16; "
        "take model.onnx as export wrote it"
    )


def _store(graph: onnx.GraphProto, name: str, value: NDArray[np.generic]) -> None:
    tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
    for present in graph.initializer:
        if present.name == name:
            present.CopyFrom(tensor)
            return
    graph.initializer.append(tensor)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Nodes and initialisers that nothing reads any more, from the outputs backwards."""
    used = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if used & set(node.output):
            used.update(node.input)
            kept.append(node)
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(tensors)
