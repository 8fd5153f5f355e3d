"""The two local functions of the exported graph, in standard operators only.

A backend may inline them, or take a fused plugin of the same name in their place; their
nodes therefore carry `plugin_namespace` and `plugin_version`. Names inside the bodies carry
the prefix "in_" or a patch size, so that none can alias a tensor of the graph around them
(TensorRT's parser before 10.8 mixes them up).
"""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper

from ndp_edge.model.config import PATCH_SIZES

DOMAIN = "ndp_edge"
OPSET = 18
"""Standard operators' version: within what TensorRT 10.3 parses (9 to 20)."""

NORM_EPS = 1e-12
"""Patches of smaller norm count as having this norm (as in model/rbam.py, which needs torch)."""

PLUGIN_ATTRIBUTES = {"plugin_namespace": "", "plugin_version": "1"}


def _const(output: str, **value: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [output], name=output, **value)


def _node(op: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], name=output, **attributes)


def _reference_side(k: int) -> list[onnx.NodeProto]:
    """Constants of one patch size: all of it depends on the reference alone and folds away.

    `k.keys` [R, C, K, K], unit patches times softmax_scale; `k.values` [D, R, 1, 1], centred
    patches; `k.mean` [1, D, 1, 1]. R patches of D = K*K*C numbers, in SpaceToDepth's order.
    """
    p = f"k{k}.reference"
    return [
        _node("SpaceToDepth", ["in_reference"], f"{p}.blocks", blocksize=k),
        _node("Reshape", [f"{p}.blocks", "flat"], f"{p}.columns"),
        _node("Transpose", [f"{p}.columns"], f"{p}.patches", perm=[2, 1, 0]),
        _node("ReduceL2", [f"{p}.patches", "axis_1"], f"{p}.norm", keepdims=1),
        _node("Max", [f"{p}.norm", "norm_eps"], f"{p}.safe_norm"),
        _node("Div", [f"{p}.patches", f"{p}.safe_norm"], f"{p}.unit"),
        _node("Mul", [f"{p}.unit", "scale"], f"{p}.scaled"),
        _const(f"{p}.kernel_shape", value_ints=[0, k, k, -1]),
        _node("Reshape", [f"{p}.scaled", f"{p}.kernel_shape"], f"{p}.kernels"),
        _node("Transpose", [f"{p}.kernels"], f"k{k}.keys", perm=[0, 3, 1, 2]),
        _node("ReduceMean", [f"{p}.patches", "axis_0"], f"{p}.mean", keepdims=1),
        _node("Unsqueeze", [f"{p}.mean", "axis_last"], f"k{k}.mean"),
        _node("Sub", [f"{p}.patches", f"{p}.mean"], f"{p}.centred"),
        _node("Transpose", [f"{p}.centred"], f"{p}.centred_columns", perm=[1, 0, 2]),
        _node("Unsqueeze", [f"{p}.centred_columns", "axis_last"], f"k{k}.values"),
    ]


def _repair(k: int, output: str) -> list[onnx.NodeProto]:
    """Eq. 3-5 for one patch size, as mean + softmax(cosine) @ (patches - mean).

    The weights sum to 1, so this is the printed sum with its large term kept exact. The two
    products are convolutions: of KxK with stride K against the reference's patches, and of
    1x1 back, so that backends keep their own layouts and need no transposes. Both divisions
    (by the patch's norm, by the softmax's sum) come after the product, where they commute
    with it, so that a quantised product takes the features as they are.
    """
    p = f"k{k}"
    return [
        _node("AveragePool", ["energy"], f"{p}.mean_energy", kernel_shape=[k, k], strides=[k, k]),
        _node("Sqrt", [f"{p}.mean_energy"], f"{p}.root"),
        _const(f"{p}.side", value_float=float(k)),
        _node("Mul", [f"{p}.root", f"{p}.side"], f"{p}.norm"),
        _node("Max", [f"{p}.norm", "norm_eps"], f"{p}.safe_norm"),
        _node("Reciprocal", [f"{p}.safe_norm"], f"{p}.per_norm"),
        _node(
            "Conv", ["in_features", f"{p}.keys"], f"{p}.dots", kernel_shape=[k, k], strides=[k, k]
        ),
        _node("Mul", [f"{p}.dots", f"{p}.per_norm"], f"{p}.scores"),
        _node("ReduceMax", [f"{p}.scores", "axis_1"], f"{p}.top", keepdims=1),
        _node("Sub", [f"{p}.scores", f"{p}.top"], f"{p}.shifted"),
        _node("Exp", [f"{p}.shifted"], f"{p}.exp"),
        _node("ReduceSum", [f"{p}.exp", "axis_1"], f"{p}.total", keepdims=1),
        _node("Conv", [f"{p}.exp", f"{p}.values"], f"{p}.sum", kernel_shape=[1, 1]),
        _node("Div", [f"{p}.sum", f"{p}.total"], f"{p}.correction"),
        _node("Add", [f"{p}.correction", f"{p}.mean"], f"{p}.repaired"),
        _node("DepthToSpace", [f"{p}.repaired"], output, blocksize=k, mode="DCR"),
    ]


def rbfrm() -> onnx.FunctionProto:
    """RBFRM(features [N, C, H, W], reference [1, C, h, w]) -> r2, r4, u, each [N, C, H, W].

    r2 and r4 are eq. 5 with K = 2 and 4; u = features + r2 + r4 (eq. 6). The attribute
    softmax_scale multiplies the cosine. Sides are divisible by 4.
    """
    scale = helper.make_node("Constant", [], ["scale"], name="scale")
    reference = onnx.AttributeProto(
        name="value_float", ref_attr_name="softmax_scale", type=onnx.AttributeProto.FLOAT
    )
    scale.attribute.append(reference)
    nodes = [
        scale,
        _const("flat", value_ints=[0, 0, -1]),
        _const("axis_0", value_ints=[0]),
        _const("axis_1", value_ints=[1]),
        _const("axis_last", value_ints=[-1]),
        _const("norm_eps", value_float=NORM_EPS),
        _node("Mul", ["in_features", "in_features"], "squares"),
        _node("ReduceSum", ["squares", "axis_1"], "energy", keepdims=1),
    ]
    for k, output in zip(PATCH_SIZES, ("out_r2", "out_r4"), strict=True):
        nodes += [*_reference_side(k), *_repair(k, output)]
    nodes.append(_node("Add", ["in_features", "out_r2"], "partial_sum"))
    nodes.append(_node("Add", ["partial_sum", "out_r4"], "out_u"))
    return helper.make_function(
        DOMAIN,
        "RBFRM",
        ["in_features", "in_reference"],
        ["out_r2", "out_r4", "out_u"],
        nodes,
        [helper.make_opsetid("", OPSET)],
        ["softmax_scale", *PLUGIN_ATTRIBUTES],
    )


def ffm_select() -> onnx.FunctionProto:
    """FFMSelect(logits [N, 3C, H, W], r4, r2, features [N, C, H, W]) -> fused [N, C, H, W].

    Eq. 7 and 8: softmax over the three branches per element, then the weighted sum; branch
    order r4, r2, features. Element-wise throughout, so that backends fuse it into one loop
    where a Softmax over the stacked branches would stride through the whole tensor.
    """
    branches = ("in_r4", "in_r2", "in_features")
    nodes = [
        helper.make_node(
            "Split", ["in_logits"], ["l0", "l1", "l2"], name="split", axis=1, num_outputs=3
        ),
        _node("Max", ["l0", "l1", "l2"], "top"),
    ]
    for i, branch in enumerate(branches):
        nodes += [
            _node("Sub", [f"l{i}", "top"], f"d{i}"),
            _node("Exp", [f"d{i}"], f"e{i}"),
            _node("Mul", [f"e{i}", branch], f"part{i}"),
        ]
    nodes += [
        _node("Add", ["part0", "part1"], "part01"),
        _node("Add", ["part01", "part2"], "weighted"),
        _node("Add", ["e0", "e1"], "e01"),
        _node("Add", ["e01", "e2"], "total"),
        _node("Div", ["weighted", "total"], "out_fused"),
    ]
    return helper.make_function(
        DOMAIN,
        "FFMSelect",
        ["in_logits", *branches],
        ["out_fused"],
        nodes,
        [helper.make_opsetid("", OPSET)],
        list(PLUGIN_ATTRIBUTES),
    )
